"""Locks between processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dream3d.errors import Dream3DError


@contextmanager
def held(lock: Path, busy: str, wait: Callable[[str], object] | None = None) -> Iterator[None]:
    """Hold the lock file ``lock`` against other processes; the system gives it back however this one ends.

    While another process holds it: with ``wait``, that is told ``busy`` once and we wait; without,
    :class:`Dream3DError` with the text ``busy`` is raised. Raises OSError if the file cannot be made.
    """
    from filelock import FileLock, Timeout

    file = FileLock(lock)
    try:
        file.acquire(timeout=0)
    except Timeout:
        if wait is None:
            raise Dream3DError(busy) from None
        wait(busy)
        file.acquire()
    try:
        yield
    finally:
        file.release()
