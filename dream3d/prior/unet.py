"""The stock diffusers UNet of a prior folder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from dream3d.prior.attention import MultiViewAttention
from dream3d.prior.folder import STOCK_WEIGHTS, build_on_meta, known_arguments, read_json, read_tensors, shapes_of


def unet_skeleton(folder: Path) -> UNet2DConditionModel:
    """The network that ``config.json`` of a folder describes, without memory for its weights."""
    config_path = folder / "config.json"
    arguments = known_arguments(UNet2DConditionModel, read_json(config_path))
    return build_on_meta(lambda: UNet2DConditionModel(**arguments), config_path)


def load_unet(folder: Path, dtype: torch.dtype) -> UNet2DConditionModel:
    """The frozen UNet of a folder with multi-view attention; every tensor of the file is accounted for."""
    unet = unet_skeleton(folder)
    unet.load_state_dict(read_tensors(folder / STOCK_WEIGHTS, shapes_of(unet), dtype), assign=True)
    unet.set_attn_processor(MultiViewAttention())
    return unet.requires_grad_(False).eval()
