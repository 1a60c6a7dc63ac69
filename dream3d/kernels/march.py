"""Stratified ray marching through the cube [-1, 1]^3: rays -> the samples worth evaluating."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dream3d.kernels import nerfacc
from dream3d.kernels.choose import Candidate, Operation
from dream3d.kernels.composite import transmittance_from_density
from dream3d.kernels.samples import Marching, Occupancy, Samples, positions_of

DIAGONAL = 2 * math.sqrt(3)
"""Length of the cube's diagonal, world units."""
RAYS_PER_CHUNK = 65_536
"""Rays go through in pieces of this many, to bound memory; each piece waits for the device four times."""

DensityFn = Callable[[Tensor], Tensor]
"""(M, 3) world positions -> (M,) densities per world unit."""
MarchFn = Callable[[Tensor, Tensor, Occupancy, float, torch.Generator | None], Samples]


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


def cut(
    rays_o: Tensor, rays_d: Tensor, step_size: float, generator: torch.Generator | None
) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """Where rays (R, 3) enter and leave the cube, the place (R,) within their intervals, and the most intervals."""
    near, far = intersect_cube(rays_o, rays_d)
    longest = float((far - near).amax()) if near.numel() else 0.0
    if generator is None:
        fraction = torch.full_like(near, 0.5)
    else:
        fraction = torch.rand(near.shape, generator=generator).to(near, non_blocking=True)
    return (near, far, fraction), max(math.ceil(longest / step_size), 0)


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
    (near, far, fraction), count = cut(rays_o, rays_d, step_size, generator)
    start = near[:, None] + torch.arange(count, device=rays_o.device) * step_size
    length = (far[:, None] - start).clamp(max=step_size)
    # Index pairs instead of boolean masks of (R, count, 3): only the kept samples are ever materialised.
    ray_index, interval = torch.nonzero(length > 0, as_tuple=True)
    length = length[ray_index, interval]
    distance = start[ray_index, interval] + fraction[ray_index] * length
    samples = Samples(ray_index, distance, length)
    return samples.select(occupancy.contains(positions_of(samples, rays_o, rays_d)))


@torch.no_grad()
def visible_samples(
    density_fn: DensityFn,
    occupancy: Occupancy,
    rays_o: Tensor,
    rays_d: Tensor,
    marching: Marching,
    generator: torch.Generator | None,
    march_fn: MarchFn = march,
) -> Samples:
    """The samples of a march that count: light reaches them, and they stop enough of it."""
    kept: list[Samples] = []
    for begin in range(0, len(rays_o), RAYS_PER_CHUNK):
        chunk = slice(begin, begin + RAYS_PER_CHUNK)
        samples = march_fn(rays_o[chunk], rays_d[chunk], occupancy, marching.step_size, generator)
        density = density_fn(positions_of(samples, rays_o[chunk], rays_d[chunk]))
        keep = transmittance_from_density(density, samples) > marching.early_stop_transmittance
        if marching.alpha_threshold > 0:
            thin = occupancy.ema.mean().clamp(max=marching.alpha_threshold)
            keep &= -torch.expm1(-density * samples.length) >= thin
        visible = samples.select(keep)
        kept.append(Samples(visible.ray_index + begin, visible.distance, visible.length))
    return Samples(*(torch.cat([getattr(part, name) for part in kept]) for name in ("ray_index", "distance", "length")))


def _numba_samples(*args: Any) -> Samples:
    samples: Samples = importlib.import_module("dream3d.kernels.numba_march").visible_samples(*args)
    return samples


def _probe_numba(device: str) -> None:
    importlib.import_module("dream3d.kernels.numba_march").probe(device)


VisibleSamplesFn = Callable[[DensityFn, Occupancy, Tensor, Tensor, Marching, torch.Generator | None], Samples]
VISIBLE_SAMPLES = Operation(
    "ray marching",
    (
        Candidate[VisibleSamplesFn]("nerfacc", nerfacc.visible_samples, nerfacc.probe),
        Candidate[VisibleSamplesFn]("numba", _numba_samples, _probe_numba, "cpu"),
        Candidate[VisibleSamplesFn]("torch", visible_samples),
    ),
)
