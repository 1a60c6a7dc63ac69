"""Image codecs: images in [-1, 1] <-> latents."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dream3d.files import write_atomically, write_json
from dream3d.prior.folder import STOCK_WEIGHTS, build_on_meta, read_tensors, shapes_of
from dream3d.prior.schema import PATCH_PCA, VAE, check, checked, one_of, read_json


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


class AutoencoderCodec(nn.Module):
    """Stable Diffusion's variational autoencoder; latents are samples of its posterior times a scale."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae
        self.scale = float(vae.config.scaling_factor)
        self.sliced = False

    @property
    def patch_size(self) -> int:
        """Pixels along the side of what becomes one place of the latents."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae.config.latent_channels)

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> latents (B, channels, S / 8, S / 8), differentiable.

        z = (mean + std * noise) * scale (docs/method.md, Guidance); the noise is drawn where the generator is, so
        that a seed means the same on every device. Without a generator the posterior's mean is taken.
        """
        if self.sliced:  # for the backward pass the images alone are kept; it encodes each of them again
            parts = [checkpoint(self._moments, image, use_reentrant=False) for image in images.split(1)]
            posterior = DiagonalGaussianDistribution(torch.cat(parts))
        else:
            posterior = DiagonalGaussianDistribution(self._moments(images))
        if generator is None:
            return posterior.mean * self.scale
        noise = torch.randn(posterior.mean.shape, generator=generator, device=generator.device)
        return (posterior.mean + posterior.std * noise.to(posterior.mean)) * self.scale

    def _moments(self, images: Tensor) -> Tensor:
        return self.vae.encode(images).latent_dist.parameters

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, channels, h, w) -> images (B, 3, 8 h, 8 w), roughly in [-1, 1]."""
        images: Tensor = self.vae.decode(latents / self.scale).sample
        return images

    def set_slicing(self, on: bool) -> None:
        """Pass images one by one, each again in the backward pass: much less memory, more time, the same images."""
        self.sliced = on
        if on:
            self.vae.enable_slicing()
        else:
            self.vae.disable_slicing()


def _load_patch_pca(config: dict[str, Any], folder: Path) -> PatchPCA:
    path = folder / "config.json"
    sizes = checked(config, PATCH_PCA, path, needed=PATCH_PCA)
    patch, channels = sizes["patch_size"], sizes["channels"]
    pixels = 3 * patch**2
    expected = {"basis": torch.Size([pixels, channels]), "mean": torch.Size([pixels]), "scale": torch.Size([channels])}
    tensors = read_tensors(folder / "codec.safetensors", expected, torch.float32)
    return PatchPCA(patch, **tensors)


def vae_skeleton(config: dict[str, Any], path: Path) -> AutoencoderKL:
    """The network that a configuration describes, without memory for its weights; errors name ``path``."""
    arguments = checked(config, VAE, path, AutoencoderKL)

    def build() -> AutoencoderKL:
        _run_once(json.dumps(arguments))
        return AutoencoderKL(**arguments)

    return build_on_meta(build, path)


@functools.lru_cache(maxsize=16)
def _run_once(arguments: str) -> None:
    """Run a network on tensors without memory: sizes that do not fit show before weights are read."""
    codec = AutoencoderCodec(AutoencoderKL(**json.loads(arguments)))
    images = torch.empty(1, 3, 4 * codec.patch_size, 4 * codec.patch_size)
    if codec.decode(codec.encode(images)).shape != images.shape:
        raise ValueError("other images come out than went in")


def _load_autoencoder(config: dict[str, Any], folder: Path) -> AutoencoderCodec:
    """In float32 on every device: its activations can leave the range of half precision."""
    vae = vae_skeleton(config, folder / "config.json")
    vae.load_state_dict(read_tensors(folder / STOCK_WEIGHTS, shapes_of(vae), torch.float32), assign=True)
    return AutoencoderCodec(vae.requires_grad_(False).eval())


Codec = PatchPCA | AutoencoderCodec
CODECS: dict[str, Callable[[dict[str, Any], Path], Codec]] = {
    "patch_pca": _load_patch_pca,
    "AutoencoderKL": _load_autoencoder,
}


def load_codec(prior: Path) -> Codec:
    """The codec of a prior folder: its ``vae`` folder, written as diffusers does, or else its ``codec`` folder.

    Raises :class:`PriorError` for an unknown type or damaged files.
    """
    folder, key = (prior / "vae", "_class_name") if (prior / "vae").is_dir() else (prior / "codec", "type")
    config = read_json(folder / "config.json")
    return CODECS[check(config.get(key), one_of(*CODECS), key, folder / "config.json")](config, folder)


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
