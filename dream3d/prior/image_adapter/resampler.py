"""Features of a picture to a few tokens: a Perceiver resampler (Alayrac et al. 2022; IP-Adapter's, as in MV-RAG)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dream3d.prior.attention import split_heads
from dream3d.prior.image_adapter.config import AdapterConfig


class PerceiverAttention(nn.Module):
    """Queries that look at the features and at themselves, without biases; names and layout as in official weights."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        """Keys first, then values."""
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """(N, M, dim) features and (N, Q, dim) queries -> (N, Q, dim); attention over M + Q keys, features first."""
        features, latents = self.norm1(features), self.norm2(latents)
        query = split_heads(self.to_q(latents), self.heads)
        both = self.to_kv(torch.cat([features, latents], dim=1))
        key, value = (split_heads(part, self.heads) for part in both.chunk(2, dim=-1))
        scale = query.shape[-1] ** -0.25  # on both sides: half precision overflows later
        weights = ((query * scale) @ (key * scale).transpose(-2, -1)).float().softmax(-1).to(value.dtype)
        attended: Tensor = self.to_out((weights @ value).transpose(1, 2).flatten(2))
        return attended


def _feedforward(dim: int, factor: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, factor * dim, bias=False),
        nn.GELU(),
        nn.Linear(factor * dim, dim, bias=False),
    )


class Resampler(nn.Module):
    """(K, M, feature_width) -> (K, queries, token_width), each picture by itself."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        dim = config.dim
        self.latents = nn.Parameter(torch.randn(1, config.queries, dim) / dim**0.5)
        if config.positions:
            self.positions = nn.Parameter(torch.zeros(1, config.positions, config.feature_width))
        self.proj_in = nn.Linear(config.feature_width, dim)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [PerceiverAttention(dim, config.heads, config.head_dim), _feedforward(dim, config.feedforward)]
            )
            for _ in range(config.depth)
        )
        self.proj_out = nn.Linear(dim, config.token_width)
        self.norm_out = nn.LayerNorm(config.token_width)
        self.has_positions = config.positions > 0

    def forward(self, features: Tensor) -> Tensor:
        """See the class. Raises RuntimeError for another number of features than there are learnt places."""
        if self.has_positions:
            features = features + self.positions
        features = self.proj_in(features)
        latents = self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            attention, feedforward = layer
            latents = latents + attention(features, latents)
            latents = latents + feedforward(latents)
        tokens: Tensor = self.norm_out(self.proj_out(latents))
        return tokens
