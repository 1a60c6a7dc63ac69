"""Image codecs: images in [-1, 1] <-> latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from dream3d.errors import PriorError
from dream3d.prior.folder import STOCK_WEIGHTS, build_on_meta, known_arguments, read_json, read_tensors, shapes_of


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

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae.config.latent_channels)

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> latents (B, channels, S / 8, S / 8), differentiable.

        z = (mean + std * noise) * scale (docs/method.md, Guidance); the noise is drawn where the generator is, so
        that a seed means the same on every device. Without a generator the posterior's mean is taken.
        """
        posterior = self.vae.encode(images).latent_dist
        if generator is None:
            return posterior.mean * self.scale
        noise = torch.randn(posterior.mean.shape, generator=generator, device=generator.device)
        return (posterior.mean + posterior.std * noise.to(posterior.mean)) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, channels, h, w) -> images (B, 3, 8 h, 8 w), roughly in [-1, 1]."""
        images: Tensor = self.vae.decode(latents / self.scale).sample
        return images

    def set_slicing(self, on: bool) -> None:
        """Pass images one by one: less memory at once, the same images."""
        if on:
            self.vae.enable_slicing()
        else:
            self.vae.disable_slicing()


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


def vae_skeleton(config: dict[str, Any], path: Path) -> AutoencoderKL:
    """The network that a configuration describes, without memory for its weights; errors name ``path``."""
    return build_on_meta(lambda: AutoencoderKL(**known_arguments(AutoencoderKL, config)), path)


def _load_autoencoder(config: dict[str, Any], folder: Path) -> AutoencoderCodec:
    """In float32 on every device: its activations can leave the range of half precision."""
    scale = config.get("scaling_factor", 0.18215)
    if not isinstance(scale, int | float) or not 1e-3 < scale < 1e3:
        raise PriorError(f"{folder / 'config.json'}: 'scaling_factor' is {scale!r}, not a number from 0.001 to 1000")
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
    kind = config.get(key)
    if kind not in CODECS:
        raise PriorError(f"{folder / 'config.json'}: unknown codec type {kind!r}; known: {', '.join(CODECS)}")
    return CODECS[kind](config, folder)
