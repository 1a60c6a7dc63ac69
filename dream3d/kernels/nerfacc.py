"""nerfacc (Li et al. 2023) for the renderer's two questions: which samples, and which weights.

Used on CUDA when :mod:`dream3d.kernels.choose` found it working. Not run so far: its test,
which compares it with the torch marcher, needs a GPU with nerfacc.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dream3d.kernels.samples import Marching, Occupancy, Samples


def visible_samples(
    density_fn: Callable[[Tensor], Tensor],
    occupancy: Occupancy,
    rays_o: Tensor,
    rays_d: Tensor,
    marching: Marching,
    generator: torch.Generator | None,
) -> Samples:
    """The samples in occupied cells that count: :func:`dream3d.kernels.march.visible_samples` by nerfacc."""
    estimator = _estimator(occupancy.resolution, rays_o.device)
    estimator.binaries = occupancy.occupied.view(1, *[occupancy.resolution] * 3)
    estimator.occs = occupancy.ema  # its mean caps the alpha threshold

    def sigma_fn(t_starts: Tensor, t_ends: Tensor, ray_indices: Tensor) -> Tensor:
        middle = (t_starts + t_ends) / 2
        return density_fn(rays_o[ray_indices] + middle[:, None] * rays_d[ray_indices])

    # Its own jitter is the same shift of each ray's start, but by torch's global generator.
    shift = None
    if generator is not None:
        shift = torch.rand(len(rays_o), generator=generator).to(rays_o, non_blocking=True) * marching.step_size
    with torch.no_grad():
        ray_index, t_starts, t_ends = estimator.sampling(
            rays_o,
            rays_d,
            sigma_fn=sigma_fn,
            t_min=shift,
            render_step_size=marching.step_size,
            early_stop_eps=marching.early_stop_transmittance,
            alpha_thre=marching.alpha_threshold,
            stratified=False,
        )
    return Samples(ray_index, (t_starts + t_ends) / 2, t_ends - t_starts)


def weights_from_density(density: Tensor, samples: Samples, rays: int) -> Tensor:
    """Contribution (M,) of each sample to its pixel, by nerfacc's fused kernel."""
    if not len(density):  # a batch of nothing is not known to be safe there
        return density * samples.length
    starts = samples.distance - samples.length / 2
    weights: Tensor = importlib.import_module("nerfacc").render_weight_from_density(
        starts, starts + samples.length, density, ray_indices=samples.ray_index, n_rays=rays
    )[0]
    return weights


class _EveryCell:
    """The grid of :func:`probe`: two cells a side, all occupied."""

    resolution = 2

    def __init__(self, device: str) -> None:
        self.occupied = torch.ones(8, dtype=torch.bool, device=device)
        self.ema = torch.ones(8, device=device)

    def contains(self, positions: Tensor) -> Tensor:
        """Nothing asks."""
        return (positions.abs() < 1).all(-1)


def probe(device: str) -> None:
    """Sample one ray with jitter and both thresholds, and composite it forward and backward; raises what goes wrong."""
    with torch.cuda.device(device):
        rays_o, rays_d = torch.tensor([[[-2.0, 0.1, 0.1]], [[1.0, 0.0, 0.0]]], device=device)
        generator, marching = torch.Generator().manual_seed(0), Marching(0.5, 1e-4, 0.01)
        samples = visible_samples(
            lambda points: torch.ones_like(points[:, 0]), _EveryCell(device), rays_o, rays_d, marching, generator
        )
        if not 3 <= len(samples.length) <= 5:
            raise RuntimeError(f"its marcher cut a way of 2 into {len(samples.length)} steps of 0.5")
        density = torch.ones_like(samples.length).requires_grad_()
        weights = weights_from_density(density, samples, 1)
        (gradient,) = torch.autograd.grad(weights.sum(), density)
        if not bool(torch.isfinite(weights).all()) or not bool((gradient > 0).all()):
            raise RuntimeError("its rendering returned weights or gradients that are wrong")


@functools.cache
def _estimator(resolution: int, device: torch.device) -> Any:
    nerfacc = importlib.import_module("nerfacc")
    return nerfacc.OccGridEstimator(roi_aabb=[-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], resolution=resolution, levels=1).to(
        device
    )
