"""Backgrounds behind rendered objects, for the image mode of training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def random_background(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A flat colour, a gradient or a cloudy texture, chosen by ``rng``; (size, size, 3) sRGB."""
    kind = rng.integers(3)
    first, second = rng.uniform(0, 255, (2, 3))
    if kind == 0:
        return np.broadcast_to(first.round().astype(np.uint8), (size, size, 3)).copy()
    mix = _ramp(size, rng) if kind == 1 else _clouds(size, rng)
    return (first + (second - first) * mix[..., None]).round().astype(np.uint8)


def _ramp(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """From 0 to 1 along a random direction, (size, size)."""
    angle = rng.uniform(0, 2 * np.pi)
    along = np.linspace(-0.5, 0.5, size)
    return _stretched(np.cos(angle) * along[None] + np.sin(angle) * along[:, None])


def _clouds(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise of several scales from 0 to 1, the coarse ones strongest, (size, size)."""
    total = np.zeros((size, size))
    for cells in (3, 6, 12, 24):
        noise = Image.fromarray(rng.uniform(0, 1, (cells, cells)).astype(np.float32))
        total += np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC)) / cells
    return _stretched(total)


def _stretched(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = values.min(), values.max()
    return (values - low) / max(high - low, 1e-9)
