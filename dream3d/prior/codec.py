"""Image codecs: images in [-1, 1] <-> latents."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dream3d.prior.decoder import add_decoder
from dream3d.prior.folder import STOCK_WEIGHTS, build_on_meta, read_tensors, shapes_of
from dream3d.prior.patch_pca import PatchPCA, load_patch_pca
from dream3d.prior.schema import VAE, check, checked, one_of, read_json


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
    "patch_pca": lambda config, folder: add_decoder(folder.parent, load_patch_pca(config, folder)),
    "AutoencoderKL": _load_autoencoder,
}


def load_codec(prior: Path) -> Codec:
    """The codec of a prior folder: ``vae``, written as diffusers does, or else ``codec`` and, if there, ``decoder``.

    Raises :class:`PriorError` for an unknown type or damaged files.
    """
    folder, key = (prior / "vae", "_class_name") if (prior / "vae").is_dir() else (prior / "codec", "type")
    config = read_json(folder / "config.json")
    return CODECS[check(config.get(key), one_of(*CODECS), key, folder / "config.json")](config, folder)
