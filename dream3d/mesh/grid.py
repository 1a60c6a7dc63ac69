"""The density field as numbers on a grid, and the largest density that each camera ray meets in it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.mesh.loops import largest_along

DensityFn = Callable[[Tensor], Tensor]
"""(N, 3) world positions -> (N,) densities per world unit, >= 0."""

SMALLEST_DENSITY = 1e-4
"""Densities below this are all "empty": across the cube's diagonal they absorb less than 0.04 % of the light."""


def sample_density_grid(
    density_fn: DensityFn, resolution: int, *, chunk: int = 1 << 18, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Densities at the corners of ``resolution``^3 cells that fill the cube [-1, 1]^3.

    Returns (R+1, R+1, R+1), indexed [x, y, z], per world unit. ``density_fn`` is called without gradients on at
    most ``chunk`` points on ``device`` at a time. Raises ValueError if it returns another shape than (N,).
    """
    side = resolution + 1
    total = side**3
    grid = np.zeros(total, dtype=np.float32)
    axis = torch.linspace(-1, 1, side, device=device)
    with torch.no_grad():
        for start in range(0, total, chunk):
            # Positions are made from indices, chunk by chunk: at 1024 cells a side all of them take 13 GB.
            index = torch.arange(start, min(start + chunk, total), device=device)
            xyz = torch.stack([axis[index // side**2], axis[index // side % side], axis[index % side]], dim=-1)
            density = density_fn(xyz)
            if density.shape != index.shape:
                raise ValueError(f"density_fn must return shape {tuple(index.shape)}, got {tuple(density.shape)}")
            grid[start : start + len(index)] = density.float().cpu().numpy()
    return grid.reshape(side, side, side)


def raw_from_density(density: NDArray[np.floating]) -> NDArray[np.float32]:
    """Inverse of softplus, x with log(1 + exp(x)) = density, of the same shape; densities are floored first.

    A density spans orders of magnitude within one cell, so a straight line between two corners puts the surface
    too far out. What the field computes before its softplus (a network plus a cone of |x|) is close to straight.
    """
    floored = np.maximum(density, np.float32(SMALLEST_DENSITY))
    return (floored + np.log(-np.expm1(-floored))).astype(np.float32)


def peak_projection(
    grid: NDArray[np.float32], cameras: Cameras, height: int, width: int, *, samples: int = 1 << 20
) -> NDArray[np.float32]:
    """The largest value of ``grid`` along the ray of every pixel: (N, H, W), -inf where a ray misses the cube.

    ``grid`` is (R+1, R+1, R+1) on the corners of [-1, 1]^3, interpolated trilinearly, with one sample per cell or
    more. One such projection holds the silhouette at *every* level, ``peak_projection(...) >= level``: that is why
    levels can be compared without making a mesh of each. At most ``samples`` points are held at a time.
    """
    rays_o, rays_d = (rays.reshape(-1, 3).float().cpu() for rays in cameras.rays(height, width))
    near, far = _cube_span(rays_o, rays_d)
    hits = torch.nonzero(near < far).squeeze(1)
    steps = math.ceil(math.sqrt(3) * (grid.shape[0] - 1)) + 1  # a diagonal in steps of one cell
    fraction = torch.linspace(0, 1, steps)
    volume = np.ascontiguousarray(grid, np.float32)
    peaks = torch.full((len(rays_o),), -math.inf)
    for rays in torch.split(hits, max(1, samples // steps)):
        distance = torch.lerp(near[rays, None], far[rays, None], fraction)
        found = np.empty(len(rays), np.float32)
        largest_along(volume, rays_o[rays].numpy(), rays_d[rays].numpy(), distance.numpy(), found)
        peaks[rays] = torch.from_numpy(found)
    return peaks.reshape(len(cameras), height, width).numpy()


def _cube_span(rays_o: Tensor, rays_d: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (N,) at which rays enter and leave the cube; near >= far for rays that miss it (slab method)."""
    # kernels.march.intersect_cube divides instead. Its last bits differ, and with them the IoU of single candidate
    # levels: the same seed could then give another mesh.
    inverse = 1 / torch.where(rays_d.abs() < 1e-9, torch.full_like(rays_d, 1e-9), rays_d)
    first, second = (-1 - rays_o) * inverse, (1 - rays_o) * inverse
    near = torch.minimum(first, second).amax(dim=-1).clamp(min=0)
    far = torch.maximum(first, second).amin(dim=-1)
    return near, far
