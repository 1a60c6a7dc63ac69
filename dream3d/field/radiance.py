"""The field itself: position -> density and colour, on the cube [-1, 1]^3."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream3d.kernels.choose import choose
from dream3d.kernels.hash_encode import hash_grid_spec
from dream3d.kernels.hash_grid import HASH_GRID
from dream3d.recipe.generation import OptimizerRecipe
from dream3d.recipe.scene import FieldRecipe


def blob_bias(positions: Tensor, scale: float, radius: float) -> Tensor:
    """Logit added to the density, ``scale * (1 - |x| / radius)`` (MVDream's "blob_magic3d").

    ``positions`` (N, 3) in world units; returns (N,). It starts every run as a soft ball, so that the
    first renders show something to improve.
    """
    return scale * (1 - positions.norm(dim=-1) / radius)


class TwoLayer(nn.Module):
    """Linear-ReLU-Linear without biases, as in MVDream's field."""

    def __init__(self, inputs: int, width: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = nn.Parameter(kaiming_uniform(width, inputs, generator))
        self.output = nn.Parameter(kaiming_uniform(outputs, width, generator))

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        return F.linear(torch.relu(F.linear(features, self.hidden)), self.output)


def kaiming_uniform(outputs: int, inputs: int, generator: torch.Generator) -> Tensor:
    """torch's default for ``nn.Linear`` (kaiming with a = sqrt 5: bound 1 / sqrt(inputs)), from a generator."""
    return (torch.rand(outputs, inputs, generator=generator) * 2 - 1) / math.sqrt(inputs)


class RadianceField(nn.Module):
    """Hash grid with a density head and a colour head; no view dependence (docs/method.md, Field and renderer)."""

    def __init__(
        self,
        recipe: FieldRecipe,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        hash_grid: str | None = None,
    ) -> None:
        """First weights come from ``generator``; ``hash_grid`` names a candidate, by default the best that works."""
        super().__init__()
        self.recipe = recipe
        spec = hash_grid_spec(
            recipe.levels,
            recipe.features_per_level,
            recipe.log2_entries,
            recipe.base_resolution,
            recipe.per_level_scale,
        )
        self.encoding = choose(HASH_GRID, str(device), hash_grid).implementation(spec, generator)
        self.density_head = TwoLayer(self.encoding.width, recipe.hidden_width, 1, generator)
        self.color_head = TwoLayer(self.encoding.width, recipe.hidden_width, 3, generator)
        self.sharpness = recipe.sharpness.start
        self.to(device)

    def set_step(self, step: int) -> None:
        """Take on the sharpness of a step of the run, see ``FieldRecipe.sharpness``."""
        self.sharpness = self.recipe.sharpness.at(step)

    def parameter_groups(self, rates: OptimizerRecipe) -> list[dict[str, Any]]:
        """The parameters for an optimiser, each group with its learning rate."""
        networks = [*self.density_head.parameters(), *self.color_head.parameters()]
        return [
            {"params": list(self.encoding.parameters()), "lr": rates.lr_grid},
            {"params": networks, "lr": rates.lr_networks},
        ]

    def _encode(self, positions: Tensor) -> Tensor:
        return self.encoding(positions.clamp(-1, 1) * 0.5 + 0.5)

    def _density(self, positions: Tensor, features: Tensor) -> Tensor:
        raw: Tensor = self.density_head(features)
        raw = self.recipe.density_gain * raw[:, 0]
        blob = blob_bias(positions, self.recipe.blob_scale, self.recipe.blob_radius)
        return F.softplus(self.sharpness * (raw + blob))

    def density(self, positions: Tensor) -> Tensor:
        """(N, 3) world positions -> (N,) density per world unit, >= 0."""
        return self._density(positions, self._encode(positions))

    def color(self, positions: Tensor) -> Tensor:
        """(N, 3) world positions -> (N, 3) colours in [0, 1], sRGB display values."""
        return torch.sigmoid(self.color_head(self._encode(positions)))

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3) world positions -> density (N,) and colour (N, 3), with one encoding for both."""
        features = self._encode(positions)
        return self._density(positions, features), torch.sigmoid(self.color_head(features))

    def normals(self, positions: Tensor, *, differentiable: bool = False) -> Tensor:
        """Unit normals (N, 3): the direction in which density falls fastest.

        With ``differentiable`` the result carries a graph to the parameters (orientation loss).
        """
        with torch.enable_grad():
            inputs = positions.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.density(inputs).sum(), inputs, create_graph=differentiable)
        return -F.normalize(gradient, dim=-1, eps=1e-6)
