"""The stock diffusers UNet of a prior folder, and the one way to call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from dream3d.prior.attention import set_attention
from dream3d.prior.folder import STOCK_WEIGHTS, build_on_meta, known_arguments, read_json, read_tensors, shapes_of
from dream3d.prior.layout import AttentionKind


class CameraEmbedding(nn.Module):
    """MVDream's camera network (Linear, SiLU, Linear): diffusers' projection class embedding, which may be left out."""

    def __init__(self, stock: Any) -> None:
        """Takes over the layers of diffusers' ``TimestepEmbedding``, by the same names."""
        super().__init__()
        self.linear_1, self.act, self.linear_2 = stock.linear_1, stock.act, stock.linear_2

    def forward(self, cameras: Tensor) -> Tensor:
        """(N, 16) camera poses -> (N, width) added to the time embedding; (N, 0), no camera, adds zeros.

        In image mode the network is skipped: what it gives for a pose of zeros would still be added.
        """
        if cameras.shape[1] == 0:
            return cameras.new_zeros(len(cameras), self.linear_2.out_features)
        return self.linear_2(self.act(self.linear_1(cameras)))


def prepare_unet(unet: UNet2DConditionModel, attention: AttentionKind) -> UNet2DConditionModel:
    """Turn a stock UNet into a multi-view one, in place: its attention, and a camera network that may be left out."""
    set_attention(unet, attention)
    if unet.class_embedding is not None:
        unet.class_embedding = CameraEmbedding(unet.class_embedding)
    return unet


def call_unet(
    network: Any, x_t: Tensor, timesteps: Tensor, text: Tensor, cameras: Tensor | None, views: int = 1
) -> Tensor:
    """The network's output (N, C, h, w) for noisy latents of that shape, timesteps (N,) and token states (N, T, W).

    ``cameras`` (N, 16), or None for image mode. Groups of ``views`` consecutive images are of one object.
    ``network`` is a UNet of :func:`prepare_unet`, or something around it (compiled, distributed).
    """
    return network(
        x_t,
        timesteps,
        text,
        class_labels=x_t.new_zeros(len(x_t), 0) if cameras is None else cameras,
        cross_attention_kwargs={"num_views": views},
        return_dict=False,
    )[0]


def unet_skeleton(folder: Path) -> UNet2DConditionModel:
    """The network that ``config.json`` of a folder describes, without memory for its weights."""
    config_path = folder / "config.json"
    arguments = known_arguments(UNet2DConditionModel, read_json(config_path))
    return build_on_meta(lambda: UNet2DConditionModel(**arguments), config_path)


def load_unet(folder: Path, dtype: torch.dtype, attention: AttentionKind = "3d") -> UNet2DConditionModel:
    """The frozen UNet of a folder with one kind of attention; every tensor of the file is accounted for."""
    unet = unet_skeleton(folder)
    with torch.device("meta"):
        prepare_unet(unet, attention)
    unet.load_state_dict(read_tensors(folder / STOCK_WEIGHTS, shapes_of(unet), dtype), assign=True)
    return unet.requires_grad_(False).eval()
