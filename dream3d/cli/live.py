"""The live display: figures, a progress bar and a small picture of the object as it forms."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import get_args

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dream3d.cli.console import can_draw_pictures, duration, rate
from dream3d.cli.display import Clock
from dream3d.cli.pace import Pace
from dream3d.cli.preview import area_downsample, half_blocks
from dream3d.run.progress import Progress, StageName

PREVIEW_PIXELS = 24
"""Side of the picture: 24 columns and 12 rows of a terminal."""

PREVIEW_SECONDS = 2.0
"""A picture costs milliseconds of the run; no more than one in this time."""

SIDE_BY_SIDE_COLUMNS = 62
"""Below this width the picture goes under the figures."""

FIGURE_ROWS = 8
"""Rows of the figures at most; with the picture they must fit the terminal, or the picture is left out."""

BAR_COLUMNS = 40
"""Width of the progress bar at most."""

REFRESHES_PER_SECOND = 4.0

_STAGES: tuple[str, ...] = get_args(StageName)


@dataclass(frozen=True)
class _Snapshot:
    """What the drawing thread reads: replaced whole, so that it never sees half a report."""

    progress: Progress
    speed: float | None
    """Steps per second."""
    eta: float | None
    """Seconds to the end of the stage."""


class LiveView:
    """A context manager whose :meth:`observe` is an observer; it draws from a thread of its own.

    The picture is asked for in :meth:`observe`, never by the drawing thread: the field belongs to the
    thread that optimises it.
    """

    def __init__(self, console: Console, title: str, clock: Clock = time.monotonic) -> None:
        self._console, self._title, self._clock = console, title, clock
        self._start = clock()
        self._snapshot: _Snapshot | None = None
        self._pace = Pace(clock)
        self._picture: Text | None = None
        self._next_picture = self._start
        self._done = False
        self._live = Live(
            console=console, get_renderable=self.render, refresh_per_second=REFRESHES_PER_SECOND, transient=False
        )

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done = error is None
        self._live.stop()

    def observe(self, progress: Progress) -> None:
        """Takes a report; the thread draws it a moment later. Messages stay above the display."""
        self._pace.add(progress)
        self._snapshot = _Snapshot(progress, self._pace.steps_per_second, self._pace.eta_seconds)
        if progress.message:
            self._console.print(f"{progress.stage}: {progress.message}", markup=False, highlight=False)
        now = self._clock()
        if progress.preview is not None and now >= self._next_picture and can_draw_pictures(self._console):
            self._picture = half_blocks(area_downsample(progress.preview(), PREVIEW_PIXELS, PREVIEW_PIXELS))
            # Counted from the end of the drawing, so that a slow picture cannot eat the run.
            self._next_picture = self._clock() + PREVIEW_SECONDS

    def render(self) -> RenderableType:
        """What the terminal shows now, fitted to its present size."""
        width, height = self._console.size
        beside = width >= SIDE_BY_SIDE_COLUMNS
        rows = PREVIEW_PIXELS // 2 + (2 if beside else FIGURE_ROWS + 2)
        if self._picture is None or height < rows or width < PREVIEW_PIXELS:
            return self._figures_block(width)
        figures = self._figures_block(width - PREVIEW_PIXELS - 4 if beside else width)
        if beside:
            grid = Table.grid(padding=(0, 2))
            grid.add_column(width=PREVIEW_PIXELS)
            grid.add_column(ratio=1)
            grid.add_row(self._picture, figures)
            return grid
        return Group(figures, Text(), self._picture)

    def _figures_block(self, width: int) -> RenderableType:
        snapshot = self._snapshot
        lines: list[RenderableType] = [_line(self._title, "bold")]
        if snapshot is None:
            return _stacked([*lines, _line("starting")])
        if self._done:
            return _stacked([*lines, _line("done", "green"), _line(self._times(snapshot), "dim")])
        progress, speed = snapshot.progress, snapshot.speed
        lines.append(_line(f"{progress.stage} ({_STAGES.index(progress.stage) + 1} of {len(_STAGES)})", "cyan"))
        counted = progress.steps > 1
        # A stage of one step has no known share: its bar only says that something is going on.
        lines.append(
            ProgressBar(
                total=max(progress.steps, 1),
                completed=progress.step,
                width=min(width, BAR_COLUMNS),
                pulse=not counted and progress.step < 1,
            )
        )
        if counted:
            lines.append(_line(f"step {progress.step} / {progress.steps}" + (f", {rate(speed)}" if speed else "")))
        if progress.loss is not None:
            lines.append(_line(f"loss {progress.loss:.4g}"))
        if progress.timestep_range is not None:
            lines.append(_line("timesteps {} to {}".format(*progress.timestep_range)))
        if progress.occupancy is not None:
            lines.append(_line(f"occupancy {progress.occupancy:.1%}"))
        lines.append(_line(self._times(snapshot), "dim"))
        return _stacked(lines)

    def _times(self, snapshot: _Snapshot) -> str:
        elapsed = f"elapsed {duration(self._clock() - self._start)}"
        return f"{elapsed}, ETA {duration(snapshot.eta)}" if snapshot.eta else elapsed


def _stacked(lines: list[RenderableType]) -> Table:
    """One below the other; a table, because a progress bar does not end its own line."""
    grid = Table.grid()
    for line in lines:
        grid.add_row(line)
    return grid


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
