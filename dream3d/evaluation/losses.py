"""How well a prior takes noise off images that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.dataset.cameras import pass_cameras
from dream3d.dataset.compositing import over, premultiplied
from dream3d.dataset.shards import ObjectViews
from dream3d.guidance import add_noise, epsilon_from_x0
from dream3d.prior.diffusion import DiffusionPrior

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Noise levels, as fractions of the schedule; not its end, where eps says nothing of a prior that predicts v."""

Color = tuple[float, float, float]


@dataclass(frozen=True)
class NoiseLoss:
    """Mean errors at one noise level."""

    level: float
    """Fraction of the schedule."""
    pixels: float
    """Mean square of the error of the predicted clean image, colours in [0, 1]: one unit for all priors."""
    eps: float
    """Mean square of the error of the predicted noise, in latents; 1 is what predicting none would cost."""


@dataclass(frozen=True)
class Denoising:
    """What :func:`denoising_losses` measured."""

    codec: float
    """Mean squared pixel error of coding and decoding alone: no prediction can be better."""
    levels: tuple[NoiseLoss, ...]

    @property
    def mean_pixels(self) -> float:
        """Mean over the noise levels of the pixel error."""
        return sum(level.pixels for level in self.levels) / len(self.levels)


def view_set(views: ObjectViews, number: int, prior: DiffusionPrior, background: Color) -> tuple[Tensor, Cameras]:
    """As many views of pass ``number`` as the prior takes, evenly spaced from the first: (V, 3, S, S), cameras.

    ``background`` is sRGB in [0, 1]. Raises ValueError for a pass of fewer views.
    """
    orbit = views.record.passes[number]
    count = len(orbit.azimuths_deg)
    chosen = [i * count // prior.views for i in range(prior.views)]
    if len(set(chosen)) < prior.views:
        raise ValueError(f"{views.record.key}: a pass of {count} views for a prior of {prior.views}")
    picked = ObjectViews(views.record, views.rgba[number : number + 1, chosen])
    rgba = premultiplied(picked, prior.image_size).float() / 255
    return over(rgba, torch.tensor(background)), pass_cameras(orbit, chosen)


@torch.no_grad()
def denoising_losses(
    prior: DiffusionPrior,
    objects: Sequence[ObjectViews],
    levels: Sequence[float] = LEVELS,
    background: Color | None = None,
    seed: int = 0,
) -> Denoising:
    """Mean errors over objects, one pass of each, with its longest caption; the noise depends on ``seed`` alone.

    ``background`` (sRGB in [0, 1]) is the prior's own by default: another is an image it never saw. Priors with
    another codec are compared by their pixel errors, which hold the codec's own. Raises ValueError for no objects.
    """
    if not objects:
        raise ValueError("losses need at least one object")
    generator = torch.Generator().manual_seed(seed)
    codec, pixels, eps = 0.0, torch.zeros(len(levels)), torch.zeros(len(levels))
    for index, views in enumerate(objects):
        number = index % len(views.record.passes)
        images, cameras = view_set(views, number, prior, background or prior.background)
        text = prior.encode_prompt(prior.with_suffix(max(views.record.captions, key=len)), "")
        images, cameras = images.to(prior.device), cameras.to(prior.device)
        latents = prior.encode_images(images, generator)
        codec += float((prior.decode_latents(latents) - images).square().mean())
        for place, level in enumerate(levels):
            timestep = min(int(level * len(prior.alphas_cumprod)), len(prior.alphas_cumprod) - 1)
            alpha_bar = float(prior.alphas_cumprod[timestep])
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            noisy = add_noise(latents, noise, alpha_bar)
            x0, _ = prior.predict_x0(noisy, timestep, cameras, text, prior.views)
            pixels[place] += (prior.decode_latents(x0) - images).square().mean().cpu()
            eps[place] += (epsilon_from_x0(noisy, x0, alpha_bar) - noise).square().mean().cpu()
    count = len(objects)
    return Denoising(
        codec / count,
        tuple(NoiseLoss(*row) for row in zip(levels, (pixels / count).tolist(), (eps / count).tolist(), strict=True)),
    )


def camera_sensitivity(prior: DiffusionPrior, objects: Sequence[ObjectViews]) -> tuple[float, float]:
    """The mean pixel error of :func:`denoising_losses`, and how many times larger it is under wrong cameras.

    There, every view stands under the camera of the one a quarter further: a prior that ignores cameras has 1.
    """
    turned = [ObjectViews(o.record, np.roll(o.rgba, o.rgba.shape[1] // 4, axis=1)) for o in objects]
    right, wrong = (denoising_losses(prior, chosen).mean_pixels for chosen in (objects, turned))
    return right, wrong / right
