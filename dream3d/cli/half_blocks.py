"""An image in a terminal: two pixels per character cell, the upper half block in one colour on another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.style import Style
from rich.text import Text

UPPER_HALF = "\u2580"


def area_downsample(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The image (H, W, 3) averaged over equal areas to (height, width, 3).

    Rounded means of sRGB values: this is a thumbnail, not a measurement. Smaller images are enlarged.
    """

    def weights(target: int, source: int) -> NDArray[np.float64]:
        # Row t: how much of each source pixel lies in target pixel t, as a share of the target's extent.
        edges = np.arange(target + 1) * (source / target)
        start = np.maximum(edges[:-1, None], np.arange(source))
        stop = np.minimum(edges[1:, None], np.arange(source) + 1)
        return np.clip(stop - start, 0.0, None) * (target / source)

    rows, columns = weights(height, image.shape[0]), weights(width, image.shape[1])
    mean = np.einsum("th,hwc,vw->tvc", rows, image.astype(np.float64), columns)
    return np.clip(np.rint(mean), 0, 255).astype(np.uint8)


def half_blocks(image: NDArray[np.uint8]) -> Text:
    """The image (H, W, 3) in W columns and ceil(H / 2) rows; an odd last row has no lower half."""
    text = Text(no_wrap=True)
    for top in range(0, image.shape[0], 2):
        if top:
            text.append("\n")
        below = image[top + 1] if top + 1 < image.shape[0] else None
        for column, pixel in enumerate(image[top]):
            lower = None if below is None else _color(below[column])
            text.append(UPPER_HALF, Style(color=_color(pixel), bgcolor=lower))
    return text


def _color(pixel: NDArray[np.uint8]) -> Color:
    return Color.from_triplet(ColorTriplet(*(int(value) for value in pixel)))
