"""Lights for shaded renders (docs/method.md, Shading)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from dream3d.cameras import Cameras
from dream3d.recipe.generation import ShadingRecipe
from dream3d.render.renderer import Light


def sample_light(
    shading: ShadingRecipe | None, step: int, cameras: Cameras, generator: torch.Generator
) -> Light | None:
    """A point light near each camera, or None for a plain albedo render, as the recipe has it at a step."""
    if shading is None or step < shading.from_step:
        return None
    kind = float(torch.rand(1, generator=generator))
    if kind < shading.albedo_probability:
        return None
    position = cameras.c2w[:, :3, 3]
    direction = F.normalize(position + torch.randn(position.shape, generator=generator).to(position), dim=-1)
    near, far = shading.light_distance
    distance = near + (far - near) * torch.rand(len(cameras), 1, generator=generator).to(position)
    diffuse = float(torch.rand(1, generator=generator))
    textureless = kind < shading.albedo_probability + shading.textureless_probability
    return Light(direction * distance, ambient=1 - diffuse, diffuse=diffuse, textureless=textureless)
