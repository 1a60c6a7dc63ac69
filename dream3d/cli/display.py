"""What a person sees of a running job: a live picture in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from dream3d.cli.console import duration, rate
from dream3d.cli.pace import Pace
from dream3d.run.progress import Observer, Progress, silent

LOG_LINES_PER_STAGE = 10
"""A log keeps about this many lines of a stage, whatever its length."""

Clock = Callable[[], float]


@contextmanager
def watching(console: Console, title: str, *, quiet: bool = False, clock: Clock = time.monotonic) -> Iterator[Observer]:
    """An observer that shows a run on ``console`` for as long as the context is open.

    The terminal is restored when the context is left, by an exception or Ctrl-C too. Raises nothing.
    """
    if quiet:
        yield silent
    elif console.is_interactive:
        from dream3d.cli.live import LiveView

        with LiveView(console, title, clock) as view:
            yield view.observe
    else:
        yield LogLines(console, clock).observe


class LogLines:
    """Plain lines: one at each stage's start, at every message, and about ten during a stage."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._start = clock()
        self._stage: str | None = None
        self._lines = 0
        self._pace = Pace(clock)

    def observe(self, progress: Progress) -> None:
        """Writes a line when the report is worth one."""
        self._pace.add(progress)
        # The end of a stage of one or two steps says no more than the next stage's start.
        counted = progress.steps >= LOG_LINES_PER_STAGE
        reached = progress.step * LOG_LINES_PER_STAGE // progress.steps if counted else 0
        if progress.stage != self._stage:
            self._stage, self._lines = progress.stage, reached
            self._write(progress.stage)
        elif reached > self._lines:
            self._lines = reached
            self._write(f"{progress.stage}: {', '.join(_figures(progress, self._pace))}")
        if progress.message:
            self._write(f"{progress.stage}: {progress.message}")

    def _write(self, line: str) -> None:
        stamp = f"[{duration(self._clock() - self._start)}]"
        self._console.print(f"{stamp:>14} {line}", markup=False, highlight=False, soft_wrap=True)


def _figures(progress: Progress, pace: Pace) -> list[str]:
    """What a report says, each figure with its name."""
    figures = [f"step {progress.step}/{progress.steps}"]
    if pace.steps_per_second:
        figures.append(rate(pace.steps_per_second))
    if progress.loss is not None:
        figures.append(f"loss {progress.loss:.4g}")
    if progress.timestep_range is not None:
        figures.append("timesteps {}-{}".format(*progress.timestep_range))
    if progress.occupancy is not None:
        figures.append(f"occupancy {progress.occupancy:.1%}")
    if pace.eta_seconds is not None and progress.step < progress.steps:
        figures.append(f"ETA {duration(pace.eta_seconds)}")
    return figures
