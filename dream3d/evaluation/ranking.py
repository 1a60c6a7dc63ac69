"""Rank sampled sets of views: whether they show one object, and the one that was asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.guidance import add_noise
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior

TIMESTEPS = (0.35, 0.5, 0.65, 0.8)
"""Noise levels, as fractions of the schedule, at which the text is weighed: between texture and bare layout."""


@dataclass(frozen=True)
class Ranked:
    """A seed's views, and why they stand where they stand."""

    seed: int
    pictures: Tensor
    """(V, 3, S, S) in [0, 1]."""
    consistency: float
    """0..1, see :func:`dream3d.evaluation.consistency.cross_view_consistency`."""
    text_similarity: float
    """See :func:`text_similarity`; larger is better, only differences within one prompt mean something."""


@torch.no_grad()
def text_similarity(prior: DiffusionPrior, images: Tensor, cameras: Cameras, conditioning: Conditioning) -> float:
    """How much the prompt helps the prior to denoise (V, 3, S, S) images, in latents squared, over noise levels.

    The diffusion classifier (Li et al. 2023, equation 6): the error of the prediction without the text less the
    error with it, from the same noise for every set of images. No second network is needed.
    """
    generator = torch.Generator().manual_seed(0)
    latents = prior.encode_images(images.to(prior.device), generator)
    gain = 0.0
    for fraction in TIMESTEPS:
        timestep = int(fraction * len(prior.alphas_cumprod))
        alpha_bar = float(prior.alphas_cumprod[timestep])
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        x_t = add_noise(latents, noise, alpha_bar)
        with_text, without = prior.predict_x0(x_t, timestep, cameras, conditioning, prior.views)
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
