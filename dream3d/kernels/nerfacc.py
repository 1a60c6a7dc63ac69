"""nerfacc (Li et al. 2023) for the renderer's two questions: which samples, and which weights.

Used on CUDA when :mod:`dream3d.kernels.choose` found it working; compared with the torch marcher by a
test that runs where a CUDA device and nerfacc are present. Not run by the project's CI, which has no GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dream3d.kernels.samples import Occupancy, Samples


def visible_samples(
    density_fn: Callable[[Tensor], Tensor],
    occupancy: Occupancy,
    rays_o: Tensor,
    rays_d: Tensor,
    step_size: float,
    early_stop_transmittance: float,
    generator: torch.Generator | None,
) -> Samples:
    """The samples in occupied cells that light can reach: :func:`dream3d.kernels.march.visible_samples` by nerfacc."""
    estimator = _estimator(occupancy.resolution, rays_o.device)
    estimator.binaries = occupancy.occupied.view(1, *[occupancy.resolution] * 3)

    def sigma_fn(t_starts: Tensor, t_ends: Tensor, ray_indices: Tensor) -> Tensor:
        middle = (t_starts + t_ends) / 2
        return density_fn(rays_o[ray_indices] + middle[:, None] * rays_d[ray_indices])

    with torch.no_grad():
        ray_index, t_starts, t_ends = estimator.sampling(
            rays_o,
            rays_d,
            sigma_fn=sigma_fn,
            render_step_size=step_size,
            early_stop_eps=early_stop_transmittance,
            alpha_thre=0.0,
            stratified=generator is not None,
        )
    return Samples(ray_index, (t_starts + t_ends) / 2, t_ends - t_starts)


def weights_from_density(density: Tensor, samples: Samples, rays: int) -> Tensor:
    """Contribution (M,) of each sample to its pixel, by nerfacc's fused kernel."""
    starts = samples.distance - samples.length / 2
    weights: Tensor = _nerfacc().render_weight_from_density(
        starts, starts + samples.length, density, ray_indices=samples.ray_index, n_rays=rays
    )[0]
    return weights


def probe_sampling() -> None:
    """Sample one ray on CUDA; raises whatever goes wrong."""
    estimator = _estimator(2, torch.device("cuda"))
    estimator.binaries = torch.ones(1, 2, 2, 2, dtype=torch.bool, device="cuda")
    rays_o, rays_d = torch.tensor([[[-2.0, 0.1, 0.1]], [[1.0, 0.0, 0.0]]], device="cuda")
    _, t_starts, _ = estimator.sampling(rays_o, rays_d, render_step_size=0.5)
    if len(t_starts) != 4:
        raise RuntimeError(f"its marcher cut a way of 2 into {len(t_starts)} steps of 0.5")


def probe_weights() -> None:
    """Composite four samples on CUDA; raises whatever goes wrong."""
    starts = torch.arange(4, device="cuda", dtype=torch.float32)
    index = torch.zeros(4, device="cuda", dtype=torch.long)
    weights = weights_from_density(torch.ones_like(starts), Samples(index, starts + 0.5, torch.ones_like(starts)), 1)
    if not bool(torch.isfinite(weights).all()):
        raise RuntimeError("its rendering returned weights that are not finite")


def _nerfacc() -> Any:
    return importlib.import_module("nerfacc")


def _estimator(resolution: int, device: torch.device) -> Any:
    return (
        _nerfacc()
        .OccGridEstimator(roi_aabb=[-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], resolution=resolution, levels=1)
        .to(device)
    )
