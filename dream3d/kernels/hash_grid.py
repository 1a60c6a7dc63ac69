"""The hash grid as a module: parameters plus one evaluation path."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dream3d.kernels.choose import Candidate, Operation
from dream3d.kernels.hash_encode import HashGridSpec, hash_encode


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
    """tiny-cuda-nn's HashGrid behind the same interface. Second derivatives are not supported by it.

    Not run in the project's own tests unless a CUDA device with tiny-cuda-nn is present.
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
        encoded: Tensor = self.encoding(positions)
        return encoded.float()


def _probe_tinycudann() -> None:
    tcnn = importlib.import_module("tinycudann")
    encoding = tcnn.Encoding(3, {"otype": "HashGrid", "n_levels": 2, "n_features_per_level": 2, "log2_hashmap_size": 8})
    values = encoding(torch.full((128, 3), 0.5, device="cuda"))
    if not bool(torch.isfinite(values).all()):
        raise RuntimeError("its hash grid returned values that are not finite")


HashGrid = TorchHashGrid | TinyCudaHashGrid
HashGridFactory = Callable[[HashGridSpec, torch.Generator], HashGrid]
REFERENCE = Candidate[HashGridFactory]("torch", TorchHashGrid)
HASH_GRID = Operation(
    "hash grid", (Candidate[HashGridFactory]("tiny-cuda-nn", TinyCudaHashGrid, _probe_tinycudann), REFERENCE)
)
"""Makes the module of a spec, with initial values from a generator."""
