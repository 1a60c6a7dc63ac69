"""A baked texture, refined, and the shape below it: both move towards what the prior makes of views of the mesh.

Colours of a field are means over many targets, and dull. From little noise the prior draws the mesh's own views again,
only clearer. What it draws is fitted by a change of colour over space, which the texels take on, so that neither seams
nor texels that no view sees stand out; the shape stays, unless it is asked for too (Lin et al. 2023, "Magic3D", whose
second stage moves the vertices of a mesh as well). Then the vertices take on a move over space, so that what is joined
stays joined. A measured score decides for each of the two whether it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream3d.cameras import Cameras, orbit
from dream3d.images import to_uint8
from dream3d.mesh.appearance import Texture
from dream3d.mesh.changes import Moves, Recoloring
from dream3d.mesh.drawn_surface import DrawnSurface
from dream3d.mesh.drawn_texture import DrawnView, drawn_views
from dream3d.mesh.extract import FieldMesh
from dream3d.mesh.surface import Surface
from dream3d.prior.base import MultiViewPrior
from dream3d.prior.conditioning import Conditioning
from dream3d.recipe.generation import Recipe, TargetRecipe
from dream3d.recipe.refinement import TextureRefinement
from dream3d.run.progress import MovedShape, Refinement, Score
from dream3d.targets import find_target

SAMPLES = 256
"""Along a side of a picture, if the prior's images are smaller: so many see enough of the texels."""
JUDGED_ELEVATION = 15.0
"""Of the cameras that the score is taken from, which nothing was fitted at."""


class _Pictures:
    """Views of one mesh, drawn with any texture and shape, and what the prior makes of them."""

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
        self._radius = np.linalg.norm(vertices, axis=1).max()  # 1 for the prior's training objects
        if not isinstance(skin, Texture) or mesh.layout is None:
            raise ValueError("a mesh without a texture cannot be refined")
        self._skin, self._source, self._surface = skin, mesh.layout.source, mesh.surface
        self._drawn = DrawnSurface(mesh.surface.faces, mesh.layout, mesh.normals)
        target = TargetRecipe(noise=asked.noise, denoise_steps=asked.denoise_steps)
        guidance = replace(recipe.guidance, loss="x0")  # the key, and with it another decoding, is not needed here
        self._recipe = replace(recipe, targets=(target,), key=None, guidance=guidance)

    @property
    def texture(self) -> Tensor:
        """(3, H, W) as it was baked, in [0, 1]."""
        return _as_tensor(self._skin.image)

    def views(self, cameras: Cameras, surface: Surface | None = None) -> list[DrawnView]:
        """What cameras see of the mesh, or of another ``surface`` with its faces, at the mesh's own scale."""
        size, more = self._prior.image_size, self._supersample
        vertices = (surface or self._surface).vertices[self._source] / self._radius
        return drawn_views(vertices, self._faces, self._skin, cameras, size, supersample=more)

    def draw(self, views: list[DrawnView], texture: Tensor) -> Tensor:
        """(V, 3, S, S) pictures of a texture (3, H, W)."""
        return torch.stack([view.draw(texture, self._background, self._supersample) for view in views])

    def draw_moved(self, vertices: Tensor, texture: Tensor, cameras: Cameras) -> Tensor:
        """(V, 3, S, S) pictures of the surface's vertices in other places (N, 3), with a texture (3, H, W)."""
        size, more = self._prior.image_size, self._supersample
        return self._drawn.draw(vertices / self._radius, texture, cameras, size, self._background, supersample=more)

    @torch.no_grad()
    def drawn_again(self, pictures: Tensor, cameras: Cameras, generator: torch.Generator) -> Tensor:
        """What the prior makes of pictures (V, 3, S, S) in [0, 1] of one object: the pictures and what it changes.

        The change is taken between decoded images. What the codec alone takes from a picture is not the prior's wish.
        """
        latents = self._prior.encode_images(pictures.to(self._device), generator)
        target = find_target(self._prior, self._recipe, 0, cameras, latents, self._told, generator)
        change = self._prior.decode_latents(target.x0) - self._prior.decode_latents(latents)
        return (pictures + change.float().cpu()).clamp(0, 1)


