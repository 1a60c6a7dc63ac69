"""A linear codec whose images a small convolutional network makes cleaner: Stable Diffusion's decoder, in miniature.

What a linear decoder makes of latents that are not quite right is speckle: every patch of pixels is drawn by itself.
The network sees the patches around, and is trained on the prior's own predictions (``task = "decoder"``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import Decoder
from torch import Tensor

from dream3d.files import write_atomically, write_json
from dream3d.prior.compact import pack
from dream3d.prior.folder import STOCK_WEIGHTS, build_on_meta, read_tensors, shapes_of
from dream3d.prior.patch_pca import PatchPCA
from dream3d.prior.schema import DECODER, checked, read_json

FOLDER = "decoder"
"""Of a prior's folder, beside ``codec``."""


class DecodedPatchPCA(PatchPCA):
    """A linear codec that decodes by its own transpose plus what a network adds; its encoder is the linear one."""

    def __init__(self, linear: PatchPCA, network: Decoder) -> None:
        super().__init__(linear.patch_size, linear.basis, linear.mean, linear.scale)
        self.network = network

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, channels, h, w) -> images (B, 3, h * patch, w * patch), roughly in [-1, 1]; differentiable."""
        added = F.pixel_shuffle(self.network(latents), math.isqrt(self.network.conv_out.out_channels // 3))
        return super().decode(latents) + added


def decoder_network(arguments: Mapping[str, Any], channels: int, patch_size: int) -> Decoder:
    """The network that a configuration describes, for latents of ``channels``; ValueError if it does not fit."""
    widths, block = arguments["block_out_channels"], arguments["pixel_shuffle"]
    enlarged = 2 ** (len(widths) - 1) * block
    if enlarged != patch_size:
        raise ValueError(f"{len(widths)} levels and pixel_shuffle {block} enlarge {enlarged} times, not {patch_size}")
    return Decoder(
        in_channels=channels,
        out_channels=3 * block**2,
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=arguments["layers_per_block"],
        norm_num_groups=arguments["norm_num_groups"],
        mid_block_add_attention=False,
    )


def add_decoder(prior: Path, linear: PatchPCA) -> PatchPCA:
    """The codec with the decoder of a prior's folder, or as it is if there is none; PriorError for damaged files."""
    folder = prior / FOLDER
    if not folder.is_dir():
        return linear
    path = folder / "config.json"
    arguments = checked(read_json(path), DECODER, path, needed=DECODER)

    def build() -> Decoder:
        network = decoder_network(arguments, linear.channels, linear.patch_size)
        network(torch.empty(1, linear.channels, 2, 2))  # sizes that do not fit show before weights are read
        return network

    network = build_on_meta(build, path)
    tensors = read_tensors(folder / STOCK_WEIGHTS, shapes_of(network), torch.float32)
    network.load_state_dict(tensors, assign=True)
    return DecodedPatchPCA(linear, network.requires_grad_(False).eval())


def save_decoder(arguments: Mapping[str, Any], weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write a decoder, its matrices in eight bits, as a new folder; of ``arguments`` those that are its sizes."""
    from safetensors.torch import save_file

    folder.mkdir()
    sizes = {name: value for name, value in arguments.items() if name in DECODER}
    write_json(folder / "config.json", {"_class_name": "Decoder", **sizes})
    packed = {name: value.contiguous() for name, value in pack(weights).items()}
    write_atomically(folder / STOCK_WEIGHTS, lambda path: save_file(packed, path))
