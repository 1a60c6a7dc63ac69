"""A turntable of a mesh as exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dream3d.cameras import orbit
from dream3d.images import write_animation
from dream3d.mesh.shading import shade
from dream3d.mesh.surface import Surface


def write_turntable(
    path: Path, surface: Surface, colors: NDArray[np.floating], *, frames: int = 48, size: int = 256
) -> None:
    """An mp4 of the mesh turning once, 24 frames a second; ``size`` in pixels is a multiple of 16."""
    cameras = orbit(frames, elevation_deg=15)
    images = shade(surface.vertices, surface.faces, colors, cameras, size, size, supersample=2)
    write_animation(path, images, frames_per_second=24)
