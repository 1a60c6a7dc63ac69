"""Views of a textured surface as a differentiable function of its texture, in plain torch.

Which texel a pixel sees depends on the geometry alone, and that stays: the rasteriser (:mod:`dream3d.mesh.raster`)
says it once. What is left is linear in the texels: a look-up between four of them, light, and the mean over the
samples of a pixel. The pictures are those of :func:`dream3d.mesh.shading.shade`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.mesh.appearance import Texture
from dream3d.mesh.shading import surfaces_seen
from dream3d.mesh.surface import Faces, FloatArray


@dataclass(frozen=True)
class DrawnView:
    """What one view sees of a texture: S x S samples, of which P see the surface."""

    sample: Tensor
    """(P,) row * S + column."""
    uv: Tensor
    """(P, 2) places in the texture."""
    light: Tensor
    """(P, 1) brightness."""
    size: int
    """S."""

    def draw(self, texture: Tensor, background: Tensor, supersample: int) -> Tensor:
        """(3, S / supersample, S / supersample) picture of a texture (3, H, W) before a colour (3,)."""
        colors = look_up(texture, self.uv) * self.light
        canvas = background.expand(self.size * self.size, 3).index_put((self.sample,), colors)
        picture = canvas.t().reshape(1, 3, self.size, self.size)
        return F.avg_pool2d(picture, supersample)[0]


def look_up(texture: Tensor, uv: Tensor) -> Tensor:
    """(P, 3) colours of a texture (3, H, W) at places (P, 2), bilinear between the centres of its pixels.

    As :meth:`dream3d.mesh.appearance.Texture.at`, but differentiable in the texture: the gradient at a place goes to
    the four pixels around it, by their weights.
    """
    grid = (uv * 2 - 1)[None, None]
    found = F.grid_sample(texture[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found[0, :, 0].t()


def drawn_views(
    vertices: FloatArray,
    faces: Faces,
    texture: Texture,
    cameras: Cameras,
    size: int,
    *,
    supersample: int,
    ambient: float = 0.5,
    device: torch.device | str = "cpu",
) -> list[DrawnView]:
    """What cameras see of a textured mesh in pictures of ``size`` pixels a side, ``supersample``^2 samples to each."""
    large = size * supersample
    views = []
    for seen in surfaces_seen(vertices, faces, texture, cameras, large, large, ambient=ambient):
        parts = (seen.mask.reshape(-1).nonzero()[0], seen.looks[:, :2].copy(), seen.light)
        sample, uv, light = (torch.from_numpy(one).to(device) for one in parts)
        views.append(DrawnView(sample, uv, light, large))
    return views
