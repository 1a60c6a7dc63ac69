"""``dream3d train``: a multi-view prior from rendered objects and captioned images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dream3d.cli.group import DebugOption, say
from dream3d.cli.options import DeviceOption
from dream3d.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from dream3d.training.events import Outcome, StepEvent
    from dream3d.training.loop import Trainer

LINE_SECONDS = 10.0
"""In a log, a line is written no more often than this."""


def train(
    recipe: Annotated[Path, typer.Argument(help="Settings, .toml; see docs/training.md.", metavar="RECIPE")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; a run that it holds is resumed.", show_default="runs/NAME")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: optimizer.rate=1e-4. May be repeated.")
    ] = None,
    device: DeviceOption = "auto",
    debug: DebugOption = False,
) -> None:
    """Train a prior, its image adapter or its decoder, by a recipe.

    Run the same command again to resume a run that was stopped.
    """
    from dream3d.cli.device import resolve_device
    from dream3d.training.recipe import read_recipe

    settings = read_recipe(recipe, changes or ())
    folder = out or Path("runs") / settings.name
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; give a folder")

    from dream3d.training.tasks import decoder, joint, multiview, retrieval

    tasks = {"multiview": multiview, "retrieval": retrieval, "joint": joint, "decoder": decoder}
    trainer: Trainer[Any] = tasks[settings.task].make_trainer(settings, folder, resolve_device(device))
    inputs = trainer.task.inputs
    outcome = run_trainer(trainer, f"{len(inputs.objects)} objects, {len(inputs.images)} images")
    if trainer.accelerator.is_main_process:
        say(f"wrote {outcome.result}")


def run_trainer(trainer: Trainer[Any], data: str, *, quiet: bool = False) -> Outcome:
    """Train to the end and report on the way, first of the ``data``; exits with 128 + n after signal n.

    Of several processes, the main one reports.
    """
    from dream3d.cli.console import make_console

    quiet = quiet or not trainer.accelerator.is_main_process
    if quiet:
        outcome = trainer.run()
    else:
        say(data + (f", resuming after step {trainer.step}" if trainer.step else ""))
        with Report(make_console()) as report:
            outcome = trainer.run(report)
    if outcome.stopped_by is not None:
        if trainer.accelerator.is_main_process:
            say(f"stopped after step {outcome.step}; the same command resumes from here")
        raise typer.Exit(128 + outcome.stopped_by)
    return outcome


class Report:
    """Reports steps: one line that changes on a terminal, a line now and then in a log."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.status = console.status("training") if console.is_interactive else None
        self.last, self.events = time.monotonic(), list["StepEvent"]()

    def __enter__(self) -> Report:
        if self.status is not None:
            self.status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.status is not None:
            self.status.stop()

    def __call__(self, event: StepEvent) -> None:
        """After every step."""
        self.events.append(event)
        interval = 0.5 if self.status is not None else LINE_SECONDS
        if time.monotonic() - self.last < interval and event.step < event.steps:
            return
        line = summary(self.events)
        if self.status is not None:
            self.status.update(line)
        else:
            self.console.print(line, soft_wrap=True)
        self.last, self.events = time.monotonic(), []


def summary(events: Sequence[StepEvent]) -> str:
    """The last step, and means over some steps, in a line."""
    from dream3d.cli.console import duration

    last, count = events[-1], len(events)
    seconds = sum(event.seconds for event in events)
    means = {"loss": sum(event.loss for event in events) / count}
    means |= {name: sum(event.figures[name] for event in events) / count for name in last.figures}
    figures = "".join(f", {name} {value:.4f}" for name, value in means.items())
    return (
        f"step {last.step} of {last.steps}{figures}, rate {last.rate:.2e}, "
        f"{sum(event.images for event in events) / seconds:.1f} images/s, "
        f"{duration(seconds / count * (last.steps - last.step))} left"
    )
