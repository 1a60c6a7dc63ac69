"""CPU threads: how many, and how they wait for one another while other programs are busy.

OpenMP's threads meet at the end of every operation, thousands of times per second. Those that arrive first spin for
some milliseconds. Alone that is the fastest way to wait. But when another program holds the core of the last one, the
rest burn their own cores meanwhile: two threads beside one busy program took three to ten times as long as alone.
``docs/generate.md`` has the measurements.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import threading
import time
from pathlib import Path

TASKS = Path("/proc/self/task")
INTERVAL_SECONDS = 0.5
CROWDED, QUIET = 0.25, 0.12
"""Cores that our threads waited for, averaged over an interval: above the first others are busy, below the second not.

Alone it is 0.02 to 0.1, beside one busy program about 0.5.
"""


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_per_worker(workers: int) -> int:
    """Threads for each of several processes: an equal share of the cores, and never more than OMP_NUM_THREADS says."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    share = max(1, available_cores() // workers)
    return min(share, int(asked)) if asked.isdecimal() and int(asked) > 0 else share


@functools.cache
def share_cores() -> None:
    """From now on let this process's threads sleep instead of spin while other programs are busy.

    Results do not depend on it: the same number of threads does the same work. Only Linux tells how long threads wait
    for a core; elsewhere, and where the user chose a policy of OpenMP's, nothing is done.
    """
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys()
    if not chosen and waited_seconds() is not None:
        over = threading.Event()
        thread = threading.Thread(target=_watch, args=(over,), name="share-cores", daemon=True)
        thread.start()
        atexit.register(_end, thread, over)


def _end(thread: threading.Thread, over: threading.Event) -> None:
    """Before the interpreter ends: a thread that is inside torch when it does would end the process by SIGABRT."""
    over.set()
    thread.join(10 * INTERVAL_SECONDS)


def waited_seconds() -> float | None:
    """Seconds that this process's threads have been ready but had no core; None where the system does not tell."""
    waited = []
    for path in TASKS.glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # a thread that has just ended
            waited.append(int(path.read_text(encoding="ascii").split()[1]))
    return sum(waited) * 1e-9 if waited else None


class SpareThreads:
    """While it is held, OpenMP has more threads than cores; libgomp then waits asleep after 100 turns, not 300,000.

    They are the threads of one small operation that another Python thread ran, and do nothing. libgomp reads the number
    at every wait (``do_spin`` in its ``wait.h``), and has no function to change the number of turns.
    """

    def __init__(self) -> None:
        self._release = threading.Event()
        self._thread = threading.Thread(target=self._hold, name="spare-threads", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let OpenMP's threads spin again."""
        self._release.set()
        self._thread.join()

    def _hold(self) -> None:
        sys.modules["torch"].ones(1 << 18).add_(1)
        self._release.wait()


def crowded(share: float, before: bool) -> bool:
    """Whether other programs are busy, from the cores waited for; between the two limits it stays as it was."""
    return share > QUIET if before else share > CROWDED


def _is_imported(name: str) -> bool:
    """Whether a module is there as a whole: torch, used by one thread while another imports it, ends the process."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)


def _watch(over: threading.Event) -> None:
    spare: SpareThreads | None = None
    last, since = waited_seconds() or 0.0, time.monotonic()
    while not over.wait(INTERVAL_SECONDS):
        now, at = waited_seconds() or 0.0, time.monotonic()
        busy = crowded((now - last) / (at - since), spare is not None)
        last, since = now, at
        if busy and spare is None and _is_imported("torch"):
            spare = SpareThreads()
        elif not busy and spare is not None:
            spare.release()
            spare = None
    if spare is not None:
        spare.release()
