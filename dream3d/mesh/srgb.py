"""sRGB display values and linear light (IEC 61966-2-1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def linear_from_srgb(display: NDArray[np.floating]) -> NDArray[np.float64]:
    """Linear light in [0, 1] of sRGB display values in [0, 1], of the same shape."""
    value = np.asarray(display, dtype=np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(linear: NDArray[np.floating]) -> NDArray[np.float64]:
    """The inverse of :func:`linear_from_srgb`; light outside [0, 1] is clipped."""
    value = np.clip(np.asarray(linear, dtype=np.float64), 0, 1)
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)


def display_values(colors: NDArray[np.floating] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colours of any shape as float32 display values: uint8 is divided by 255, floats are taken as they are."""
    values = colors.astype(np.float32)
    return values / np.float32(255) if colors.dtype == np.uint8 else values
