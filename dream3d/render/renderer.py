"""Field, background and cameras -> images. The numerical rooms meet here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dream3d.cameras import Cameras
from dream3d.kernels.choose import choose
from dream3d.kernels.composite import RAY_WEIGHTS, accumulate_along_rays
from dream3d.kernels.march import DIAGONAL, VISIBLE_SAMPLES
from dream3d.kernels.samples import Marching, Samples, positions_of
from dream3d.recipe.scene import RenderRecipe
from dream3d.render.occupancy import OccupancyGrid

SAMPLES_AT_ONCE = 2**19
"""Samples at which the field is evaluated in one piece: at most 1.8 GB with gradients. Where there are more, each piece
is computed again for its gradients, so that only one is in memory."""
NORMALS_COST = 4
"""Memory of a sample with normals, of which second derivatives are kept, over that of one without."""

BackgroundFn = Callable[[Tensor, torch.Generator | None], Tensor]


class Field(Protocol):
    """What the renderer asks of a radiance field (:class:`dream3d.field.radiance.RadianceField`)."""

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(M, 3) world positions -> density (M,) and colour (M, 3)."""
        ...

    def density(self, positions: Tensor) -> Tensor:
        """(M, 3) world positions -> (M,) density."""
        ...

    def normals(self, positions: Tensor, *, differentiable: bool = False) -> Tensor:
        """(M, 3) world positions -> (M, 3) unit normals."""
        ...


@dataclass(frozen=True)
class Light:
    """Soft shading: color = albedo * (ambient + diffuse * max(0, n . l)) (docs/method.md, Shading)."""

    position: Tensor
    """(N, 3) one point light per camera, world units."""
    ambient: float
    diffuse: float
    textureless: bool = False
    """Replace the albedo by white, so that only the shape is seen."""


@dataclass(frozen=True)
class Rendering:
    """Images of N cameras, channels last."""

    color: Tensor
    """(N, H, W, 3) over the background, sRGB display values."""
    opacity: Tensor
    """(N, H, W, 1) in [0, 1]."""
    depth: Tensor | None
    """(N, H, W, 1) expected distance along the ray, world units; 0 where nothing is hit. Not of training renders."""
    normals: Tensor | None
    """(N, H, W, 3) opacity-weighted unit normals, world frame, when asked for."""
    orientation: Tensor | None
    """Scalar: normals that face away from the camera, per visible ray; with ``differentiable_normals``."""

    def images(self, size: int) -> Tensor:
        """The colours as images (N, 3, size, size), resized bilinearly."""
        return F.interpolate(self.color.movedim(-1, 1), (size, size), mode="bilinear", align_corners=False)


