"""What ray marching gives, and what it asks: samples on rays, and which cells are worth sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Marching:
    """How rays are cut into samples, and which samples are kept."""

    step_size: float
    """World units."""
    early_stop_transmittance: float = 0.0
    """Samples behind this transmittance (0..1) are dropped."""
    alpha_threshold: float = 0.0
    """Samples that stop less of the light (0..1) are dropped; the grid's mean density * step caps it. 0 keeps all."""


class Occupancy(Protocol):
    """Which cells of the cube rays do not skip (:class:`dream3d.render.occupancy.OccupancyGrid`)."""

    resolution: int
    """Cells along each side of the cube."""
    occupied: Tensor
    """(resolution ** 3,) bool, x slowest."""
    ema: Tensor
    """(resolution ** 3,) density * step of each cell, as last seen."""

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
        index = torch.nonzero(keep)[:, 0]  # once, since each use of a mask as an index waits for the device
        return Samples(self.ray_index[index], self.distance[index], self.length[index])


def positions_of(samples: Samples, rays_o: Tensor, rays_d: Tensor) -> Tensor:
    """World positions (M, 3) of samples."""
    return rays_o[samples.ray_index] + samples.distance[:, None] * rays_d[samples.ray_index]
