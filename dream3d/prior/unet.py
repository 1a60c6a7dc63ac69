"""The stock diffusers UNet of a prior folder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from dream3d.prior.attention import set_attention
from dream3d.prior.folder import STOCK_WEIGHTS, build_on_meta, known_arguments, read_json, read_tensors, shapes_of


def unet_skeleton(folder: Path) -> UNet2DConditionModel:
    """The network that ``config.json`` of a folder describes, without memory for its weights."""
    config_path = folder / "config.json"
    arguments = known_arguments(UNet2DConditionModel, read_json(config_path))
    return build_on_meta(lambda: UNet2DConditionModel(**arguments), config_path)


def load_unet(folder: Path, dtype: torch.dtype, attention: str = "3d") -> UNet2DConditionModel:
    """The frozen UNet of a folder with one kind of attention; every tensor of the file is accounted for."""
    unet = unet_skeleton(folder)
    with torch.device("meta"):
        set_attention(unet, attention)
    unet.load_state_dict(read_tensors(folder / STOCK_WEIGHTS, shapes_of(unet), dtype), assign=True)
    return unet.requires_grad_(False).eval()
