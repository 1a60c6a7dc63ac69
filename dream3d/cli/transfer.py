"""What a person sees of a download: a bar in a terminal, a line at every tenth elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
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
    say = partial(console.print, soft_wrap=True)
    if not console.is_interactive:
        yield Reporter(say, _log(say))
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

        yield Reporter(say, advance)


def _log(say: Callable[[str], None]) -> Callable[[str, int, int | None], None]:
    """Lines for logs: one for each tenth of a file; without a known size, for each gigabyte."""
    written: dict[str, int] = {}

    def advance(name: str, done: int, total: int | None) -> None:
        reached = int(done / (total / TENTHS if total else 1e9))
        if reached > written.get(name, 0):
            written[name] = reached
            say(f"{name}: {f'{done / total:.0%} of {memory(total)}' if total else memory(done)}")

    return advance
