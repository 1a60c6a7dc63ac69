"""What ray marching gives, and what it asks: samples on rays, and which cells are worth sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


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


def positions_of(samples: Samples, rays_o: Tensor, rays_d: Tensor) -> Tensor:
    """World positions (M, 3) of samples."""
    return rays_o[samples.ray_index] + samples.distance[:, None] * rays_d[samples.ray_index]
