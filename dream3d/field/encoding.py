"""The hash grid as a module: parameters plus one evaluation path, chosen by :mod:`dream3d.kernels.choose`."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from dream3d.kernels.choose import choose
from dream3d.kernels.hash_encode import HashGridSpec, hash_encode, hash_grid_spec
from dream3d.recipe.generation import FieldRecipe


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

    def __init__(self, recipe: FieldRecipe, spec: HashGridSpec, generator: torch.Generator) -> None:
        super().__init__()
        tcnn: Any = importlib.import_module("tinycudann")
        self.width = spec.width
        self.encoding = tcnn.Encoding(
            3,
            {
                "otype": "HashGrid",
                "n_levels": recipe.levels,
                "n_features_per_level": recipe.features_per_level,
                "log2_hashmap_size": recipe.log2_entries,
                "base_resolution": recipe.base_resolution,
                "per_level_scale": recipe.per_level_scale,
            },
            seed=int(torch.randint(2**31 - 1, (1,), generator=generator)),
            dtype=torch.float32,
        )

    def forward(self, positions: Tensor) -> Tensor:
        """(N, 3) in [0, 1] -> (N, width)."""
        encoded: Tensor = self.encoding(positions)
        return encoded.float()


def build_encoding(
    recipe: FieldRecipe, generator: torch.Generator, device_type: str, *, second_derivatives: bool
) -> TorchHashGrid | TinyCudaHashGrid:
    """The encoding for a recipe; the torch one where the loss differentiates normals."""
    spec = hash_grid_spec(
        recipe.levels,
        recipe.features_per_level,
        recipe.log2_entries,
        recipe.base_resolution,
        recipe.per_level_scale,
    )
    if not second_derivatives and choose("field", device_type).name == "tiny-cuda-nn":
        return TinyCudaHashGrid(recipe, spec, generator)
    return TorchHashGrid(spec, generator)
