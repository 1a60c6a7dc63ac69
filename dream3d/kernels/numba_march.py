"""Ray marching in loops that numba compiles: the very samples of :func:`dream3d.kernels.march.march`, on a CPU.

Torch writes down every interval of every ray before it drops the empty ones. Here a ray writes down what it keeps.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream3d.kernels.compiled import compiled, in_threads, ranges
from dream3d.kernels.march import cut
from dream3d.kernels.march import march as torch_march
from dream3d.kernels.march import visible_samples as torch_visible_samples
from dream3d.kernels.samples import Occupancy, Samples

RAYS_PER_PIECE = 256
"""At least: fewer are not worth a thread."""
_ONE, _HALF = np.float32(1), np.float32(0.5)
Floats = NDArray[np.float32]


@compiled
def _walk(
    rays_o: Floats,
    rays_d: Floats,
    span: Floats,
    occupied: NDArray[np.bool_],
    step_size: Any,
    most: int,
    counts: NDArray[np.int64],
    out: Floats,
    begin: int,
    end: int,
) -> None:
    """Count the samples of rays, or write them down where ``out`` (M, 2) has room: distance and length.

    ``span`` (R, 3): where a ray enters, where it leaves, and its fraction; ``most`` intervals of a ray. ``counts``
    (R + 1,): while counting a ray's number is put at its index + 1; while writing each ray's samples begin there.
    """
    side = len(occupied)
    half_side = _HALF * np.float32(side)
    for ray in range(begin, end):
        near, far, fraction = span[ray, 0], span[ray, 1], span[ray, 2]
        ox, oy, oz = rays_o[ray, 0], rays_o[ray, 1], rays_o[ray, 2]
        dx, dy, dz = rays_d[ray, 0], rays_d[ray, 1], rays_d[ray, 2]
        place = counts[ray] if len(out) else 0
        for interval in range(most):
            start = near + np.float32(interval) * step_size
            length = min(far - start, step_size)
            if not length > 0:
                break
            distance = start + fraction * length
            x = np.floor((ox + distance * dx + _ONE) * half_side)
            y = np.floor((oy + distance * dy + _ONE) * half_side)
            z = np.floor((oz + distance * dz + _ONE) * half_side)
            inside = x >= 0 and x < side and y >= 0 and y < side and z >= 0 and z < side
            if inside and occupied[int(x), int(y), int(z)]:
                if len(out):
                    out[place, 0], out[place, 1] = distance, length
                place += 1
        if not len(out):
            counts[ray + 1] = place


def march(
    rays_o: Tensor, rays_d: Tensor, occupancy: Occupancy, step_size: float, generator: torch.Generator | None = None
) -> Samples:
    """:func:`dream3d.kernels.march.march`, number for number."""
    span, most = cut(rays_o, rays_d, step_size, generator)
    occupied = occupancy.occupied.view(*[occupancy.resolution] * 3).numpy()
    counts = np.zeros(len(rays_o) + 1, np.int64)
    rays = tuple(one.contiguous().numpy() for one in (rays_o, rays_d, torch.stack(span, 1)))
    fixed = (*rays, occupied, np.float32(step_size), most, counts)
    pieces = ranges(len(rays_o), RAYS_PER_PIECE)
    in_threads(_walk, [(*fixed, np.empty((0, 2), np.float32), *piece) for piece in pieces])
    ray_index = torch.repeat_interleave(torch.from_numpy(counts[1:].copy()))
    np.cumsum(counts, out=counts)
    out = np.empty((counts[-1], 2), np.float32)
    if len(out):
        in_threads(_walk, [(*fixed, out, *piece) for piece in pieces])
    distance, length = torch.from_numpy(out).t().contiguous()
    return Samples(ray_index, distance, length)


visible_samples = functools.partial(torch_visible_samples, march_fn=march)


class _Halves:
    """An occupancy of eight cells of which those at x < 0 are empty."""

    resolution = 2
    occupied = torch.arange(8) >= 4
    ema = torch.ones(8)

    def contains(self, positions: Tensor) -> Tensor:
        return (positions[:, 0] >= 0) & (positions.abs() < 1).all(-1)


def probe(device: str) -> None:
    """Samples of a small scene on a CPU, against torch's; raises where they differ."""
    grid = _Halves()
    rays_d = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1, 0.0], [0.9, -0.3, 0.2]]), dim=-1)
    rays_o = torch.tensor([[-2.0, 0.0, 0.1], [-1.5, 0.4, -0.2]])
    found, wanted = (one(rays_o, rays_d, grid, 0.1) for one in (march, torch_march))
    if not all(
        torch.equal(getattr(found, name), getattr(wanted, name)) for name in ("ray_index", "distance", "length")
    ):
        raise RuntimeError("its samples are not those of torch")
