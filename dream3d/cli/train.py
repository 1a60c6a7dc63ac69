"""``dream3d train``: a multi-view prior from rendered objects and captioned pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dream3d.cli.group import DebugOption
from dream3d.cli.options import DeviceOption
from dream3d.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from dream3d.training.loop import StepEvent

LINE_SECONDS = 10.0
"""In a log, a line is written no more often than this."""


def train(
    recipe: Annotated[Path, typer.Argument(help="Settings, .toml; see docs/training.md.", metavar="RECIPE")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; one that holds a run goes on.", show_default="runs/NAME")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: optimizer.rate=1e-4. May be repeated.")
    ] = None,
    device: DeviceOption = "auto",
    debug: DebugOption = False,
) -> None:
    """Train a prior by a recipe. Run the same command again to go on where it stopped."""
    from dream3d.cli.console import make_console
    from dream3d.cli.device import resolve_device
    from dream3d.training.recipe import read_recipe

    settings = read_recipe(recipe, changes or ())
    folder = out or Path("runs") / settings.name
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; give a folder")
    try:
        from dream3d.training.loop import Trainer
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs {error.name}; pip install 'dream3d[train]'") from error

    trainer = Trainer(settings, folder, resolve_device(device))
    done = f", going on after step {trainer.step}" if trainer.step else ""
    typer.echo(f"{len(trainer.stock.objects)} objects, {len(trainer.stock.images)} pictures{done}")
    report = Report(make_console())
    try:
        outcome = trainer.run(report)
    finally:
        report.close()
    if outcome.stopped_by is not None:
        typer.echo(f"stopped after step {outcome.step}; the same command goes on from here")
        raise typer.Exit(128 + outcome.stopped_by)
    typer.echo(f"wrote {outcome.prior}")


class Report:
    """Tells of steps: one line that changes on a terminal, a line now and then in a log."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.status = console.status("training") if console.is_interactive else None
        self.last, self.losses, self.seconds, self.images = time.monotonic(), list[float](), 0.0, 0
        if self.status is not None:
            self.status.start()

    def __call__(self, event: StepEvent) -> None:
        """After every step."""
        self.losses.append(event.loss)
        self.seconds, self.images = self.seconds + event.seconds, self.images + event.images
        interval = 0.5 if self.status is not None else LINE_SECONDS
        if time.monotonic() - self.last < interval and event.step < event.steps:
            return
        from dream3d.cli.console import duration

        each = self.seconds / len(self.losses)
        line = (
            f"step {event.step} of {event.steps}, loss {sum(self.losses) / len(self.losses):.4f}, "
            f"rate {event.rate:.2e}, {self.images / self.seconds:.1f} images/s, "
            f"{duration(each * (event.steps - event.step))} left"
        )
        if self.status is not None:
            self.status.update(line)
        else:
            self.console.print(line, soft_wrap=True)
        self.last, self.losses, self.seconds, self.images = time.monotonic(), [], 0.0, 0

    def close(self) -> None:
        """Give the terminal back."""
        if self.status is not None:
            self.status.stop()
