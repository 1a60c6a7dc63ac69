"""Where in a photo the subject is, and the square picture of it that a prior is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from dream3d.dataset.compositing import composite

Found = Literal["alpha", "plain background", "cut out", "whole picture"]
"""How a subject was found; "cut out" by a matting model."""
Matting = Callable[[NDArray[np.uint8]], "NDArray[np.float32] | None"]
"""(H, W, 3) picture -> (H, W) opacity in [0, 1] of its subject; None if it finds none."""
Rgba = NDArray[np.uint8]
"""(H, W, 4) sRGB with straight alpha."""

WORK_SIDE = 384
"""Pixels along the longer side at which the background is looked for; a mask needs no more."""
OPAQUE = 250
"""Alpha from which a pixel counts as solid."""
PLAIN = 0.05
"""Largest spread of the frame around its fitted colours, of a range of 1 (the 80th percentile of RGB distances): walls,
paper and soft shadows stay below, a lawn or a shelf does not."""
AWAY = (0.06, 0.16)
"""RGB distances from the background from which a pixel begins to be, and is, the subject."""
FRAME = 0.04
"""Width of the frame that shows the background, of the shorter side."""
SMALLEST = 0.02
"""Share of the picture that a subject covers at least, and of the largest part that another part of it has at least."""
LARGEST = 0.9
"""Share of the picture above which what was found is no subject but a failure."""
MARGIN = 0.1
"""Around the subject on each side, of its larger side: the renders that ``mini`` learnt from leave about that."""


@dataclass(frozen=True)
class Cutout:
    """What a photo shows, square."""

    rgb: NDArray[np.uint8]
    """(S, S, 3)."""
    found: Found
    square: tuple[float, float, float, float]
    """Left, top, right and bottom of the square in the photo, as shares of its width and height; it may reach over."""


def square_subject(
    rgba: Rgba, side: int, background: tuple[float, float, float], matting: Matting | None = None
) -> Cutout:
    """The subject of a photo in a square of ``side`` pixels, on ``background`` (sRGB in [0, 1]) if it could be cut out.

    Alpha is believed. Without any, what differs from a plain background is the subject, see
    :func:`plain_background_alpha`. For other photos ``matting`` is asked, if there is one; else the middle square is
    taken, with what is behind.
    """
    found: Found = "alpha"
    if (rgba[..., 3] >= OPAQUE).mean() > 1 - SMALLEST / 2:
        found, rgba = _cut_out(rgba, matting)
    height, width = rgba.shape[:2]
    box = None if found == "whole picture" else _bounds(rgba[..., 3] > 127)
    if box is None:  # also where all is transparent
        found, rgba, square = "whole picture", _opaque(rgba), _middle(width, height)
    else:
        square = _around(box, MARGIN)
    left, top, right, bottom = square
    shares = (left / width, top / height, right / width, bottom / height)
    return Cutout(_drawn(rgba, square, side, background), found, shares)


def _cut_out(rgba: Rgba, matting: Matting | None) -> tuple[Found, Rgba]:
    found: Found = "plain background"
    alpha = plain_background_alpha(rgba[..., :3])
    if alpha is None and matting is not None:
        found, alpha = "cut out", matting(rgba[..., :3])
    if alpha is None:
        return "whole picture", _opaque(rgba)
    return found, np.dstack([rgba[..., :3], np.round(255 * alpha).astype(np.uint8)])


def _opaque(rgba: Rgba) -> Rgba:
    return np.dstack([rgba[..., :3], np.full(rgba.shape[:2], 255, np.uint8)])


def plain_background_alpha(rgb: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """(H, W) opacity in [0, 1] of what stands before a plain background, or None if the background is not plain.

    The background's colour is a plane fitted to the frame of the picture, so that a wall may grow darker to one side.
    What is enclosed by the subject belongs to it, and small specks do not.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX)).astype(np.float32) / np.float32(255)
    wall, spread = _fitted_background(small)
    if spread > PLAIN:
        return None
    away = np.sqrt(((small - wall) ** 2).sum(-1))
    solid = _large_parts(away > sum(AWAY) / 2)
    if not SMALLEST <= solid.mean() <= LARGEST:
        return None
    soft = np.clip((away - AWAY[0]) / (AWAY[1] - AWAY[0]), 0, 1)
    alpha = np.where(ndimage.binary_fill_holes(solid), 1.0, soft * ndimage.binary_dilation(solid, iterations=2))
    large = Image.fromarray(alpha.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(large)


def _fitted_background(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """(H, W, 3) colours of a plane through those of the frame, and how far the frame is from it.

    Fitted twice, the second time to the nearer half of the frame: a subject may reach over an edge of the picture.
    """
    height, width = image.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(rows), rows, columns], -1)
    edge = max(1, round(FRAME * min(height, width)))
    frame = np.ones((height, width), bool)
    frame[edge:-edge, edge:-edge] = False
    chosen = frame
    for _ in range(2):
        weights = np.linalg.lstsq(terms[chosen], image[chosen], rcond=None)[0]
        wall = (terms @ weights).astype(np.float32)
        away = np.sqrt(((image - wall) ** 2).sum(-1))
        chosen = frame & (away <= np.median(away[frame]))
    return wall, float(np.percentile(away[frame], 80))


def _large_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without parts that are small beside the largest."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: NDArray[np.bool_] = (sizes >= SMALLEST * sizes.max())[labels] & mask
    return kept


def _bounds(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of what is true."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _middle(width: int, height: int) -> tuple[int, int, int, int]:
    side = min(width, height)
    x, y = (width - side) // 2, (height - side) // 2
    return x, y, x + side, y + side


def _around(box: tuple[int, int, int, int], margin: float) -> tuple[int, int, int, int]:
    """The square around a box; it may reach over the picture's edges."""
    left, top, right, bottom = box
    side = max(1, round(max(right - left, bottom - top) * (1 + 2 * margin)))
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    return x, y, x + side, y + side


def _drawn(
    rgba: Rgba, square: tuple[int, int, int, int], side: int, background: tuple[float, float, float]
) -> NDArray[np.uint8]:
    """A square of the picture in so many pixels, on a background; what lies beyond the picture's edges is empty."""
    part = Image.fromarray(rgba).crop(square)
    # Pillow averages with premultiplied alpha, so that no fringe is left.
    small = part.resize((side, side), Image.Resampling.BOX if part.width >= side else Image.Resampling.BILINEAR)
    return composite(np.asarray(small), 255 * np.asarray(background))
