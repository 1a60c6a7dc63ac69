"""The network's answer to noised images, in training and on held-out objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from dream3d.guidance import diffuse
from dream3d.prior.attention import Context
from dream3d.prior.codec import Codec
from dream3d.prior.patch_pca import PatchPCA
from dream3d.prior.unet import call_unet
from dream3d.training.data import Batch
from dream3d.training.inputs import FrozenInputs
from dream3d.training.objective import channel_weights, weighted_loss

LEVELS = (100, 300, 500, 700, 850, 950, 999)
"""Timesteps at which held-out losses are measured, of 1000."""
HELDOUT_OBJECTS = 36
"""Objects that they are measured on, evenly chosen."""


def predict_noised(
    inputs: FrozenInputs,
    network: Any,
    batch: Batch,
    x0: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    keys: Context | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The network's output and its target, both (N, C, h, w), and the signal variances (N,), on the device of ``x0``.

    ``x0`` (N, C, h, w) are the latents of the batch's images, ``noise`` has their shape, ``timesteps`` (N,) are
    integers on the CPU. ``network`` is a UNet, or something around it; ``keys`` are of pictures, see
    :func:`dream3d.prior.unet.call_unet`.
    """
    device = x0.device
    alpha_bar = inputs.alphas_cumprod[timesteps].to(device)
    noisy, target = diffuse(x0, noise.to(device), alpha_bar, inputs.prediction_type)
    text = inputs.captions.of(batch.captions, batch.views).to(device)
    cameras = None if batch.cameras is None else batch.cameras.flatten(0, 1).to(device)
    return call_unet(network, noisy, timesteps.to(device), text, cameras, batch.views, keys), target, alpha_bar


@torch.no_grad()
def heldout_losses(inputs: FrozenInputs, unet: UNet2DConditionModel, channels: Tensor) -> dict[int, float]:
    """Mean loss on held-out objects by timestep, with the same noise in every call; empty without such objects.

    ``channels`` (C,) are the weights of the latent channels.
    """
    if not inputs.heldout:
        return {}
    count = min(HELDOUT_OBJECTS, len(inputs.heldout))
    chosen = [inputs.heldout[i] for i in np.linspace(0, len(inputs.heldout) - 1, count).astype(int)]
    generator = torch.Generator().manual_seed(1234)
    sums = dict.fromkeys((level * len(inputs.alphas_cumprod) // 1000 for level in LEVELS), 0.0)
    for first in range(0, count, 8):
        part = chosen[first : first + 8]
        batch = inputs.sampler.fixed(part)
        x0 = inputs.codec.encode(batch.images.to(unet.device), generator)
        for level in sums:
            noise = torch.randn(x0.shape, generator=generator)
            timesteps = torch.full((len(x0),), level)
            predicted, target, alpha_bar = predict_noised(inputs, unet, batch, x0, noise, timesteps)
            sums[level] += weighted_loss(predicted, target, torch.ones_like(alpha_bar), channels).item() * len(part)
    return {level: total / count for level, total in sums.items()}


def weights_of_latents(codec: Codec, power: float, device: torch.device) -> Tensor:
    """(C,) weights of a codec's latent channels, see :func:`channel_weights`; alike for a codec that is not linear."""
    scale = codec.scale if isinstance(codec, PatchPCA) else torch.ones(codec.channels, device=device)
    return channel_weights(scale, power)
