"""Speed and time left of the current stage, from the reports as they come in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dream3d.run.progress import Progress

WINDOW_SECONDS = 30.0
"""Speed is that of the last half minute: rendering sizes change during a run, and with them the speed."""

MAX_SAMPLES = 256


class Pace:
    """Steps per second and seconds left of the stage that was reported last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._stage: str | None = None
        self._seen: deque[tuple[float, int]] = deque(maxlen=MAX_SAMPLES)
        self._steps = 0

    def add(self, progress: Progress) -> None:
        """Takes a report into account; a new stage starts afresh."""
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
