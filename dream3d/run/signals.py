"""Being told to stop: signals are noted and obeyed where the work can be left whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Ctrl-C, a polite kill, and a terminal that is closed (not on Windows)."""


class Signals:
    """What :func:`listening` heard."""

    received: int | None = None
    """Number of the last signal, or None."""


@contextmanager
def listening() -> Iterator[Signals]:
    """SIGINT, SIGTERM and SIGHUP are noted instead of obeyed; a second one of a kind does what it did before.

    One that is ignored (``nohup``, a shell's background job) stays ignored. Outside the main thread, which alone may
    set handlers, nothing is heard.
    """
    heard = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    present = {number: signal.getsignal(number) for number in STOPPING}
    before = {number: handler for number, handler in present.items() if handler is not signal.SIG_IGN}

    def note(number: int, frame: FrameType | None) -> None:
        heard.received = number
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
