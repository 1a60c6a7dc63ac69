"""What a person sees of a download: a bar in a terminal, a line at every tenth elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from dream3d.cli.console import memory
from dream3d.weights.obtain import Reporter

if TYPE_CHECKING:
    from rich.progress import TaskID

TENTHS = 10


@contextmanager
def transferring(console: Console) -> Iterator[Reporter]:
    """The reporter of a pull's progress on ``console``, for as long as the context is open."""
    if not console.is_interactive:
        lines = TransferLines(console)
        yield Reporter(lines.say, lines.progress)
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name.rpartition("/")[2], total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield Reporter(lambda line: bars.console.print(line, markup=False, highlight=False, soft_wrap=True), advance)


class TransferLines:
    """Plain lines for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._reached: dict[str, int] = {}

    def say(self, line: str) -> None:
        """Writes a line as it is."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def progress(self, name: str, done: int, total: int | None) -> None:
        """Writes a line for each tenth of a file; without a known size, for each gigabyte."""
        step = total / TENTHS if total else 1e9
        reached = int(done / step)
        if name not in self._reached:
            self._reached[name] = 0
        if reached > self._reached[name]:
            self._reached[name] = reached
            share = f"{done / total:.0%} of {memory(total)}" if total else memory(done)
            self.say(f"{name}: {share}")
