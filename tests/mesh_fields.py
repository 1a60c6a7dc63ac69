"""Density fields whose surface is known, and their silhouettes by a renderer of their own."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.mesh.grid import DensityFn

Masks = NDArray[np.bool_]


def ball(radius: float, *, centre: tuple[float, float, float] = (0, 0, 0), sharpness: float = 40.0) -> DensityFn:
    """softplus(sharpness * (radius - |x - centre|)): softplus(0) = ln 2 on the sphere itself."""

    def density(xyz: Tensor) -> Tensor:
        distance = (xyz - torch.tensor(centre, dtype=xyz.dtype)).norm(dim=-1)
        return torch.nn.functional.softplus(sharpness * (radius - distance))

    return density


def union(*parts: DensityFn) -> DensityFn:
    return lambda xyz: torch.stack([part(xyz) for part in parts]).amax(dim=0)


def opacity_masks(density: DensityFn, cameras: Cameras, size: int, samples: int = 96) -> Masks:
    """An independent volume renderer: 1 - exp(-sum of density * step) > 1/2 on the unit ball's span of each ray."""
    rays_o, rays_d = cameras.rays(size, size)
    middle = -(rays_o * rays_d).sum(-1, keepdim=True)
    t = middle + torch.linspace(-1.0, 1.0, samples)
    points = rays_o[..., None, :] + t[..., None] * rays_d[..., None, :]
    optical_depth = density(points.reshape(-1, 3)).reshape(t.shape).sum(-1) * (2 / samples)
    masks: Masks = (1 - torch.exp(-optical_depth) > 0.5).numpy()
    return masks


class Balls:
    """A large ball and a small one."""

    def density(self, positions: Tensor) -> Tensor:
        large, small = positions.norm(dim=-1) - 0.5, (positions - torch.tensor([0.0, 0.0, 0.75])).norm(dim=-1) - 0.2
        return torch.relu(-50 * torch.minimum(large, small))

    def color(self, positions: Tensor) -> Tensor:
        return torch.ones_like(positions)

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.density(positions), self.color(positions)
