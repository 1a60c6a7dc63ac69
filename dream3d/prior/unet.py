"""The stock diffusers UNet of a prior folder, and the one way to call it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from dream3d.prior.attention import Context, set_attention
from dream3d.prior.folder import STOCK_WEIGHTS, build_on_meta, read_tensors, shapes_of
from dream3d.prior.layout import PACKAGED, AttentionKind
from dream3d.prior.schema import UNET, checked, read_json


class MultiViewUNet(UNet2DConditionModel):  # type: ignore[misc]  # untyped library
    """The stock network, whose camera network (diffusers' projection class embedding) may be left out of a call."""

    def get_class_embed(self, sample: Tensor, class_labels: Tensor | None) -> Tensor | None:
        """Camera poses (N, 16) -> what is added to the time embedding; None for no camera, in image mode.

        The network is then skipped: what it gives for a pose of zeros would still be added.
        """
        return None if class_labels is None else super().get_class_embed(sample, class_labels)


def call_unet(
    network: Any,
    x_t: Tensor,
    timesteps: Tensor,
    text: Tensor,
    cameras: Tensor | None,
    views: int = 1,
    keys: Context | None = None,
) -> Tensor:
    """The network's output (N, C, h, w) for noisy latents of that shape, timesteps (N,) and token states (N, T, W).

    ``cameras`` (N, 16), or None for image mode. Groups of ``views`` consecutive images are of one object.
    ``network`` is a :class:`MultiViewUNet`, or something around it (compiled, distributed). ``keys`` are what its
    cross-attention looks at, instead of ``text`` or beside it: see :class:`dream3d.prior.attention.ContextKeys`.
    """
    seen = {"num_views": views} if keys is None else {"num_views": views, "keys": keys}
    return network(
        x_t,
        timesteps,
        text,
        class_labels=cameras,
        cross_attention_kwargs=seen,
        return_dict=False,
    )[0]


def unet_skeleton(folder: Path, attention: AttentionKind = "3d") -> MultiViewUNet:
    """The network that ``config.json`` of a folder describes, without memory for its weights, and able to run."""
    path = folder / "config.json"
    arguments = checked(read_json(path), UNET, path, UNet2DConditionModel)

    def build() -> MultiViewUNet:
        if PACKAGED not in path.resolve().parents:
            _run_once(json.dumps(arguments), attention)
        return set_attention(MultiViewUNet(**arguments), attention)

    return build_on_meta(build, path)


@functools.lru_cache(maxsize=16)
def _run_once(arguments: str, attention: AttentionKind) -> None:
    """Run a network on tensors without memory: sizes that do not fit show before weights are read."""
    unet = set_attention(MultiViewUNet(**json.loads(arguments)), attention)
    config = unet.config
    x_t = torch.empty(2, config.in_channels, config.sample_size, config.sample_size)
    text, cameras = torch.empty(2, 2, config.cross_attention_dim), torch.empty(2, 16)
    if call_unet(unet, x_t, torch.empty(2), text, cameras, views=2).shape != x_t.shape:
        raise ValueError(f"{config.in_channels} channels go in and {config.out_channels} come out")


def load_unet(folder: Path, dtype: torch.dtype, attention: AttentionKind = "3d") -> MultiViewUNet:
    """The frozen UNet of a folder with one kind of attention; every tensor of the file is accounted for."""
    unet = unet_skeleton(folder, attention)
    unet.load_state_dict(read_tensors(folder / STOCK_WEIGHTS, shapes_of(unet), dtype), assign=True)
    return unet.requires_grad_(False).eval()
