"""The linear codec of images: patches on principal components."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from dream3d.files import write_atomically, write_json
from dream3d.prior.folder import read_tensors
from dream3d.prior.schema import PATCH_PCA, checked


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

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return self.scale.numel()

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> latents (B, channels, S / patch, S / patch); draws nothing."""
        patches = F.pixel_unshuffle(images, self.patch_size).movedim(1, -1)
        return (((patches - self.mean) @ self.basis) * self.scale).movedim(-1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, channels, h, w) -> images (B, 3, h * patch, w * patch), roughly in [-1, 1]."""
        patches = (latents.movedim(1, -1) / self.scale) @ self.basis.t() + self.mean
        return F.pixel_shuffle(patches.movedim(-1, 1), self.patch_size)


def load_patch_pca(config: dict[str, Any], folder: Path) -> PatchPCA:
    """The codec of the folder ``codec`` of a prior, whose configuration is read; PriorError for damaged files."""
    path = folder / "config.json"
    sizes = checked(config, PATCH_PCA, path, needed=PATCH_PCA)
    patch, channels = sizes["patch_size"], sizes["channels"]
    pixels = 3 * patch**2
    expected = {"basis": torch.Size([pixels, channels]), "mean": torch.Size([pixels]), "scale": torch.Size([channels])}
    tensors = read_tensors(folder / "codec.safetensors", expected, torch.float32)
    return PatchPCA(patch, **tensors)


def fit_patch_pca(images: Iterable[Tensor], patch_size: int, channels: int, whitening: float = 0.5) -> PatchPCA:
    """The linear codec of the first ``channels`` principal components of the patches of images.

    ``images`` are batches (B, 3, S, S) in [-1, 1], read once. A channel's scale is its spread to the power of minus
    ``whitening`` (with 1 all channels of the latents spread alike; with less, noise covers what is fine first), times
    what makes the mean variance of the latents 1.
    """
    pixels = 3 * patch_size**2
    count, total, squares = 0, torch.zeros(pixels).double(), torch.zeros(pixels, pixels).double()
    for batch in images:
        patches = F.pixel_unshuffle(batch, patch_size).movedim(1, -1).flatten(0, 2).double()
        count += len(patches)
        total += patches.sum(0)
        squares += patches.T @ patches
    mean = total / count
    variances, vectors = torch.linalg.eigh(squares / count - mean[:, None] * mean)
    chosen = slice(pixels - channels, pixels)  # they come in ascending order
    spread = variances[chosen].flip(0).clamp_min(1e-12).sqrt()
    scale = spread**-whitening / (spread ** (1 - whitening)).square().mean().sqrt()
    return PatchPCA(patch_size, vectors[:, chosen].flip(1).float().contiguous(), mean.float(), scale.float())


def save_patch_pca(codec: PatchPCA, folder: Path) -> None:
    """Write a linear codec as the ``codec`` folder of a prior, in place of one that may be there."""
    folder.mkdir(exist_ok=True)
    config = {"type": "patch_pca", "patch_size": codec.patch_size, "channels": codec.channels}
    write_json(folder / "config.json", config)
    write_atomically(folder / "codec.safetensors", lambda path: save_file(dict(codec.named_buffers()), path))
