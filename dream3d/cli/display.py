"""What a person sees of a run: a live display in a terminal, plain lines elsewhere, or nothing; and its outcome."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from dream3d.cli import LOADED_AT
from dream3d.cli.console import duration, make_console, memory
from dream3d.cli.group import say
from dream3d.cli.pace import Clock, Pace, figures
from dream3d.run.progress import Observer, Outcome, Progress, silent

LOG_LINES_PER_STAGE = 10
"""Lines per stage in a log, about, whatever its length."""


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


@contextmanager
def watching_run(run_dir: Path, prompt: str, *, quiet: bool) -> Iterator[Observer]:
    """:func:`watching` on stdout; a run that is stopped ends with the command that resumes it, on stderr."""
    try:
        with watching(make_console(), prompt, quiet=quiet) as observer:
            yield observer
    except (KeyboardInterrupt, SystemExit):
        if run_dir.exists():
            say(f"stopped; resume with: dream3d resume {shlex.quote(str(run_dir))}", err=True)
        raise


def print_outcome(outcome: Outcome, quiet: bool) -> None:
    """What a finished run made, on stdout; the mesh's path alone if ``quiet``. Warnings go to stderr."""
    from dream3d.mesh.surface import CUT_OFF

    if outcome.cap_area > CUT_OFF:
        cut = f"{outcome.cap_area:.1%} of the mesh's area is cut off flat at the border of the volume"
        say(f"warning: {cut}; try another --seed", err=True)
    if quiet:
        say(outcome.mesh_path)
        return
    print_mesh(outcome.mesh_path, outcome.vertices, outcome.faces, outcome.texture)
    say(f"run folder  {outcome.run_dir}")
    say(f"took        {duration(time.monotonic() - LOADED_AT)}, peak memory {memory(outcome.peak_memory_bytes)}")


def print_mesh(path: Path, vertices: int, faces: int, texture: int) -> None:
    """A line on stdout about a mesh file; ``texture`` is its texture's side in pixels, 0 for none."""
    skin = f", texture of {texture} pixels" if texture else ""
    say(f"mesh        {path} ({vertices:,} vertices, {faces:,} faces{skin})")


class LogLines:
    """Plain lines: one at the start of each stage, one per message, and about ten during a stage."""

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
        if progress.stage != self._stage or reached < self._lines:  # a run that begins again goes backwards
            self._stage, self._lines = progress.stage, reached
            self._write(progress.stage)
        elif reached > self._lines:
            self._lines = reached
            left = self._pace.eta_seconds if progress.step < progress.steps else None
            eta = [] if left is None else [f"ETA {duration(left)}"]
            self._write(f"{progress.stage}: {', '.join(figures(progress, self._pace.steps_per_second) + eta)}")
        if progress.message:
            self._write(f"{progress.stage}: {progress.message}")

    def _write(self, line: str) -> None:
        stamp = f"[{duration(self._clock() - self._start)}]"
        self._console.print(f"{stamp:>14} {line}", soft_wrap=True)
