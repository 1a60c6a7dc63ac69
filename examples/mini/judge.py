"""How good a prior is while it is trained: its losses by noise level, and sheets of samples to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from dataset import VIEWS, Objects, diffuse
from diffusers import DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.guidance import classifier_free_guidance, rescale_guided
from dream3d.prior.codec import PatchPCA
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.training.fast import accelerate

LEVELS = (100, 300, 500, 700, 850, 950, 999)
"""Timesteps at which losses are measured."""


@dataclass(frozen=True)
class Denoiser:
    """A UNet with the codec of its latents and the schedule of its noise."""

    unet: UNet2DConditionModel
    codec: PatchPCA
    scheduler: DDIMScheduler

    @property
    def alphas_cumprod(self) -> Tensor:
        """(T,) float32: signal variance at each timestep."""
        return self.scheduler.alphas_cumprod

    def channel_weights(self, power: float) -> Tensor:
        """Weights of the latent channels with mean 1: the spread of a channel in the images, to a power."""
        weights = self.codec.scale.reciprocal() ** power
        return weights / weights.mean()


def fast_denoiser(prior: DiffusionPrior) -> Denoiser:
    """The frozen network of a prior on the CPU, with the faster layers; it is the prior's own, changed in place."""
    if not isinstance(prior.codec, PatchPCA):
        raise TypeError(f"prior {prior.name!r} has no linear codec, which is what these measures read")
    scheduler = DDIMScheduler.from_pretrained(prior.folder / "scheduler")
    return Denoiser(accelerate(prior.unet, VIEWS), prior.codec, scheduler)


@torch.no_grad()
def losses(
    denoiser: Denoiser,
    data: Objects,
    text: Tensor,
    weights: Tensor,
    limit: int = 36,
    levels: tuple[int, ...] = LEVELS,
) -> dict[int, float]:
    """Weighted v loss by noise level on the first quadruple of evenly chosen objects, with fixed noise."""
    chosen = np.linspace(0, len(data.items) - 1, min(limit, len(data.items))).astype(int).tolist()
    generator, totals = torch.Generator().manual_seed(1234), dict.fromkeys(levels, 0.0)
    for start in range(0, len(chosen), 12):
        part = chosen[start : start + 12]
        images, cameras = data.get(part, [0] * len(part))
        x0 = denoiser.codec.encode(images)
        context = text[part].repeat_interleave(VIEWS, 0)
        for level in levels:
            t = torch.full((len(x0),), level)
            noisy, v = diffuse(x0, t, torch.randn(x0.shape, generator=generator), denoiser.alphas_cumprod)
            predicted = denoiser.unet(noisy, t, context, class_labels=cameras, return_dict=False)[0]
            totals[level] += ((predicted.float() - v).square().mean((0, 2, 3)) * weights).mean().item() * len(part)
    return {level: total / len(chosen) for level, total in totals.items()}


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    text: Tensor,
    empty: Tensor,
    *,
    steps: int = 30,
    guidance: float = 4.0,
    rescale: float = 0.7,
    elevation: float = 15.0,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """DDIM samples of four views (azimuths 0, 90, 180, 270) a prompt; (prompts, 4, H, W, 3)."""
    unet, scheduler = denoiser.unet, denoiser.scheduler
    count, size = len(text), unet.config.sample_size
    cameras = orbit(VIEWS, elevation_deg=elevation).conditioning().repeat(2 * count, 1)
    context = torch.cat([text, empty.expand_as(text)]).repeat_interleave(VIEWS, 0)
    x = torch.randn(count * VIEWS, unet.config.in_channels, size, size, generator=torch.Generator().manual_seed(seed))
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        both = torch.cat([x, x])
        v = unet(both, t.expand(len(both)), context, class_labels=cameras, return_dict=False)[0].float()
        with_text, without = v.chunk(2)
        guided = rescale_guided(
            classifier_free_guidance(with_text, without, guidance), with_text, views=VIEWS, mix=rescale
        )
        x = scheduler.step(guided, t, x).prev_sample
    images = ((denoiser.codec.decode(x) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    views: NDArray[np.uint8] = images.unflatten(0, (count, VIEWS)).permute(0, 1, 3, 4, 2).numpy()
    return views


def save_sheet(views: NDArray[np.uint8], path: Path, scale: int = 2, columns: int = 2) -> None:
    """Rows of four views, `columns` prompts side by side, in reading order."""
    strips = [np.concatenate(list(v), 1) for v in views]
    strips += [np.zeros_like(strips[0])] * (-len(strips) % columns)
    rows = [np.concatenate(strips[i : i + columns], 1) for i in range(0, len(strips), columns)]
    page = Image.fromarray(np.concatenate(rows))
    page.resize((page.width * scale, page.height * scale), Image.Resampling.NEAREST).save(path)
