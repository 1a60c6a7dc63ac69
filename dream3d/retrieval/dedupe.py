"""Whether two pictures are nearly the same: what recompression, another size or a thin border leave alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 8
LOOK_BYTES = SIDE * SIDE * 3
"""Of a look."""
MEAN_DIFFERENCE = 8.0
"""Of 255: the mean difference of two looks that may still show one picture."""
CORRELATION = 0.97
"""Of two looks around their means, from which they are one picture: line drawings on white have all but one mean."""


def look(rgb: NDArray[np.uint8]) -> bytes:
    """:data:`LOOK_BYTES` bytes that say how an (H, W, 3) picture looks from afar: 8 x 8 colours, whatever its shape."""
    small = Image.fromarray(rgb).resize((SIDE, SIDE), Image.Resampling.BOX)
    return small.tobytes()


def nearly_same(one: bytes, other: bytes) -> bool:
    """Whether two looks are of one picture: colours differ little in the mean, and rise and fall together."""
    return bool(_alike(_numbers(one), _numbers(other)[None])[0])


def distinct(looks: Sequence[bytes]) -> list[int]:
    """The indices of the looks that are not nearly the same as one before them that is kept."""
    kept: list[int] = []
    table = np.zeros((len(looks), LOOK_BYTES), np.float32)
    for index, data in enumerate(looks):
        mine = _numbers(data)
        if not _alike(mine, table[: len(kept)]).any():
            table[len(kept)] = mine
            kept.append(index)
    return kept


def _numbers(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(data, np.uint8).astype(np.float32)


def _alike(mine: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Of (192,) and (N, 192) looks, (N,)."""
    near: NDArray[np.bool_] = np.abs(others - mine).mean(1) <= MEAN_DIFFERENCE
    rows = np.flatnonzero(near)
    a, b = mine - mine.mean(), others[rows] - others[rows].mean(1, keepdims=True)
    spread = np.sqrt((a * a).sum() * (b * b).sum(1))
    near[rows] = (b @ a >= CORRELATION * spread) | (spread == 0)
    return near
