"""A baked texture, refined: texels move towards what the prior makes of views of the mesh.

Colours of a field are means over many targets, and dull. From little noise the prior draws the mesh's own views again,
only clearer. What it draws is fitted by a change of colour over space, which the texels take on, so that neither seams
nor texels that no view sees stand out; the shape stays. A measured score decides whether the change is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dream3d.cameras import Cameras, orbit
from dream3d.images import to_uint8
from dream3d.mesh.appearance import Texture
from dream3d.mesh.bake import nearest_texels, texels_of
from dream3d.mesh.drawn_texture import DrawnView, drawn_views
from dream3d.mesh.extract import FieldMesh
from dream3d.prior.base import MultiViewPrior
from dream3d.prior.conditioning import Conditioning
from dream3d.recipe.generation import Recipe, TargetRecipe
from dream3d.recipe.refinement import TextureRefinement
from dream3d.run.progress import Refinement, Score
from dream3d.targets import find_target

SAMPLES = 256
"""Along a side of a picture, if the prior's images are smaller: so many see enough of the texels."""
JUDGED_ELEVATION = 15.0
"""Of the cameras that the score is taken from, which no texel was fitted at."""


class _Pictures:
    """Views of one mesh, drawn with any texture, and what the prior makes of them."""

    def __init__(
        self,
        mesh: FieldMesh,
        prior: MultiViewPrior,
        recipe: Recipe,
        asked: TextureRefinement,
        told: Conditioning,
        device: str,
    ) -> None:
        self._prior, self._told, self._device = prior, told, device
        self._supersample = max(1, SAMPLES // prior.image_size)
        self._background = torch.tensor(prior.background)
        vertices, self._faces, skin = mesh.skin
        self._vertices = vertices / np.linalg.norm(vertices, axis=1).max()  # as the prior's training objects were
        if not isinstance(skin, Texture):
            raise ValueError("a mesh without a texture cannot be refined")
        self._skin = skin
        target = TargetRecipe(noise=asked.noise, denoise_steps=asked.denoise_steps)
        guidance = replace(recipe.guidance, loss="x0")  # the key, and with it another decoding, is not needed here
        self._recipe = replace(recipe, targets=(target,), key=None, guidance=guidance)

    @property
    def texture(self) -> Tensor:
        """(3, H, W) as it was baked, in [0, 1]."""
        return _as_tensor(self._skin.image)

    def views(self, cameras: Cameras) -> list[DrawnView]:
        """What cameras see."""
        size, more = self._prior.image_size, self._supersample
        return drawn_views(self._vertices, self._faces, self._skin, cameras, size, supersample=more)

    def draw(self, views: list[DrawnView], texture: Tensor) -> Tensor:
        """(V, 3, S, S) pictures of a texture (3, H, W)."""
        return torch.stack([view.draw(texture, self._background, self._supersample) for view in views])

    @torch.no_grad()
    def drawn_again(self, pictures: Tensor, cameras: Cameras, generator: torch.Generator) -> Tensor:
        """What the prior makes of pictures (V, 3, S, S) in [0, 1] of one object: the pictures and what it changes.

        The change is taken between decoded images. What the codec alone takes from a picture is not the prior's wish.
        """
        latents = self._prior.encode_images(pictures.to(self._device), generator)
        target = find_target(self._prior, self._recipe, 0, cameras, latents, self._told, generator)
        change = self._prior.decode_latents(target.x0) - self._prior.decode_latents(latents)
        return (pictures + change.float().cpu()).clamp(0, 1)


def refine_texture(
    mesh: FieldMesh,
    prior: MultiViewPrior,
    recipe: Recipe,
    asked: TextureRefinement,
    prompt: str,
    seed: int,
    device: str = "cpu",
    report: Callable[[int], None] = lambda update: None,
) -> tuple[FieldMesh, Refinement]:
    """The mesh with its texture refined, or as it was if the score fell; and the scores.

    ``recipe`` says how the prior, which is on a ``device``, is guided. ``report`` is called after each update, with
    their number so far. The same arguments give the same bytes on the CPU. Raises ValueError for a mesh without a
    texture.
    """
    told = prior.encode_prompt(prompt, recipe.negative_prompt)
    pictures, generator = _Pictures(mesh, prior, recipe, asked, told, device), torch.Generator().manual_seed(seed)
    base = pictures.texture
    fitted = list[tuple[DrawnView, Tensor]]()
    for number, elevation in enumerate(asked.elevations_deg):
        turned = 360 / prior.views * number / len(asked.elevations_deg)  # between the cameras of the orbits before
        cameras = orbit(prior.views, elevation_deg=elevation, azimuth_deg=turned)
        views = pictures.views(cameras)
        with torch.no_grad():
            seen = pictures.draw(views, base)
        fitted += zip(views, pictures.drawn_again(seen, cameras, generator), strict=True)
    image = _fitted(mesh, pictures, fitted, asked, report)
    refined = replace(mesh, image=image)
    outcome = Refinement(*(_score(pictures, prior, prompt, one, seed) for one in (base, _as_tensor(image))))
    return refined if outcome.kept else mesh, outcome


def _fitted(
    mesh: FieldMesh,
    pictures: _Pictures,
    fitted: list[tuple[DrawnView, Tensor]],
    asked: TextureRefinement,
    report: Callable[[int], None],
) -> NDArray[np.uint8]:
    """(S, S, 3) the texture whose views are nearest to the targets, in mean absolute difference."""
    assert mesh.layout is not None  # there is a texture
    size = mesh.texture
    texels = texels_of(mesh.surface.vertices, mesh.surface.faces, mesh.layout, size)
    nearest = torch.from_numpy(nearest_texels(texels.pixel, size))
    inside = nearest >= 0
    base = pictures.texture.reshape(3, -1)
    places = torch.from_numpy(texels.positions[:, [2, 1, 0]].copy())[None, None, None]  # its last axis comes first
    change = torch.zeros(1, 3, asked.cells, asked.cells, asked.cells, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=asked.learning_rate)

    def texture() -> Tensor:
        limited = asked.largest_change * torch.tanh(change / max(asked.largest_change, 1e-6))
        moved = F.grid_sample(limited, places, padding_mode="border", align_corners=True)[0, :, 0, 0]
        shown = torch.zeros_like(base)
        shown[:, inside] = moved[:, nearest[inside]]  # what bleeds over the charts' edges changes alike
        return (base + shown).clamp(0, 1).reshape(3, size, size)

    views, targets = [view for view, _ in fitted], torch.stack([target for _, target in fitted])
    for update in range(asked.updates):
        # It falls to 0: the absolute difference has a gradient of one size, by which texels would go to and fro.
        optimizer.param_groups[0]["lr"] = asked.learning_rate * (1 - update / asked.updates)
        optimizer.zero_grad()
        loss = (pictures.draw(views, texture()) - targets).abs().mean()
        loss.backward()
        optimizer.step()
        report(update + 1)
    with torch.no_grad():
        return to_uint8(texture().movedim(0, -1))


@torch.no_grad()
def _score(pictures: _Pictures, prior: MultiViewPrior, prompt: str, texture: Tensor, seed: int) -> Score:
    cameras = orbit(prior.views, elevation_deg=JUDGED_ELEVATION, azimuth_deg=45 / prior.views)
    seen = pictures.draw(pictures.views(cameras), texture)
    # The same noise for every texture: they are compared.
    wanted = pictures.drawn_again(seen, cameras, torch.Generator().manual_seed(seed ^ 1))
    error = float((seen - wanted).square().mean())
    like = prior.likeness(prompt, seen)
    return Score(-10 * math.log10(max(error, 1e-12)), None if like is None else like.similarity)


def _as_tensor(image: NDArray[np.uint8]) -> Tensor:
    """(3, H, W) in [0, 1]."""
    return torch.from_numpy(image).movedim(-1, 0).float() / 255
