"""An image encoder and an image adapter with random weights for the tiny prior."""

from __future__ import annotations

from pathlib import Path

import torch

from dream3d.prior.image_adapter.adapter import ImageAdapter, layer_channels
from dream3d.prior.image_adapter.config import AdapterConfig
from dream3d.prior.image_adapter.folder import save_adapter
from dream3d.prior.image_encoder import EncoderConfig, Towers, save_towers
from dream3d.prior.unet import unet_skeleton

ENCODER = EncoderConfig(image_size=16, channels=(8, 8), dim=6, text_width=12)
"""Its features are 4 x 4 places of width 8."""
ADAPTER = AdapterConfig(
    encoder="contrastive",
    feature_width=8,
    positions=16,
    dim=12,
    depth=1,
    heads=2,
    head_dim=4,
    queries=3,
    token_width=12,
    padding=(1.0, 1.0, 1.0),
)


def write_tiny_encoder(prior: Path) -> None:
    """Give a tiny prior an image encoder."""
    torch.manual_seed(1)
    (prior / "image_encoder").mkdir()
    save_towers(Towers(ENCODER), prior / "image_encoder")


def write_tiny_adapter(prior: Path, config: AdapterConfig = ADAPTER) -> Path:
    """Give a tiny prior an image encoder, if it has none, and an image adapter; returns the prior's folder."""
    if not (prior / "image_encoder").exists():
        write_tiny_encoder(prior)
    torch.manual_seed(2)
    adapter = ImageAdapter(config, layer_channels(unet_skeleton(prior / "unet")))
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    (prior / "image_adapter").mkdir()
    save_adapter(adapter, prior / "image_adapter", {"licence_weights": "CC0-1.0"})
    return prior
