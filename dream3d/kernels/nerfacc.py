"""nerfacc (Li et al. 2023) behind the renderer's two questions: which samples, and which weights.

Used on CUDA when :mod:`dream3d.kernels.choose` found it working; compared with the torch marcher by a
test that runs where a CUDA device and nerfacc are present. Not run by the project's CI, which has no GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dream3d.kernels.march import Occupancy, Samples
from dream3d.recipe.generation import RenderRecipe


def visible_samples(
    occupancy: Occupancy,
    density_fn: Callable[[Tensor], Tensor],
    rays_o: Tensor,
    rays_d: Tensor,
    step_size: float,
    recipe: RenderRecipe,
    generator: torch.Generator | None,
) -> Samples:
    """The samples (see :class:`Samples`) in occupied cells that light can reach, by nerfacc's marcher."""
    nerfacc: Any = importlib.import_module("nerfacc")
    estimator = nerfacc.OccGridEstimator(
        roi_aabb=[-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], resolution=occupancy.resolution, levels=1
    ).to(rays_o.device)
    estimator.binaries = occupancy.occupied.view(1, occupancy.resolution, occupancy.resolution, occupancy.resolution)

    def sigma_fn(t_starts: Tensor, t_ends: Tensor, ray_indices: Tensor) -> Tensor:
        middle = (t_starts + t_ends) / 2
        return density_fn(rays_o[ray_indices] + middle[:, None] * rays_d[ray_indices])

    ray_index, t_starts, t_ends = estimator.sampling(
        rays_o,
        rays_d,
        sigma_fn=sigma_fn,
        render_step_size=step_size,
        early_stop_eps=recipe.early_stop_transmittance,
        alpha_thre=0.0,
        stratified=generator is not None,
    )
    return Samples(ray_index, (t_starts + t_ends) / 2, t_ends - t_starts)


def weights_from_density(density: Tensor, samples: Samples, rays: int) -> Tensor:
    """Contribution (M,) of each sample to its pixel, by nerfacc's fused kernel."""
    nerfacc: Any = importlib.import_module("nerfacc")
    starts = samples.distance - samples.length / 2
    weights: Tensor = nerfacc.render_weight_from_density(
        starts, starts + samples.length, density, ray_indices=samples.ray_index, n_rays=rays
    )[0]
    return weights
