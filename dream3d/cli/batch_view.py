"""What a person sees of a batch: a bar per running asset in a terminal, and a line per finished asset."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from dream3d.batch.work import JobProgress, Result
from dream3d.cli.console import duration


@contextmanager
def watching_batch(console: Console, total: int) -> Iterator[BatchView]:
    """A view of ``total`` assets on ``console`` while the context is open; bars in a terminal only."""
    if not console.is_interactive or not total:
        yield BatchView(console, total)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        yield BatchView(console, total, bars)


class BatchView:
    """Shows the progress of workers and the assets that ended."""

    def __init__(self, console: Console, total: int, bars: Progress | None = None) -> None:
        """Without ``bars`` there are lines only."""
        self._console, self._total, self._count, self._bars = console, total, 0, bars
        self._began = time.monotonic()
        self._all = bars.add_task("all", total=total) if bars else None
        self._tasks: dict[str, TaskID] = {}

    def working(self, working: JobProgress) -> None:
        """Shows a worker's progress."""
        if self._bars is None:
            return
        if working.key not in self._tasks:
            self._tasks[working.key] = self._bars.add_task(working.key)
        what = f"{working.key}: {working.stage}"
        self._bars.update(self._tasks[working.key], description=what, completed=working.step, total=working.steps)
        self._bars.refresh()

    def ended(self, result: Result) -> None:
        """Shows an asset that was made or failed."""
        self._count += 1
        seconds = (time.monotonic() - self._began) / self._count * (self._total - self._count)
        left = f", {duration(seconds)} left" if self._count < self._total else ""
        what = f"failed: {result.reason}" if result.reason else f"made in {duration(result.seconds)}"
        line = f"[{self._count}/{self._total}{left}] {result.key}: {what}"
        if self._bars is not None and self._all is not None:
            self._bars.update(self._all, completed=self._count, description=f"all{left}")
            if result.key in self._tasks:
                self._bars.remove_task(self._tasks.pop(result.key))
        self._console.print(line, soft_wrap=True)
