"""Pictures against their truth, pixel by pixel."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
"""Pixels along a side, and spread, of the Gaussian window of SSIM."""
K1, K2 = 0.01, 0.03
MAX_PSNR = 100.0
"""Decibels of pictures that are the same, whose ratio is infinite: a mean over many pictures has to stay a number."""


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """(N,) peak signal-to-noise ratio in decibels, up to :data:`MAX_PSNR`, of (N, 3, H, W) pictures in [0, 1]."""
    _check(images, truth)
    error = (images.double() - truth.double()).square().mean((1, 2, 3))
    return (-10 * torch.log10(error.clamp_min(10 ** (-MAX_PSNR / 10)))).clamp_max(MAX_PSNR)


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """(N,) structural similarity, -1 to 1, of (N, 3, H, W) pictures in [0, 1], the mean over channels and pixels.

    Wang et al. 2004, equation 13, with its Gaussian window of 11 pixels; windows that reach over the border are left
    out. Raises ValueError for pictures smaller than a window.
    """
    _check(images, truth)
    if min(images.shape[-2:]) < WINDOW:
        raise ValueError(f"pictures of {tuple(images.shape[-2:])} pixels are smaller than SSIM's window of {WINDOW}")
    x, y = images.double(), truth.double()
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return (above / below).mean((1, 2, 3))


def _blurred(images: Tensor) -> Tensor:
    """(N, C, H - 10, W - 10) means under the window."""
    offsets = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = (weights / weights.sum()).repeat(images.shape[1], 1, 1, 1)
    rows = F.conv2d(images, weights, groups=images.shape[1])
    return F.conv2d(rows, weights.transpose(2, 3), groups=images.shape[1])


def _check(images: Tensor, truth: Tensor) -> None:
    if images.shape != truth.shape or images.dim() != 4:
        raise ValueError(f"pictures of shape {tuple(images.shape)} have no truth of shape {tuple(truth.shape)}")
    for one in (images, truth):
        low, high = (float(end) for end in one.aminmax())
        if not (math.isfinite(low) and math.isfinite(high) and low >= 0 and high <= 1):
            raise ValueError(f"colours from {low:.3g} to {high:.3g}; they should be in [0, 1]")
