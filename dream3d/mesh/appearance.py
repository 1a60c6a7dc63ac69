"""What a surface looks like: a colour at every vertex, or an image laid over it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dream3d.errors import ExportError
from dream3d.mesh.loops import look_up
from dream3d.mesh.srgb import display_values


@dataclass(frozen=True)
class VertexColors:
    """A colour at every vertex, interpolated over the faces."""

    values: NDArray[np.floating] | NDArray[np.uint8]
    """(V, 3) sRGB display values: floats in [0, 1] or uint8."""

    def select(self, vertices: NDArray[np.int64], count: int) -> VertexColors:
        """The float32 colours of ``vertices`` (U,) out of ``count``; ExportError if they cannot be written."""
        colors = np.asarray(self.values)
        if colors.shape != (count, 3):
            raise ExportError(f"vertex colours must have shape ({count}, 3), got {colors.shape}")
        display = display_values(colors)
        # Written so that NaN fails too.
        if not ((display >= 0) & (display <= 1)).all():
            raise ExportError(f"vertex colours must be in [0, 1], got {display.min():.3g}..{display.max():.3g}")
        return VertexColors(display[vertices])


@dataclass(frozen=True)
class Texture:
    """An image laid over the surface."""

    uv: NDArray[np.floating]
    """(V, 2) place of every vertex in the image: (0, 0) is its upper left corner, (1, 1) the lower right one."""
    image: NDArray[np.uint8]
    """(H, W, 3) sRGB display values."""
    normals: NDArray[np.uint8] | None = None
    """(H, W, 3) normal map, of a size of its own: directions as glTF has them, see :mod:`dream3d.mesh.tangents`."""

    def select(self, vertices: NDArray[np.int64], count: int) -> Texture:
        """The texture for ``vertices`` (U,) out of ``count``; ExportError if it cannot be written."""
        uv = np.asarray(self.uv)
        if uv.shape != (count, 2) or not ((uv >= 0) & (uv <= 1)).all():
            raise ExportError(f"texture coordinates must be in [0, 1] and of shape ({count}, 2), got {uv.shape}")
        for what, image in (("texture's image", self.image), ("normal map", self.normals)):
            if image is None:
                continue
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
                raise ExportError(f"a {what} must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        return replace(self, uv=uv[vertices].astype(np.float32))

    def at(self, uv: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, 3) colours in [0, 1] at places (N, 2) of the image, bilinear between the centres of its pixels."""
        return image_at(self.image, uv)


def image_at(image: NDArray[np.uint8], uv: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, 3) values in [0, 1] of an image (H, W, 3) at places (N, 2), as :meth:`Texture.at`."""
    colors = np.empty((len(uv), 3), np.float32)
    look_up(image, np.ascontiguousarray(uv, np.float32), colors)
    return colors


Appearance = VertexColors | Texture
