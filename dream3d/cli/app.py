"""The ``dream3d`` command. Each command lives in its own file and imports torch only when it runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated, NoReturn

import typer

from dream3d.cli.batch import batch
from dream3d.cli.corpus import corpus
from dream3d.cli.dataset import dataset
from dream3d.cli.doctor import doctor
from dream3d.cli.dreambooth import dreambooth
from dream3d.cli.evaluate import evaluate
from dream3d.cli.export import export
from dream3d.cli.generate import generate
from dream3d.cli.group import DebugOption, OneLineGroup, SectionedCommand
from dream3d.cli.models import models
from dream3d.cli.replay import replay
from dream3d.cli.report import report
from dream3d.cli.resume import resume
from dream3d.cli.train import train
from dream3d.cli.train_encoder import train_encoder
from dream3d.cli.variations import variations
from dream3d.cli.view import view
from dream3d.cli.views import views
from dream3d.errors import UsageError
from dream3d.own_process import set_up
from dream3d.run.signals import STOPPING
from dream3d.version import __version__


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"dream3d {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="dream3d",
    cls=OneLineGroup,
    invoke_without_command=True,
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
    """Turn a text prompt into a coloured 3D mesh."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    elif sys.flags.optimize > 1:
        raise UsageError(
            "Python was told to leave out docstrings, which diffusers reads; unset PYTHONOPTIMIZE, or use 1"
        )


_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Make 3D assets": (generate, resume, export, replay, report, view, batch, variations, views, doctor),
    "Priors and training": (dreambooth, train, train_encoder),
}
for _section, _functions in _COMMANDS.items():
    for _function in _functions:
        app.command(cls=SectionedCommand, rich_help_panel=_section)(_function)
app.add_typer(models, name="models", rich_help_panel="Priors and training")
app.add_typer(dataset, name="dataset", rich_help_panel="Priors and training")
app.add_typer(corpus, name="corpus", rich_help_panel="Priors and training")
app.add_typer(evaluate, name="evaluate", rich_help_panel="Priors and training")


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def main() -> None:
    """The console script: runs the command line on ``sys.argv`` and exits with its code."""
    # The default action kills the process while it draws or has workers, and leaves the cursor hidden and them alone.
    for number in {signal.SIGTERM, *STOPPING} - {signal.SIGINT}:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _terminated)
    set_up()
    app(prog_name="dream3d")
