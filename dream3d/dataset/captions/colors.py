"""Dominant colours in words, measured on the images of an object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dream3d.errors import DatasetError

REFERENCES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((12, 12, 12), (38, 38, 38)),
    "grey": ((85, 85, 85), (115, 115, 115), (145, 145, 145)),
    "white": ((250, 250, 250), (225, 225, 225)),
    "red": ((225, 25, 25), (165, 15, 20), (110, 10, 15)),
    "orange": ((250, 140, 20), (205, 100, 10), (180, 85, 10), (240, 110, 50)),
    "yellow": ((250, 220, 30), (200, 175, 20), (150, 125, 5)),
    "green": ((40, 170, 50), (20, 90, 30), (150, 200, 60), (85, 107, 47), (15, 45, 15), (40, 60, 35)),
    "blue": ((40, 80, 220), (20, 35, 110), (90, 160, 220), (40, 150, 170), (15, 22, 55), (45, 60, 90), (90, 115, 150)),
    "purple": ((130, 40, 170), (75, 25, 100), (40, 12, 55), (160, 120, 200)),
    "pink": ((245, 150, 190), (235, 90, 160), (200, 110, 140)),
    "brown": ((125, 75, 35), (85, 50, 25), (60, 36, 22), (160, 105, 60), (115, 90, 70)),
    "beige": ((222, 200, 165), (195, 170, 135), (240, 225, 195), (150, 140, 115)),
}
"""Everyday names and sRGB examples of each, lit and in shade: a colour is called what its nearest example is."""
LIGHTNESS_WEIGHT = 0.5
"""Shading changes the lightness of one paint more than its hue, so differences of lightness count less."""
NEUTRAL_CHROMA = 9.0
"""LAB chroma under which a pixel is between black and white; lit white paint and JPEG textures reach it."""
WHITE_LIGHTNESS = 74.0
"""A lightness (0 to 100) that neutral paint reaches in the light only if it is white."""
SHADED_WHITE = 0.56
"""White in shade keeps at least this share of the lightness of the object's brightest neutral surface."""
OPAQUE = 128
"""Alpha from which a pixel shows the object rather than what is behind it."""
MIN_SHARE = 0.2
"""A colour that covers less of the object than this is a detail."""
MAX_PIXELS = 20_000
"""More pixels do not change the shares noticeably; they are thinned out evenly."""


def dominant_colors(rgba: NDArray[np.uint8], limit: int = 2) -> tuple[str, ...]:
    """Names of the colours that cover most of an object, most first; at most ``limit``, at least one.

    ``rgba`` is (..., 4) sRGB with straight alpha in [0, 255]; pixels with alpha below 128 are not looked at. An image
    without any other pixel has no colours: ``()``. Raises :class:`DatasetError` for another shape or type.
    """
    if rgba.dtype != np.uint8 or rgba.ndim < 1 or rgba.shape[-1] != 4:
        raise DatasetError(f"colours are measured on uint8 (..., 4), got {rgba.dtype} {rgba.shape}")
    pixels = rgba.reshape(-1, 4)
    pixels = pixels[pixels[:, 3] >= OPAQUE, :3]
    if not len(pixels) or limit < 1:
        return ()
    pixels = pixels[:: -(-len(pixels) // MAX_PIXELS)]
    shares = _shares(pixels)
    order = sorted(shares, key=lambda name: -shares[name])
    return tuple(name for i, name in enumerate(order[:limit]) if i == 0 or shares[name] >= MIN_SHARE)


def _shares(pixels: NDArray[np.uint8]) -> dict[str, float]:
    """The share of the pixels (N, 3) that each colour is nearest to."""
    names = [name for name, examples in REFERENCES.items() for _ in examples]
    examples = _lab(np.array([rgb for group in REFERENCES.values() for rgb in group], np.uint8))
    lab = _without_shade(_lab(pixels))
    weights = np.array([LIGHTNESS_WEIGHT, 1.0, 1.0])
    nearest = np.linalg.norm((lab[:, None] - examples) * weights, axis=-1).argmin(1)
    counts = np.bincount(nearest, minlength=len(names)) / len(pixels)
    shares = dict.fromkeys(REFERENCES, 0.0)
    for name, share in zip(names, counts, strict=True):
        shares[name] += float(share)
    return shares


def _without_shade(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pixels (N, 3) with white surfaces as light in the shade as in the light.

    Grey paint and white paint in shade look the same in one pixel; what tells them apart is the brightest neutral
    surface of the object. If that is white, its darker sides are taken for white too.
    """
    neutral = np.hypot(lab[:, 1], lab[:, 2]) < NEUTRAL_CHROMA
    if not neutral.any():
        return lab
    brightest = np.percentile(lab[neutral, 0], 95)
    if brightest < WHITE_LIGHTNESS:
        return lab
    shaded = neutral & (lab[:, 0] > SHADED_WHITE * brightest)
    corrected = lab.copy()
    corrected[shaded, 0] = np.maximum(lab[shaded, 0], 95.0)
    return corrected


def _lab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """CIE LAB (N, 3) of sRGB (N, 3); lightness in [0, 100]."""
    from skimage.color import rgb2lab

    return rgb2lab(rgb[None])[0]
