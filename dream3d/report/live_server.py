"""What a run tells the browsers of this machine while it is at work."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dream3d.report.live_page import live_page
from dream3d.report.plots import Series, line_plot
from dream3d.report.server import Answer, PageServer

WATCHED_SECONDS = 5.0
"""After a browser has asked, it counts as there for so long; it asks once a second."""
LINGER_SECONDS = 10.0
"""That the end of a run waits at most for a browser that is there to have taken the report."""
MESSAGES = 6
"""Shown at a time."""


@dataclass(frozen=True)
class LiveState:
    """What is seen besides the pictures; replaced whole, so that no answer has half of a report."""

    stage: str = "starting"
    step: int = 0
    steps: int = 1
    figures: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    loss: tuple[tuple[int, float], ...] = field(default=(), repr=False)
    """Steps and losses so far."""
    ended: bool = False


class LiveServer(PageServer):
    """Serves the page of one run, its figures, its pictures, and in the end its report.

    The run's thread puts things in, threads of the server take them out. Raises OSError as :class:`PageServer`.
    """

    def __init__(self, title: str, port: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """``port`` 0: any that is free."""
        self.state = LiveState()
        self._pictures: dict[str, tuple[int, bytes]] = {}
        self._report: bytes | None = None
        self._taken, self._clock = threading.Event(), clock
        self._asked: float | None = None
        super().__init__(live_page(title).encode(), port)

    @property
    def watched(self) -> bool:
        """Whether a browser has asked a moment ago. If none has, nothing needs drawing."""
        return self._asked is not None and self._clock() - self._asked < WATCHED_SECONDS

    def put_picture(self, name: str, png: bytes) -> None:
        """Show another picture: of the "field", or of the "targets"."""
        number, _ = self._pictures.get(name, (0, b""))
        self._pictures[name] = (number + 1, png)

    def end(self, state: LiveState, report: bytes | None) -> None:
        """Say that the run is over, show its report if there is one, and wait until a browser that is there knows."""
        self._taken.clear()
        self._report, self.state = report, state
        if self.watched:
            self._taken.wait(LINGER_SECONDS)

    def answer(self, path: str) -> Answer | None:
        """The page, its figures and pictures."""
        path = path.partition("?")[0]
        if path == "/state.json":
            self._asked = self._clock()
            return Answer("application/json", json.dumps(self._facts()).encode())
        if path == "/report.html" and self._report is not None:
            return Answer("text/html; charset=utf-8", self._report)
        picture = self._pictures.get(path.removeprefix("/").removesuffix(".png"))
        if picture is not None:
            return Answer("image/png", picture[1])
        return super().answer(path)

    def answered(self, path: str) -> None:
        """What ends the wait of :meth:`end`: the report, or the last word of a run without one."""
        if self.state.ended and (path == "/report.html" or (path == "/state.json" and self._report is None)):
            self._taken.set()

    def _facts(self) -> dict[str, object]:
        state = self.state
        steps, losses = zip(*state.loss, strict=True) if state.loss else ((), ())
        return {
            "stage": state.stage,
            "step": state.step,
            "steps": max(state.steps, 1),
            "figures": state.figures,
            "messages": state.messages[-MESSAGES:],
            "loss": line_plot("loss", "step", [Series("loss", steps, losses)]),
            "pictures": {name: self._pictures.get(name, (0, b""))[0] for name in ("field", "targets")},
            "ended": state.ended,
            "report": self._report is not None,
        }
