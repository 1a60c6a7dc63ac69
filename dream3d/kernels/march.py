"""Stratified ray marching through the cube [-1, 1]^3: rays -> the samples worth evaluating."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

DIAGONAL = 2 * math.sqrt(3)
"""Length of the cube's diagonal, world units."""


class Occupancy(Protocol):
    """Which cells of the cube rays do not skip (:class:`dream3d.render.occupancy.OccupancyGrid`)."""

    resolution: int
    """Cells along each side of the cube."""
    occupied: Tensor
    """(resolution ** 3,) bool, x slowest."""

    def contains(self, positions: Tensor) -> Tensor:
        """(N, 3) world positions -> (N,) bool, false outside the cube."""
        ...


@dataclass(frozen=True)
class Samples:
    """Points on rays, ordered by ray and by distance along it."""

    ray_index: Tensor
    """(M,) int64, ascending: which ray a sample is on."""
    distance: Tensor
    """(M,) distance from the ray's origin, world units."""
    length: Tensor
    """(M,) length of the interval a sample stands for, world units."""

    def select(self, keep: Tensor) -> Samples:
        """The samples where the (M,) bool mask ``keep`` is true."""
        return Samples(self.ray_index[keep], self.distance[keep], self.length[keep])


def intersect_cube(rays_o: Tensor, rays_d: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (R,) at which rays (R, 3) enter and leave the cube; near > far where they miss it.

    A ray that starts inside enters at 0. The slab method; directions of zero are nudged so that a ray
    parallel to a face divides to a large number instead of to nan.
    """
    direction = torch.where(rays_d.abs() < 1e-9, torch.full_like(rays_d, 1e-9), rays_d)
    first, second = (-1 - rays_o) / direction, (1 - rays_o) / direction
    near = torch.minimum(first, second).amax(-1).clamp_min(0)
    far = torch.maximum(first, second).amin(-1)
    return near, far


@torch.no_grad()
def march(
    rays_o: Tensor,
    rays_d: Tensor,
    occupancy: Occupancy,
    step_size: float,
    generator: torch.Generator | None = None,
) -> Samples:
    """Cut each ray's way through the cube into intervals and sample those in occupied cells.

    ``rays_o``, ``rays_d`` (R, 3), directions of unit length; ``step_size`` in world units. The position
    within an interval is one random fraction per ray with a generator (training) and the middle without.
    The last interval is shortened to end at the cube, so that lengths add up to the way inside it.
    """
    near, far = intersect_cube(rays_o, rays_d)
    longest = float((far - near).amax()) if near.numel() else 0.0
    count = max(math.ceil(longest / step_size), 0)
    start = near[:, None] + torch.arange(count, device=rays_o.device) * step_size
    length = (far[:, None] - start).clamp(max=step_size)
    if generator is None:
        fraction = torch.full_like(near, 0.5)
    else:
        fraction = torch.rand(near.shape, generator=generator).to(near)
    # Index pairs instead of boolean masks of (R, count, 3): only the kept samples are ever materialised.
    ray_index, interval = torch.nonzero(length > 0, as_tuple=True)
    length = length[ray_index, interval]
    distance = start[ray_index, interval] + fraction[ray_index] * length
    samples = Samples(ray_index, distance, length)
    return samples.select(occupancy.contains(positions_of(samples, rays_o, rays_d)))


def positions_of(samples: Samples, rays_o: Tensor, rays_d: Tensor) -> Tensor:
    """World positions (M, 3) of samples."""
    return rays_o[samples.ray_index] + samples.distance[:, None] * rays_d[samples.ray_index]
