"""Pictures of a finished run: four views of the field, and a turntable of the mesh as exported."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.files import write_atomically
from dream3d.mesh.shading import shade
from dream3d.mesh.surface import Surface

Picture = NDArray[np.uint8]
"""(H, W, 3) sRGB."""


def to_uint8(images: Tensor) -> Picture:
    """Colours in [0, 1] of any shape to sRGB bytes."""
    pixels: Picture = (images.detach().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return pixels


def side_by_side(pictures: Picture) -> Picture:
    """(N, H, W, 3) -> (H, N * W, 3)."""
    return np.concatenate(list(pictures), axis=1)


def write_png(path: Path, picture: Picture) -> None:
    """Write (H, W, 3) as a PNG, whole or not at all."""
    write_atomically(path, lambda temporary: iio.imwrite(temporary, picture))


def write_turntable(
    path: Path, surface: Surface, colors: NDArray[np.floating], *, frames: int = 48, size: int = 256
) -> None:
    """An mp4 of the mesh turning once, 24 frames a second; ``size`` in pixels is a multiple of 16."""
    pictures = shade(
        surface.vertices, surface.faces, colors, orbit(frames, elevation_deg=15), size, size, supersample=2
    )
    write_atomically(path, lambda temporary: iio.imwrite(temporary, pictures, fps=24, codec="libx264"))