def refine_mesh(
    mesh: FieldMesh,
    prior: MultiViewPrior,
    recipe: Recipe,
    asked: TextureRefinement,
    prompt: str,
    seed: int,
    device: str = "cpu",
    report: Callable[[int], None] = lambda update: None,
) -> tuple[FieldMesh, Refinement]:
    """The mesh with its texture refined, and its shape if asked for, each as it was if the score fell; and the scores.

    ``recipe`` says how the prior, which is on a ``device``, is guided. ``report`` is called after each update, with
    their number so far. The same arguments give the same bytes on the CPU. A moved mesh still has the ``iou`` and
    ``silhouettes`` of before. Raises ValueError for a mesh without a texture.
    """
    told = prior.encode_prompt(prompt, recipe.negative_prompt)
    pictures, generator = _Pictures(mesh, prior, recipe, asked, told, device), torch.Generator().manual_seed(seed)
    base = pictures.texture
    orbits = list[_Orbit]()
    for number, elevation in enumerate(asked.elevations_deg):
        turned = 360 / prior.views * number / len(asked.elevations_deg)  # between the cameras of the orbits before
        cameras = orbit(prior.views, elevation_deg=elevation, azimuth_deg=turned)
        views = pictures.views(cameras)
        with torch.no_grad():
            seen = pictures.draw(views, base)
        orbits.append(_Orbit(cameras, views, pictures.drawn_again(seen, cameras, generator)))
    image, moves = _fitted(mesh, pictures, orbits, asked, report)

    def score(texture: Tensor, surface: Surface | None = None) -> Score:
        return _score(pictures, prior, prompt, texture, seed, surface)

    outcome = Refinement(score(base), score(_as_tensor(image)))
    if outcome.kept:
        mesh = replace(mesh, image=image)
    if moves is None:
        return mesh, outcome
    moved = moves.applied(mesh.surface)
    texture = _as_tensor(image) if outcome.kept else base
    distance = np.linalg.norm(moved.vertices - mesh.surface.vertices, axis=1).mean() / moved.voxel
    shape = MovedShape(outcome.after if outcome.kept else outcome.before, score(texture, moved), float(distance))
    if shape.kept:
        # The normal map says how the surface's own frames are bent, and these move with it.
        mesh = replace(mesh, surface=moved, fine=mesh.fine and moves.applied(mesh.fine))
    return mesh, replace(outcome, shape=shape)


@dataclass(frozen=True)
class _Orbit:
    """Views that the prior drew again together."""

    cameras: Cameras
    views: list[DrawnView]
    """Of the mesh as it was."""
    targets: Tensor
    """(V, 3, S, S) what the prior made of them."""


def _fitted(
    mesh: FieldMesh,
    pictures: _Pictures,
    orbits: list[_Orbit],
    asked: TextureRefinement,
    report: Callable[[int], None],
) -> tuple[NDArray[np.uint8], Moves | None]:
    """(S, S, 3) the texture, and the moves if asked for, whose views are nearest to the targets.

    In mean absolute difference.
    """
    assert mesh.layout is not None  # there is a texture
    recoloring = Recoloring(mesh.surface, mesh.layout, pictures.texture, asked)
    rates = [asked.learning_rate]
    groups: list[dict[str, object]] = [{"params": [recoloring.change]}]
    moves = None
    if asked.shape is not None:
        moves = Moves(mesh.surface, asked.shape)
        rates.append(asked.shape.learning_rate)
        groups.append({"params": [moves.change]})
    optimizer = torch.optim.Adam(groups)
    views, targets = [view for one in orbits for view in one.views], torch.cat([one.targets for one in orbits])

    def drawn() -> Tensor:
        texture = recoloring.texture()
        if moves is None:
            return pictures.draw(views, texture)
        vertices = moves.vertices()
        return torch.cat([pictures.draw_moved(vertices, texture, one.cameras) for one in orbits])

    for update in range(asked.updates):
        # It falls to 0: the absolute difference has a gradient of one size, by which texels would go to and fro.
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - update / asked.updates)
        optimizer.zero_grad()
        loss = (drawn() - targets).abs().mean()
        if moves is not None and asked.shape is not None:
            loss = loss + asked.shape.smoothness * moves.roughness()
        loss.backward()
        if not all(torch.isfinite(one).all() for one in (loss, *_gradients(optimizer))):
            break  # half precision overflows now and then: what was fitted so far is judged
        optimizer.step()
        report(update + 1)
    with torch.no_grad():
        return to_uint8(recoloring.texture().movedim(0, -1)), moves


def _gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    unknowns = [one for group in optimizer.param_groups for one in group["params"]]
    return [one.grad for one in unknowns if one.grad is not None]


@torch.no_grad()
def _score(
    pictures: _Pictures, prior: MultiViewPrior, prompt: str, texture: Tensor, seed: int, surface: Surface | None
) -> Score:
    cameras = orbit(prior.views, elevation_deg=JUDGED_ELEVATION, azimuth_deg=45 / prior.views)
    seen = pictures.draw(pictures.views(cameras, surface), texture)
    # The same noise for every texture and shape: they are compared.
    wanted = pictures.drawn_again(seen, cameras, torch.Generator().manual_seed(seed ^ 1))
    error = float((seen - wanted).square().mean())
    like = prior.likeness(prompt, seen)
    return Score(-10 * math.log10(max(error, 1e-12)), None if like is None else like.similarity)


def _as_tensor(image: NDArray[np.uint8]) -> Tensor:
    """(3, H, W) in [0, 1]."""
    return torch.from_numpy(image).movedim(-1, 0).float() / 255
