"""The stock diffusers UNet of a prior folder, and the one way to call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from dream3d.prior.attention import set_attention
from dream3d.prior.folder import STOCK_WEIGHTS, build_on_meta, known_arguments, read_json, read_tensors, shapes_of
from dream3d.prior.layout import AttentionKind


class MultiViewUNet(UNet2DConditionModel):  # type: ignore[misc]  # untyped library
    """The stock network, whose camera network (diffusers' projection class embedding) may be left out of a call."""

    def get_class_embed(self, sample: Tensor, class_labels: Tensor | None) -> Tensor | None:
        """Camera poses (N, 16) -> what is added to the time embedding; None for no camera, in image mode.

        The network is then skipped: what it gives for a pose of zeros would still be added.
        """
        return None if class_labels is None else super().get_class_embed(sample, class_labels)


def call_unet(
    network: Any, x_t: Tensor, timesteps: Tensor, text: Tensor, cameras: Tensor | None, views: int = 1
) -> Tensor:
    """The network's output (N, C, h, w) for noisy latents of that shape, timesteps (N,) and token states (N, T, W).

    ``cameras`` (N, 16), or None for image mode. Groups of ``views`` consecutive images are of one object.
    ``network`` is a :class:`MultiViewUNet`, or something around it (compiled, distributed).
    """
    return network(
        x_t,
        timesteps,
        text,
        class_labels=cameras,
        cross_attention_kwargs={"num_views": views},
        return_dict=False,
    )[0]


def unet_skeleton(folder: Path) -> MultiViewUNet:
    """The network that ``config.json`` of a folder describes, without memory for its weights."""
    config_path = folder / "config.json"
    arguments = known_arguments(UNet2DConditionModel, read_json(config_path))
    return build_on_meta(lambda: MultiViewUNet(**arguments), config_path)


def load_unet(folder: Path, dtype: torch.dtype, attention: AttentionKind = "3d") -> MultiViewUNet:
    """The frozen UNet of a folder with one kind of attention; every tensor of the file is accounted for."""
    unet = unet_skeleton(folder)
    with torch.device("meta"):
        set_attention(unet, attention)
    unet.load_state_dict(read_tensors(folder / STOCK_WEIGHTS, shapes_of(unet), dtype), assign=True)
    return unet.requires_grad_(False).eval()
