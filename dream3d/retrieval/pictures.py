"""Picture files of anybody: checked, decoded within bounds, and made small enough to keep."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream3d.dataset.decoding import read_rgba
from dream3d.errors import DatasetError

MAX_BYTES = 32 * 2**20
"""Of one picture file."""
MAX_PIXELS = 64_000_000
MAX_KEPT_SIDE = 512
"""Pixels along the longer side of a picture that is kept as it is; a larger one is made smaller."""
MAX_KEPT_BYTES = 512 * 1024
MIN_SIDE = 8
"""Pixels along the shorter side; less shows nothing."""

Color = tuple[int, int, int]
"""sRGB, 0 to 255."""
WHITE: Color = (255, 255, 255)


@dataclass(frozen=True)
class Checked:
    """A picture that can be decoded."""

    image: bytes
    """As it was given, or a smaller WebP of it."""
    width: int
    height: int
    rgb: NDArray[np.uint8]
    """(height, width, 3), upright, transparent parts on white."""


def check_picture(image: bytes) -> Checked:
    """A picture file that a corpus may keep; :class:`DatasetError` with the reason for one that it may not."""
    if not image:
        raise DatasetError("an empty file")
    if len(image) > MAX_BYTES:
        raise DatasetError(f"{len(image)} bytes, over the limit of {MAX_BYTES}")
    rgba = read_rgba(image, MAX_PIXELS)
    if min(rgba.shape[:2]) < MIN_SIDE:
        raise DatasetError(f"{rgba.shape[1]} x {rgba.shape[0]} pixels, too small to show anything")
    if max(rgba.shape[:2]) > MAX_KEPT_SIDE or len(image) > MAX_KEPT_BYTES:
        rgba, image = _smaller(rgba)
    return Checked(image, rgba.shape[1], rgba.shape[0], on_color(rgba))


def on_color(rgba: NDArray[np.uint8], color: Color = WHITE) -> NDArray[np.uint8]:
    """(H, W, 4) straight alpha -> (H, W, 3) over a colour."""
    alpha = rgba[..., 3:].astype(np.uint16)
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgba[..., :3])
    mixed = (rgba[..., :3] * alpha + np.array(color, np.uint16) * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


def square(rgb: NDArray[np.uint8], side: int, color: Color = WHITE) -> NDArray[np.uint8]:
    """(H, W, 3) -> (side, side, 3): the whole picture, padded with a colour, so that nothing of it is cut off."""
    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    page = Image.new("RGB", (side, side), color)
    page.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(page)


def _smaller(rgba: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bytes]:
    picture = Image.fromarray(rgba)
    picture.thumbnail((MAX_KEPT_SIDE, MAX_KEPT_SIDE), Image.Resampling.LANCZOS)
    if rgba[..., 3].min() == 255:
        picture = picture.convert("RGB")
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=88, method=2)
    return np.asarray(picture.convert("RGBA")), file.getvalue()
