"""What a ray sees when it leaves the object."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from dream3d.field.radiance import kaiming_uniform
from dream3d.recipe.scene import BackgroundRecipe

Color = tuple[float, float, float]


def spherical_harmonics(directions: Tensor) -> Tensor:
    """Real spherical harmonics of degree 0..2: unit directions (N, 3) -> (N, 9).

    The nine numbers that MVDream's configuration calls "degree 3" (three bands).
    """
    x, y, z = directions.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, 0.28209479177387814),
            -0.48860251190291987 * y,
            0.48860251190291987 * z,
            -0.48860251190291987 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.94617469575755997 * z * z - 0.31539156525251999,
            -1.0925484305920792 * x * z,
            0.54627421529603959 * (x * x - y * y),
        ],
        dim=-1,
    )


class FixedBackground(nn.Module):
    """One colour everywhere: the one that the prior's training images had (docs/design.md, decision 4)."""

    def __init__(self, color: Color) -> None:
        super().__init__()
        self.color: Tensor
        self.register_buffer("color", torch.tensor(color))

    def forward(self, directions: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(N, 3) unit directions -> (N, 3) colours."""
        return self.color.expand(directions.shape[0], 3)


class NetworkBackground(nn.Module):
    """An MLP of the view direction, replaced in some training steps by one random colour (MVDream, section 3.2).

    The random colour keeps the field from painting the background as haze around the object.
    """

    def __init__(self, random_probability: float, generator: torch.Generator, width: int = 16) -> None:
        super().__init__()
        self.random_probability = random_probability
        sizes = (9, width, width, 3)
        self.layers = nn.ParameterList(
            kaiming_uniform(outputs, inputs, generator) for inputs, outputs in itertools.pairwise(sizes)
        )

    def forward(self, directions: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(N, 3) unit directions -> (N, 3) colours; random ones only with a generator (training)."""
        if generator is not None and float(torch.rand(1, generator=generator)) < self.random_probability:
            color = torch.rand(3, generator=generator)
            return color.to(directions.device, non_blocking=True).expand(directions.shape[0], 3)
        hidden = spherical_harmonics(directions)
        for layer in self.layers[:-1]:
            hidden = torch.relu(hidden @ layer.t())
        return torch.sigmoid(hidden @ self.layers[-1].t())


Background = FixedBackground | NetworkBackground


def build_background(recipe: BackgroundRecipe, prior_color: Color, generator: torch.Generator) -> Background:
    """The background of a recipe; ``prior_color`` is used by the fixed kind."""
    if recipe.kind == "fixed":
        return FixedBackground(prior_color)
    return NetworkBackground(recipe.random_probability, generator)
