"""Every operation that has candidates, and what each runs on."""

from __future__ import annotations

from typing import Any

from dream3d.kernels.choose import Choice, Operation, choose
from dream3d.kernels.composite import RAY_WEIGHTS
from dream3d.kernels.hash_grid import HASH_GRID
from dream3d.kernels.march import VISIBLE_SAMPLES

OPERATIONS: tuple[Operation[Any], ...] = (HASH_GRID, VISIBLE_SAMPLES, RAY_WEIGHTS)


def report(device: str) -> list[Choice[Any]]:
    """Each operation's implementation on a device such as "cpu" or "cuda:0", for ``dream3d doctor``."""
    return [choose(operation, device) for operation in OPERATIONS]
