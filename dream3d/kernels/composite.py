"""Emission-absorption compositing of samples along rays (Max 1995; NeRF, equation 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dream3d.kernels import nerfacc
from dream3d.kernels.choose import Candidate, Operation
from dream3d.kernels.samples import Samples


def transmittance_from_density(density: Tensor, samples: Samples) -> Tensor:
    """Share of light (M,) that reaches each sample from its ray's origin: exp(-sum of density * length before it).

    Differentiable in ``density`` (M,). The running sum is kept in float64, since it runs over all rays
    of a batch and each ray subtracts the sum at its own start.
    """
    optical = (density * samples.length).double()
    before = torch.cumsum(optical, 0) - optical
    starts = torch.ones_like(samples.ray_index, dtype=torch.bool)
    starts[1:] = samples.ray_index[1:] != samples.ray_index[:-1]
    first = torch.cummax(torch.arange(len(starts), device=starts.device) * starts, 0).values
    # index_select, not fancy indexing: its gradient is a plain index_add, several times faster on a CPU.
    at_start = before.index_select(0, first)
    return torch.exp(at_start - before).to(density.dtype)


def weights_from_density(density: Tensor, samples: Samples, rays: int | None = None) -> Tensor:
    """Contribution (M,) of each sample to its pixel: transmittance * (1 - exp(-density * length)).

    ``rays``, how many there are, is for native kernels that need it.
    """
    return transmittance_from_density(density, samples) * -torch.expm1(-density * samples.length)


def accumulate_along_rays(weights: Tensor, values: Tensor | None, ray_index: Tensor, rays: int) -> Tensor:
    """Sum of weights (M,) times values (M, C) per ray -> (rays, C); without values, the opacity (rays, 1)."""
    terms = weights[:, None] if values is None else weights[:, None] * values
    return torch.zeros(rays, terms.shape[1], dtype=terms.dtype, device=terms.device).index_add(0, ray_index, terms)


WeightsFn = Callable[[Tensor, Samples, int], Tensor]
RAY_WEIGHTS = Operation(
    "compositing",
    (
        Candidate[WeightsFn]("nerfacc", nerfacc.weights_from_density, nerfacc.probe),
        Candidate[WeightsFn]("torch", weights_from_density),
    ),
)
