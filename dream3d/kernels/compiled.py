"""Loops that numba compiles for the CPU, and threads to run them on.

Only modules that are imported when an operation is chosen import this one: numba takes half a second to import, and
the first run on a machine some seconds to compile. Compiled loops are kept on disk beside the module, or in the
user's cache folder.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import torch

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """The loop in machine code; it runs without holding Python's lock. Arithmetic keeps its order (no fast-math)."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # neither folder can be written: compile anew in each process
        return numba.njit(**options)(loop)


def in_threads(loop: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> None:
    """Call a compiled loop with each set of arguments, on as many threads as torch uses.

    The calls write to different places: what comes out does not depend on the number of threads.
    """
    calls, threads = list(calls), torch.get_num_threads()
    if threads == 1 or len(calls) == 1:
        for call in calls:
            loop(*call)
        return
    with ThreadPoolExecutor(min(threads, len(calls))) as pool:
        for done in [pool.submit(loop, *call) for call in calls]:
            done.result()


def ranges(count: int, least: int) -> list[tuple[int, int]]:
    """0 to ``count`` in pieces of nearly equal length, one per thread of torch's, each at least ``least`` long."""
    pieces = max(1, min(torch.get_num_threads(), count // least))
    borders = [count * piece // pieces for piece in range(pieces + 1)]
    return list(itertools.pairwise(borders))
