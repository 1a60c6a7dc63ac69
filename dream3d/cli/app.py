"""The ``dream3d`` command. Each command lives in its own file and imports torch only when it runs."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from dream3d.cli.batch import batch
from dream3d.cli.dataset import dataset
from dream3d.cli.doctor import doctor
from dream3d.cli.generate import generate
from dream3d.cli.group import DebugOption, OneLineGroup
from dream3d.cli.models import models
from dream3d.cli.resume import resume
from dream3d.cli.train import train
from dream3d.cli.train_encoder import train_encoder
from dream3d.cli.views import views
from dream3d.version import __version__


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"dream3d {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="dream3d",
    cls=OneLineGroup,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Turn a sentence into a textured 3D asset."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command()(generate)
app.command()(resume)
app.command()(batch)
app.command()(views)
app.command()(doctor)
app.command()(train)
app.command("train-encoder")(train_encoder)
app.add_typer(models, name="models")
app.add_typer(dataset, name="dataset")


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def main() -> None:
    """The console script: runs the command line on ``sys.argv`` and exits with its code."""
    # The default action kills the process in the middle of a drawing and leaves the cursor hidden.
    signal.signal(signal.SIGTERM, _terminated)
    app(prog_name="dream3d")
