"""Speed, time left and figures of the current stage, from the progress reports."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dream3d.cli.console import rate
from dream3d.run.progress import Progress

Clock = Callable[[], float]
"""Seconds from some fixed point, as ``time.monotonic`` gives them."""

WINDOW_SECONDS = 30.0
"""Speed is measured over this time: the render size changes during a run, and with it the speed."""

MAX_SAMPLES = 256


class Pace:
    """Steps per second and seconds left of the stage that was reported last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stage: str | None = None
        self._seen: deque[tuple[float, int]] = deque(maxlen=MAX_SAMPLES)
        self._steps = 0

    def add(self, progress: Progress) -> None:
        """Takes a report into account; a new stage starts again from nothing."""
        now = self._clock()
        # A stage that goes backwards is a new one with the old name.
        if progress.stage != self._stage or (self._seen and progress.step < self._seen[-1][1]):
            self._seen.clear()
            self._stage = progress.stage
        self._steps = progress.steps
        self._seen.append((now, progress.step))
        while len(self._seen) > 2 and now - self._seen[1][0] > WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def steps_per_second(self) -> float | None:
        """Mean speed over the window; None before two reports that differ in step and time."""
        if len(self._seen) < 2:
            return None
        (first, done_then), (last, done_now) = self._seen[0], self._seen[-1]
        return (done_now - done_then) / (last - first) if last > first and done_now > done_then else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the stage ends at this speed; None while the speed is unknown."""
        speed = self.steps_per_second
        return (self._steps - self._seen[-1][1]) / speed if speed else None


def figures(progress: Progress, steps_per_second: float | None) -> list[str]:
    """What a report says, each figure with its name; the step with its speed comes first."""
    shown = [f"step {progress.step}/{progress.steps}" + (f", {rate(steps_per_second)}" if steps_per_second else "")]
    if progress.loss is not None:
        shown.append(f"loss {progress.loss:.4g}")
    if progress.timestep_range is not None:
        shown.append("timesteps {}-{}".format(*progress.timestep_range))
    if progress.occupancy is not None:
        shown.append(f"occupancy {progress.occupancy:.1%}")
    return shown
