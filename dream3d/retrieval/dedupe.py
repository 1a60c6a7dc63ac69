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
    a, b = (np.frombuffer(data, np.uint8).astype(np.float64) for data in (one, other))
    if np.abs(a - b).mean() > MEAN_DIFFERENCE:
        return False
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return spread == 0 or float((a * b).sum()) / spread >= CORRELATION


def distinct(looks: Sequence[bytes]) -> list[int]:
    """The indices of the looks that are not nearly the same as one before them that is kept."""
    kept: list[int] = []
    for index, mine in enumerate(looks):
        if not any(nearly_same(mine, looks[earlier]) for earlier in kept):
            kept.append(index)
    return kept
