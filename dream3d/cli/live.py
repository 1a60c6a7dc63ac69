"""The live display: figures, a progress bar, a small image of the object as it forms and one of its target."""

from __future__ import annotations

import time
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dream3d.cli.console import can_draw_images, duration
from dream3d.cli.half_blocks import area_downsample, half_blocks
from dream3d.cli.pace import Clock, Pace, figures
from dream3d.errors import escaped
from dream3d.run.progress import Progress, StageName

PREVIEW_PIXELS = 24
"""Side of the image: 24 columns and 12 rows of a terminal."""
PREVIEW_SIZE = 32
"""Pixels a side that are rendered for it."""
PREVIEW_SECONDS = 2.0
"""Least time from one image to the next: each costs the run some milliseconds."""
SIDE_BY_SIDE_COLUMNS = 62
"""Below this width the image goes under the figures."""
TWO_IMAGES_COLUMNS = SIDE_BY_SIDE_COLUMNS + PREVIEW_PIXELS + 2
"""From this width on, the object's image has beside it what the prior drew, which it is fitted to."""
FIGURE_ROWS = 8
"""Rows of the figures at most; the image is left out if both together are too high for the terminal."""
BAR_COLUMNS = 40
"""Width of the progress bar at most."""
REFRESHES_PER_SECOND = 4.0
_STAGES: tuple[str, ...] = get_args(StageName)


class _Snapshot(NamedTuple):
    """What the drawing thread reads: replaced whole, so that it never sees half a report."""

    progress: Progress
    speed: float | None  # steps per second
    eta: float | None  # seconds to the end of the stage


class LiveView:
    """A context manager whose :meth:`observe` is an observer; it draws from a thread of its own.

    The image is rendered in :meth:`observe`, never by the drawing thread: the field belongs to the thread that
    optimises it.
    """

    def __init__(self, console: Console, title: str, clock: Clock = time.monotonic) -> None:
        self._console, self._title, self._clock = console, title, clock
        self._start = clock()
        self._snapshot: _Snapshot | None = None
        self._pace = Pace(clock)
        self._image: Text | None = None
        self._target: Text | None = None
        self._next_image = self._start
        self._done = False
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=REFRESHES_PER_SECOND)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._done = error is None
        self._live.stop()

    def observe(self, progress: Progress) -> None:
        """Takes a report; the thread draws it a moment later. Messages stay above the display."""
        self._pace.add(progress)
        self._snapshot = _Snapshot(progress, self._pace.steps_per_second, self._pace.eta_seconds)
        if progress.message:
            self._console.print(f"{progress.stage}: {progress.message}")
        if not can_draw_images(self._console):
            return
        if progress.targets is not None:
            self._target = _thumbnail(progress.targets[0])
        if progress.preview is not None and self._clock() >= self._next_image:
            self._image = _thumbnail(progress.preview(1, PREVIEW_SIZE)[0])
            # Counted from the end of the drawing, so that slow images cannot take over the run.
            self._next_image = self._clock() + PREVIEW_SECONDS

    def render(self) -> RenderableType:
        """What the terminal shows now, fitted to its present size."""
        width, height = self._console.size
        beside = width >= SIDE_BY_SIDE_COLUMNS
        rows = PREVIEW_PIXELS // 2 + (2 if beside else FIGURE_ROWS + 2)
        if self._image is None or height < rows or width < PREVIEW_PIXELS:
            return self._figures_block(width)
        if not beside:
            return Group(self._figures_block(width), Text(), self._image)
        images = [self._image]
        if self._target is not None and width >= TWO_IMAGES_COLUMNS and not self._done:
            images = [self._target, self._image]
        grid = Table.grid(padding=(0, 2))
        for _ in images:
            grid.add_column(width=PREVIEW_PIXELS)
        grid.add_column(ratio=1)
        grid.add_row(*images, self._figures_block(width - (PREVIEW_PIXELS + 2) * len(images) - 2))
        return grid

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
        # A stage of one step has no known share: its bar only shows that work is in progress.
        lines.append(
            ProgressBar(
                total=max(progress.steps, 1),
                completed=progress.step,
                width=min(width, BAR_COLUMNS),
                pulse=not counted and progress.step < 1,
            )
        )
        lines += map(_line, figures(progress, speed)[0 if counted else 1 :])
        lines.append(_line(self._times(snapshot), "dim"))
        return _stacked(lines)

    def _times(self, snapshot: _Snapshot) -> str:
        elapsed = f"elapsed {duration(self._clock() - self._start)}"
        return f"{elapsed}, ETA {duration(snapshot.eta)}" if snapshot.eta else elapsed


def _thumbnail(image: NDArray[np.uint8]) -> Text:
    return half_blocks(area_downsample(image, PREVIEW_PIXELS, PREVIEW_PIXELS))


def _stacked(lines: list[RenderableType]) -> Table:
    """The lines in a column: a table, because a progress bar does not end its own line."""
    grid = Table.grid()
    for line in lines:
        grid.add_row(line)
    return grid


def _line(text: str, style: str = "") -> Text:
    return Text(escaped(text), style=style, no_wrap=True, overflow="ellipsis")