class Renderer:
    """Renders one field; holds the occupancy grid and the chosen kernels."""

    def __init__(self, recipe: RenderRecipe, device: torch.device | str = "cpu") -> None:
        self.recipe = recipe
        self.grid = OccupancyGrid(recipe, device)
        self.step_size = DIAGONAL / recipe.samples_per_diagonal
        self.coarsened = 0
        """Renders so far whose marching step was doubled to keep the sample budget."""
        self._visible_samples = choose(VISIBLE_SAMPLES, str(device)).implementation
        self._ray_weights = choose(RAY_WEIGHTS, str(device)).implementation

    def update_occupancy(self, field: Field, step: int, generator: torch.Generator) -> None:
        """Refresh the occupancy grid when the recipe says that this step is due."""
        if step % self.recipe.occupancy_every == 0:
            self.grid.update(field.density, step, self.step_size, generator)

    def render(
        self,
        field: Field,
        background: BackgroundFn,
        cameras: Cameras,
        height: int,
        width: int,
        *,
        generator: torch.Generator | None = None,
        light: Light | None = None,
        with_normals: bool = False,
        differentiable_normals: bool = False,
    ) -> Rendering:
        """Render N cameras at height x width pixels. A generator turns on jitter and random backgrounds."""
        rays_o, rays_d = (rays.reshape(-1, 3) for rays in cameras.rays(height, width))
        samples = self._samples(field, rays_o, rays_d, generator)
        positions = positions_of(samples, rays_o, rays_d)
        shaded = with_normals or light is not None or differentiable_normals

        def look(points: Tensor) -> tuple[Tensor, ...]:
            seen = field(points)
            return (*seen, field.normals(points, differentiable=differentiable_normals)) if shaded else seen

        density, albedo, *rest = _in_pieces(look, positions, SAMPLES_AT_ONCE // (NORMALS_COST if shaded else 1))
        normals = rest[0] if rest else None
        index, rays = samples.ray_index, len(rays_o)
        weights = self._ray_weights(density, samples, rays)
        if light is not None and normals is not None:
            albedo = _shade(albedo, positions, normals, light, index // (height * width))
        opacity = accumulate_along_rays(weights, None, index, rays)
        color = accumulate_along_rays(weights, albedo, index, rays)
        color = color + (1 - opacity) * background(rays_d, generator)
        size = (len(cameras), height, width)
        depth = None
        if generator is None:
            depth = accumulate_along_rays(weights, samples.distance[:, None], index, rays)
            depth = (depth / opacity.detach().clamp_min(1e-6)).view(*size, 1)
        orientation = None
        if differentiable_normals and normals is not None:
            facing_away = (normals * rays_d[index]).sum(-1).clamp_min(0).square()
            orientation = (weights.detach() * facing_away).sum() / (opacity > 0).sum().clamp_min(1)
        return Rendering(
            color=color.view(*size, 3),
            opacity=opacity.view(*size, 1),
            depth=depth,
            normals=None if normals is None else accumulate_along_rays(weights, normals, index, rays).view(*size, 3),
            orientation=orientation,
        )

    @torch.no_grad()
    def _samples(self, field: Field, rays_o: Tensor, rays_d: Tensor, generator: torch.Generator | None) -> Samples:
        """The samples of rays (R, 3) within the budget; the step is doubled until they fit."""

        def density(positions: Tensor) -> Tensor:
            return _in_pieces(lambda points: (field.density(points),), positions, SAMPLES_AT_ONCE)[0]

        recipe = self.recipe
        marching = Marching(self.step_size, recipe.early_stop_transmittance, recipe.alpha_threshold)
        samples = self._visible_samples(density, self.grid, rays_o, rays_d, marching, generator)
        self.coarsened += len(samples.length) > recipe.sample_budget
        while len(samples.length) > recipe.sample_budget and marching.step_size < DIAGONAL:
            marching = replace(marching, step_size=2 * marching.step_size)
            samples = self._visible_samples(density, self.grid, rays_o, rays_d, marching, generator)
        return samples

    @torch.no_grad()
    def evaluate(self, field: Field, background: BackgroundFn, cameras: Cameras, height: int, width: int) -> Rendering:
        """Render for looking at: no jitter, no gradients, camera by camera so that memory stays small."""
        parts = [
            self.render(field, background, Cameras(cameras.c2w[i : i + 1], cameras.fovy_deg[i : i + 1]), height, width)
            for i in range(len(cameras))
        ]
        return Rendering(
            color=torch.cat([part.color for part in parts]),
            opacity=torch.cat([part.opacity for part in parts]),
            depth=torch.cat([part.depth for part in parts if part.depth is not None]),
            normals=None,
            orientation=None,
        )


def _in_pieces(look: Callable[[Tensor], tuple[Tensor, ...]], positions: Tensor, most: int) -> tuple[Tensor, ...]:
    """``look`` at positions (M, 3); more than ``most`` go in pieces that keep only positions for the gradients."""
    if len(positions) <= most:
        return look(positions)
    pieces = [checkpoint(look, piece, use_reentrant=False, preserve_rng_state=False) for piece in positions.split(most)]
    return tuple(torch.cat(column) for column in zip(*pieces, strict=True))


def _shade(albedo: Tensor, positions: Tensor, normals: Tensor, light: Light, camera_index: Tensor) -> Tensor:
    to_light = F.normalize(light.position[camera_index] - positions, dim=-1)
    diffuse = (normals * to_light).sum(-1, keepdim=True).clamp_min(0)
    base = torch.ones_like(albedo) if light.textureless else albedo
    return (base * (light.ambient + light.diffuse * diffuse)).clamp(0, 1)
