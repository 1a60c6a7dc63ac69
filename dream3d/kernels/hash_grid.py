"""The hash grid as a module: parameters plus one evaluation path."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dream3d.kernels.choose import Candidate, Operation
from dream3d.kernels.hash_encode import HashGridSpec, hash_encode, hash_grid_spec


class TorchHashGrid(nn.Module):
    """The reference: a table of (entries, features) and :func:`hash_encode`."""

    def __init__(self, spec: HashGridSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.spec = spec
        self.width = spec.width
        initial = torch.rand(spec.entries, spec.features, generator=generator)
        self.table = nn.Parameter((initial * 2 - 1) * 1e-4)  # the range of Mueller et al., section 4

    def forward(self, positions: Tensor) -> Tensor:
        """(N, 3) in [0, 1] -> (N, width)."""
        return hash_encode(positions, self.table, self.spec)


class TinyCudaHashGrid(nn.Module):
    """tiny-cuda-nn's HashGrid behind the same interface, with second derivatives for positions, as shading needs.

    It lives on the current CUDA device. Not run so far: its test needs a GPU with the library.
    """

    def __init__(self, spec: HashGridSpec, generator: torch.Generator) -> None:
        super().__init__()
        tcnn: Any = importlib.import_module("tinycudann")
        self.width = spec.width
        self.encoding = tcnn.Encoding(
            3,
            {
                "otype": "HashGrid",
                "n_levels": len(spec.levels),
                "n_features_per_level": spec.features,
                "log2_hashmap_size": spec.log2_entries,
                "base_resolution": spec.base_resolution,
                "per_level_scale": spec.per_level_scale,
            },
            seed=int(torch.randint(2**31 - 1, (1,), generator=generator)),
            dtype=torch.float32,
        )

    def forward(self, positions: Tensor) -> Tensor:
        """(N, 3) in [0, 1] -> (N, width)."""
        if not len(positions):  # a batch of nothing is not known to be safe there
            return positions.new_zeros(0, self.width)
        encoded: Tensor = self.encoding(positions)
        return encoded.float()


def _probe_tinycudann(device: str) -> None:
    """Values, gradients and second derivatives of a small grid. Not run so far."""
    with torch.cuda.device(device):
        grid = TinyCudaHashGrid(hash_grid_spec(2, 2, 8, 4, 2.0), torch.Generator().manual_seed(0)).to(device)
        positions = torch.rand(128, 3, device=device).requires_grad_()
        values = grid(positions)
        (slope,) = torch.autograd.grad(values.square().sum(), positions, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), grid.encoding.params)
        for name, result in (("values", values), ("gradients", slope), ("second derivatives", second)):
            if not bool(torch.isfinite(result).all()) or not bool(result.any()):
                raise RuntimeError(f"its hash grid returned {name} that are zero or not finite")


def _numba_grid(spec: HashGridSpec, generator: torch.Generator) -> TorchHashGrid:
    grid: TorchHashGrid = importlib.import_module("dream3d.kernels.numba_hash").NumbaHashGrid(spec, generator)
    return grid


def _probe_numba(device: str) -> None:
    """Values and gradients of a small grid, against the reference's."""
    spec = hash_grid_spec(2, 2, 8, 4, 3.0)
    positions = torch.rand(64, 3, generator=torch.Generator().manual_seed(0))
    results = []
    for build in (_numba_grid, TorchHashGrid):
        grid = build(spec, torch.Generator().manual_seed(0))
        values = grid(positions)
        results.append((values, *torch.autograd.grad(values.square().sum(), [grid.table])))
    for found, wanted in zip(*results, strict=True):
        if not torch.allclose(found, wanted, rtol=1e-4, atol=1e-9):
            raise RuntimeError("its values or gradients are not those of torch")


HashGrid = TorchHashGrid | TinyCudaHashGrid
HashGridFactory = Callable[[HashGridSpec, torch.Generator], HashGrid]
HASH_GRID = Operation(
    "hash grid",
    (
        Candidate[HashGridFactory]("tiny-cuda-nn", TinyCudaHashGrid, _probe_tinycudann),
        Candidate[HashGridFactory]("numba", _numba_grid, _probe_numba, "cpu"),
        Candidate[HashGridFactory]("torch", TorchHashGrid),
    ),
)
"""Makes the module of a spec, with initial values from a generator."""
