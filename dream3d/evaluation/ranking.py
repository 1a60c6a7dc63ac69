"""Rank sampled sets of views: whether they show one object, and the one that was asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.guidance import add_noise, keyed_opacity
from dream3d.mesh.grid import peak_projection
from dream3d.mesh.iso import mean_iou
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.recipe.generation import KeyRecipe

HULL_CELLS = 48
KEY = KeyRecipe()
"""What is background and what is object, as in the 3D run."""
TIMESTEPS = (0.35, 0.5, 0.65, 0.8)
"""Noise levels, as fractions of the schedule, at which the text is weighed: between texture and bare layout."""


@dataclass(frozen=True)
class Ranked:
    """A seed's views, and why they stand where they stand."""

    seed: int
    pictures: Tensor
    """(V, 3, S, S) in [0, 1]."""
    consistency: float
    """0..1, see :func:`cross_view_consistency`."""
    text_similarity: float
    """See :func:`text_similarity`; larger is better, only differences within one prompt mean something."""


def cross_view_consistency(pictures: Tensor, cameras: Cameras) -> float:
    """How well the silhouettes of (V, 3, S, S) pictures fit one solid thing, 0..1.

    The visual hull (Laurentini 1994), all of space that every silhouette allows, is projected back: where views
    disagree, the hull lacks what only some of them show. The result is the mean IoU of its outlines and theirs; 0
    when there is no hull. Where the background is, is read off each picture's border.
    """
    outlines = _silhouettes(pictures)
    hull = _visual_hull(outlines, cameras)
    if not hull.any():
        return 0.0
    size = outlines.shape[-1]
    return mean_iou(peak_projection(hull, cameras, size, size) > 0.5, outlines)


def _silhouettes(pictures: Tensor) -> NDArray[np.bool_]:
    """(V, S, S): pixels that differ from the median colour of their picture's border."""
    rows = []
    for picture in pictures.float().cpu():
        border = torch.cat([picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]], dim=1)
        red, green, blue = border.median(dim=1).values.tolist()
        rows.append(keyed_opacity(picture[None], (red, green, blue), KEY.low, KEY.high)[0, 0] > 0.5)
    return torch.stack(rows).numpy()


def _visual_hull(outlines: NDArray[np.bool_], cameras: Cameras) -> NDArray[np.float32]:
    """(H+1, H+1, H+1) ones where every outline is hit, on the corners of [-1, 1]^3, indexed [x, y, z]."""
    axis = torch.linspace(-1, 1, HULL_CELLS + 1)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    inside = torch.ones(len(points), dtype=torch.bool)
    size = outlines.shape[-1]
    for outline, c2w, fovy_deg in zip(torch.from_numpy(outlines), cameras.c2w.cpu(), cameras.fovy_deg, strict=True):
        seen = (points - c2w[:3, 3]) @ c2w[:3, :3]  # camera frame: x right, y up, looking along -z
        focal = 1 / torch.tan(torch.deg2rad(fovy_deg.cpu()) / 2)
        x, y = (focal * seen[:, i] / -seen[:, 2] for i in (0, 1))
        column, row = (((x + 1) * size / 2).floor().long(), ((1 - y) * size / 2).floor().long())
        visible = (column >= 0) & (column < size) & (row >= 0) & (row < size) & (seen[:, 2] < 0)
        inside &= visible & outline[row.clamp(0, size - 1), column.clamp(0, size - 1)]
    side = HULL_CELLS + 1
    return inside.float().reshape(side, side, side).numpy()


@torch.no_grad()
def text_similarity(prior: DiffusionPrior, pictures: Tensor, cameras: Cameras, conditioning: Conditioning) -> float:
    """How much the prompt helps the prior to denoise (V, 3, S, S) pictures, in latents squared, over noise levels.

    The diffusion classifier (Li et al. 2023, equation 6): the error of the prediction without the text less the
    error with it, from the same noise for every set of pictures. No second network is needed.
    """
    generator = torch.Generator().manual_seed(0)
    latents = prior.encode_images(pictures.to(prior.device), generator)
    gain = 0.0
    for fraction in TIMESTEPS:
        timestep = int(fraction * len(prior.alphas_cumprod))
        alpha_bar = float(prior.alphas_cumprod[timestep])
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        with_text, without = prior.predict_x0(add_noise(latents, noise, alpha_bar), timestep, cameras, conditioning)
        gain += float((without - latents).square().mean() - (with_text - latents).square().mean())
    return gain / len(TIMESTEPS)


def rank(candidates: list[Ranked]) -> list[Ranked]:
    """Best first: by the sum of the places in consistency and in text similarity, then by consistency.

    The two have no common unit; places need none.
    """

    def places(values: list[float]) -> list[int]:
        order = sorted(values, reverse=True)
        return [order.index(value) for value in values]

    consistent = places([candidate.consistency for candidate in candidates])
    similar = places([candidate.text_similarity for candidate in candidates])
    order = sorted(range(len(candidates)), key=lambda i: (consistent[i] + similar[i], consistent[i], i))
    return [candidates[i] for i in order]
