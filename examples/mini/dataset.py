"""Rendered objects in memory, and the forward diffusion of their latents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

VIEWS = 4
"""Views of one object in a quadruple."""


class Objects:
    """The objects of a folder that `render.py` wrote, over one background colour (sRGB in [0, 1])."""

    def __init__(self, folder: Path, background: Sequence[float]) -> None:
        self.images = np.load(folder / "images.npy")
        self.cameras = torch.from_numpy(np.load(folder / "cameras.npy"))
        self.items = json.loads((folder / "objects.json").read_text(encoding="utf-8"))
        self.background = np.asarray(background, np.float32) * 255

    def get(self, objects: list[int], quadruples: list[int]) -> tuple[Tensor, Tensor]:
        """Images (N * 4, 3, H, W) in [-1, 1] over the background, and cameras (N * 4, 16)."""
        rgba = self.images[objects, quadruples].astype(np.float32)
        rgb = rgba[..., :3] + (255 - rgba[..., 3:]) / 255 * self.background
        images = torch.from_numpy(rgb / 127.5 - 1).flatten(0, 1).permute(0, 3, 1, 2)
        return images, self.cameras[objects, quadruples].flatten(0, 1)


def diffuse(x0: Tensor, t: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy latents at per-image timesteps, and the v target (Salimans & Ho 2022)."""
    alpha_bar = alphas_cumprod[t][:, None, None, None]
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return alpha * x0 + sigma * noise, alpha * noise - sigma * x0
