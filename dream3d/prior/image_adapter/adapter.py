"""The weights that make a text prior read pictures: a resampler, and projections for every cross-attention layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from dream3d.prior.attention import cross_layers, split_heads
from dream3d.prior.image_adapter.config import AdapterConfig
from dream3d.prior.image_adapter.resampler import Resampler


class Projections(nn.Module):
    """Of one cross-attention layer: pictures' tokens to keys and values, beside the text's own."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(width, channels, bias=False)
        self.to_v_ip = nn.Linear(width, channels, bias=False)


class ImageAdapter(nn.Module):
    """All that MV-RAG adds to a multi-view network, which itself stays as it is."""

    def __init__(self, config: AdapterConfig, channels: Mapping[str, int]) -> None:
        """``channels`` of each cross-attention layer by its name, see :func:`layer_channels`."""
        super().__init__()
        self.config = config
        self.resampler = Resampler(config)
        # A module's name may hold no dots.
        self.layers = nn.ModuleDict(
            {name.replace(".", "/"): Projections(config.token_width, width) for name, width in channels.items()}
        )

    def tokens(self, features: Tensor) -> Tensor:
        """(K, M, feature_width) of K pictures -> (1, K * queries, token_width).

        The order of the pictures means nothing to what looks at the tokens.
        """
        resampled: Tensor = self.resampler(features)
        return resampled.flatten(0, 1)[None]

    def keys(self, layer: str, tokens: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """(B, M, token_width) -> keys and values (B, heads, M, D) of a cross-attention layer."""
        own = self.layers[layer.replace(".", "/")]
        assert isinstance(own, Projections)
        return split_heads(own.to_k_ip(tokens), heads), split_heads(own.to_v_ip(tokens), heads)

    @torch.no_grad()
    def start_from(self, unet: UNet2DConditionModel) -> None:
        """Let the projections begin as those of the text, as IP-Adapter's do (Ye et al. 2023)."""
        for name, layer in cross_layers(unet).items():
            own = self.layers[name.replace(".", "/")]
            assert isinstance(own, Projections)
            own.to_k_ip.weight.copy_(layer.to_k.weight)
            own.to_v_ip.weight.copy_(layer.to_v.weight)


def layer_channels(unet: UNet2DConditionModel) -> dict[str, int]:
    """Channels of a network's cross-attention layers by name: the rows of their keys."""
    return {name: layer.to_k.out_features for name, layer in cross_layers(unet).items()}
