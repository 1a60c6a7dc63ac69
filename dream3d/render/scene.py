"""What a run optimises and how it is seen: a field before a background, and the renderer of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.field.background import Background, Color, build_background
from dream3d.field.radiance import RadianceField
from dream3d.recipe.generation import OptimizerRecipe, Recipe
from dream3d.render.renderer import Field, Light, Renderer, Rendering


class TrainableField(Field, Protocol):
    """What the optimisation asks of a radiance field, besides what the renderer does."""

    def color(self, positions: Tensor) -> Tensor:
        """(M, 3) world positions -> (M, 3) colours in [0, 1], sRGB display values."""
        ...

    def set_step(self, step: int) -> None:
        """Take on whatever the field's own schedules say for a step of the run."""
        ...

    def parameter_groups(self, rates: OptimizerRecipe) -> list[dict[str, Any]]:
        """Parameters with their learning rates, as torch's optimisers take them."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """Parameters and buffers by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Tensor], /) -> object:
        """Restore what :meth:`state_dict` returned."""
        ...


@dataclass(frozen=True)
class Scene:
    """Handed to the optimisation: another field or background is another scene, not another loop."""

    field: TrainableField
    background: Background
    renderer: Renderer
    device: torch.device
    learns_normals: bool = False
    """Whether renders carry the orientation penalty, which differentiates normals."""

    def render(
        self, cameras: Cameras, size: int, light: Light | None = None, generator: torch.Generator | None = None
    ) -> Rendering:
        """Square images of ``size`` pixels to learn from; the generator turns on jitter and random backgrounds."""
        return self.renderer.render(
            self.field,
            self.background,
            cameras,
            size,
            size,
            generator=generator,
            light=light,
            differentiable_normals=self.learns_normals,
        )

    def evaluate(self, cameras: Cameras, size: int) -> Rendering:
        """Square images of ``size`` pixels for looking at: no jitter, no gradients."""
        return self.renderer.evaluate(self.field, self.background, cameras.to(self.device), size, size)


def build_scene(
    recipe: Recipe,
    prior_background: Color,
    generator: torch.Generator,
    device: torch.device,
    hash_grid: str | None = None,
) -> Scene:
    """The scene of a recipe before the first step; first weights come from ``generator``."""
    field = RadianceField(recipe.field, generator, device, hash_grid)
    background = build_background(recipe.background, prior_background, generator).to(device)
    return Scene(field, background, Renderer(recipe.render, device), device, recipe.shading is not None)
