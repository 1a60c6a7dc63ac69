"""The losses as pure functions: diffusion (timesteps, weights), contrast, and staying near the start."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.guidance import PredictionType


def draw_timesteps(uniform: Tensor, tilt: float, count: int) -> Tensor:
    """Timesteps in 0..count-1 from numbers in [0, 1), any shape: floor(count * u^tilt)."""
    return (uniform**tilt * count).long().clamp(0, count - 1)


def error_of_x0(error: Tensor, alpha_bar: Tensor, kind: PredictionType) -> Tensor:
    """The error of predicted clean latents (N, C, h, w) that an error of the network's output is, at (N,) variances.

    x0 = alpha * x_t - sigma * v, or (x_t - sigma * noise) / alpha.
    """
    factor = (1 - alpha_bar).sqrt() if kind == "v_prediction" else ((1 - alpha_bar) / alpha_bar).sqrt()
    return -factor[:, None, None, None] * error


def image_errors(images: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute errors of (N, 3, H, W): of the pixels, and of differences between neighbours in rows and columns.

    The second one counts speckle and blurred edges, which the first hardly sees.
    """
    error = images - truth
    return error.abs().mean(), (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2


def level_weights(alpha_bar: Tensor, kind: PredictionType, weighting: str, gamma: float) -> Tensor:
    """Weights of the squared error at signal variances (N,): ones, or Min-SNR's (Hang et al. 2023).

    Min-SNR weighs the error of x0 by min(SNR, gamma); an error of the noise is that of x0 times the SNR, one of v
    times SNR + 1. With no signal left the weight of v is 0 and that of the noise 1.
    """
    if weighting == "none":
        return torch.ones_like(alpha_bar)
    snr = alpha_bar / (1 - alpha_bar)
    if kind == "epsilon":
        return (gamma / snr).clamp(max=1.0)
    return snr.clamp(max=gamma) / (snr + 1)


def channel_weights(scale: Tensor, power: float) -> Tensor:
    """(C,) weights of mean 1 from a linear codec's scales: a channel's spread in images, to a power."""
    weights = scale.reciprocal() ** power
    return weights / weights.mean()


def weighted_loss(predicted: Tensor, target: Tensor, levels: Tensor, channels: Tensor) -> Tensor:
    """Mean squared error of (N, C, h, w) with weights by image (N,) and by channel (C,); a scalar in float32."""
    error = (predicted.float() - target.float()).square().mean((2, 3))
    return (error * channels * levels[:, None]).mean()


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, matches: Tensor) -> Tensor:
    """CLIP's symmetric InfoNCE (Radford et al. 2021) of unit vectors (N, dim), pair i with pair i; a scalar.

    ``matches`` (N, N) bool: whether text j describes image i. Off the diagonal these are false negatives, which are
    left out of the negatives both ways.
    """
    own = torch.eye(len(images), dtype=torch.bool, device=images.device)
    logits = (scale * images @ texts.t()).masked_fill(matches & ~own, float("-inf"))
    target = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


def mean_change(changes: Iterable[Tensor], count: int) -> Tensor:
    """MV-DreamBooth's preservation, ||theta - theta0||_1 / N, a scalar (Shi et al. 2023, section 3.4).

    ``changes`` are theta - theta0 of some weights of any shapes, at least one, and ``count`` is N, the number of all
    weights. The gradient where nothing has changed is 0.
    """
    return torch.stack([change.abs().sum() for change in changes]).sum() / count


def mean_change_from(pairs: Iterable[tuple[Tensor, Tensor]], count: int) -> Tensor:
    """:func:`mean_change` of weights theta and theta0, without keeping theta - theta0 until the backward pass.

    For all weights of a network that is as much memory as the network. The bits are the same.
    """
    change: Any = _AbsoluteChange  # torch has no types for what it makes of one
    return torch.stack([change.apply(value, start) for value, start in pairs]).sum() / count


class _AbsoluteChange(torch.autograd.Function):
    """||theta - theta0||_1 of one tensor; theta0 has no gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, start: Tensor) -> Tensor:
        """Two tensors of one shape -> a scalar."""
        ctx.save_for_backward(value, start)
        return (value - start).abs_().sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The sign of the change."""
        value, start = ctx.saved_tensors
        return (value - start).sgn_().mul_(gradient), None
