"""``generate --live``: the run in the browser, from a server that only this machine reaches and that ends with it."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from dream3d.cli.group import say
from dream3d.cli.pace import Clock, Pace, figures
from dream3d.errors import Dream3DError
from dream3d.images import enlarged, png_bytes, side_by_side
from dream3d.report.live_server import LiveServer, LiveState
from dream3d.run.progress import Observer, Progress

VIEWS, SIZE = 4, 64
"""Views of the field, and their side in pixels."""
LEAST_SECONDS = 1.0
"""From one picture of the field to the next."""
SHARE = 0.05
"""Of the run's time that pictures of the field may take."""
TARGET_SIDE = 64
KEPT = 10_000
"""Losses that are kept for the plot; those before are dropped."""


class BrowserView:
    """An observer that shows a run on the page of a server.

    Pictures are rendered here, in the run's own thread, and only while a browser is there to see them.
    """

    def __init__(self, server: LiveServer, clock: Clock = time.monotonic) -> None:
        self._server, self._clock, self._pace = server, clock, Pace(clock)
        self._losses: deque[tuple[int, float]] = deque(maxlen=KEPT)
        self._next = clock()

    def observe(self, progress: Progress) -> None:
        """Takes a report."""
        self._pace.add(progress)
        if progress.loss is not None:
            if self._losses and progress.step <= self._losses[-1][0]:  # the run has begun again
                self._losses.clear()
            self._losses.append((progress.step, progress.loss))
        messages = self._server.state.messages
        self._server.state = LiveState(
            progress.stage,
            progress.step,
            progress.steps,
            tuple(figures(progress, self._pace.steps_per_second)),
            (*messages, progress.message) if progress.message else messages,
            tuple(self._losses) if self._server.watched else (),
        )
        if progress.targets is not None:
            self._server.put_picture("targets", png_bytes(side_by_side(enlarged(progress.targets, TARGET_SIDE))))
        if progress.preview is not None and self._server.watched and self._clock() >= self._next:
            began = self._clock()
            self._server.put_picture("field", png_bytes(side_by_side(progress.preview(VIEWS, SIZE))))
            took = self._clock() - began
            self._next = self._clock() + max(LEAST_SECONDS, took * (1 / SHARE - 1))


@contextmanager
def in_browser(run_dir: Path, prompt: str, *, quiet: bool = False) -> Iterator[Observer]:
    """An observer that shows a run in the browser for as long as the context is open.

    In the end the page becomes the run's report. A browser that goes away, or none, is no matter. Raises Dream3DError
    if no port of this machine can be listened to.
    """
    from dream3d.report.server import open_browser

    try:
        server = LiveServer(prompt)
    except OSError as error:
        raise Dream3DError(f"--live cannot serve a page ({error.strerror}); leave it out") from error
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        say(f"live        {server.address}", err=quiet)
        if not open_browser(server.address):
            say("note: no browser with a window was found; open the address yourself", err=True)
        try:
            yield BrowserView(server).observe
            server.end(_ended(server, "finished"), _report_of(run_dir))
        except (KeyboardInterrupt, SystemExit):
            server.end(_ended(server, "The run was stopped; it can be resumed."), None)
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, Dream3DError) else type(error).__name__
            server.end(_ended(server, f"The run failed: {reason}"), None)
            raise
        finally:
            server.shutdown()
            thread.join()


def _ended(server: LiveServer, words: str) -> LiveState:
    return replace(server.state, stage=words, ended=True)


def _report_of(run_dir: Path) -> bytes | None:
    """The page of a finished run, by the name that it has in its folder; None if it cannot be read."""
    from dream3d.run.folder import RunFolder

    with suppress(OSError, Dream3DError):
        for path in RunFolder.seen(run_dir).owned(re.compile(r"report(-\d+)?\.html")):
            return path.read_bytes()
    return None
