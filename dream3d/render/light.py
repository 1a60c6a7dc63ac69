"""Lights for shaded renders (docs/method.md, Shading)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from dream3d.cameras import Cameras
from dream3d.recipe.scene import ShadingRecipe
from dream3d.render.renderer import Light


def sample_light(
    shading: ShadingRecipe | None, step: int, cameras: Cameras, views: int, generator: torch.Generator
) -> Light | None:
    """A point light near each camera, or None for a plain albedo render, as the recipe has it at a step.

    ``views`` cameras of an object are consecutive. ``light_per`` says whether they share the offset and the distance.
    """
    if shading is None or step < shading.from_step:
        return None
    kind = float(torch.rand(1, generator=generator))
    if kind < shading.albedo_probability:
        return None
    position = cameras.c2w[:, :3, 3]
    shared = views if shading.light_per == "object" else 1
    lights = len(cameras) // shared

    def to_cameras(drawn: torch.Tensor) -> torch.Tensor:
        return drawn.repeat_interleave(shared, dim=0).to(position, non_blocking=True)

    direction = F.normalize(position + to_cameras(torch.randn(lights, 3, generator=generator)), dim=-1)
    near, far = shading.light_distance
    distance = near + (far - near) * to_cameras(torch.rand(lights, 1, generator=generator))
    diffuse = float(torch.rand(1, generator=generator))
    textureless = kind < shading.albedo_probability + shading.textureless_probability
    return Light(direction * distance, ambient=1 - diffuse, diffuse=diffuse, textureless=textureless)
