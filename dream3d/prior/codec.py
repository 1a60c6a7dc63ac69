"""Image codecs: images in [-1, 1] <-> latents. A registry of one; the VAE joins with the full-size prior."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream3d.errors import PriorError
from dream3d.prior.folder import read_json, read_tensors


class PatchPCA(nn.Module):
    """Linear codec: each patch of pixels is projected on principal components and scaled per channel.

    z = ((unshuffle(x) - mean) @ basis) * scale, per position; decoding is the exact transpose. It costs
    nothing next to the UNet and its gradients are clean (a trained VAE at this size cost ten times it).
    """

    def __init__(self, patch_size: int, basis: Tensor, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.basis: Tensor
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("basis", basis)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> latents (B, channels, S / patch, S / patch)."""
        patches = F.pixel_unshuffle(images, self.patch_size).movedim(1, -1)
        return (((patches - self.mean) @ self.basis) * self.scale).movedim(-1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, channels, h, w) -> images (B, 3, h * patch, w * patch), roughly in [-1, 1]."""
        patches = (latents.movedim(1, -1) / self.scale) @ self.basis.t() + self.mean
        return F.pixel_shuffle(patches.movedim(-1, 1), self.patch_size)


def _load_patch_pca(config: dict[str, Any], folder: Path) -> PatchPCA:
    patch, channels = config.get("patch_size"), config.get("channels")
    if not (
        isinstance(patch, int) and isinstance(channels, int) and 1 <= patch <= 64 and 1 <= channels <= 3 * patch**2
    ):
        raise PriorError(f"{folder / 'config.json'}: patch_size {patch!r} and channels {channels!r} do not fit")
    pixels = 3 * patch**2
    expected = {"basis": torch.Size([pixels, channels]), "mean": torch.Size([pixels]), "scale": torch.Size([channels])}
    tensors = read_tensors(folder / "codec.safetensors", expected, torch.float32)
    return PatchPCA(patch, **tensors)


CODECS: dict[str, Callable[[dict[str, Any], Path], PatchPCA]] = {"patch_pca": _load_patch_pca}


def load_codec(folder: Path) -> PatchPCA:
    """The codec in a prior's ``codec`` folder; :class:`PriorError` for an unknown type or damaged files."""
    config = read_json(folder / "config.json")
    kind = config.get("type")
    if kind not in CODECS:
        raise PriorError(f"{folder / 'config.json'}: unknown codec type {kind!r}; known: {', '.join(CODECS)}")
    return CODECS[kind](config, folder)
