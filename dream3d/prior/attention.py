"""MVDream's one change to the UNet: self-attention sees all views of an object (facts 1.3).

The other kinds are those that the paper compares it with. Cross-attention stays per image in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn


class MultiViewAttention:
    """Attention processor for a stock ``UNet2DConditionModel``.

    Self-attention (no ``encoder_hidden_states``) joins the tokens of ``num_views`` consecutive images:
    (objects * views, L, C) is attended as (objects, views * L, C). Cross-attention stays per image.
    ``num_views`` arrives through ``cross_attention_kwargs``; 1 gives plain attention, bit for bit.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        num_views: int = 1,
    ) -> Tensor:
        """(objects * views, L, C) -> the same shape; raises ValueError if the batch is no multiple of the views."""
        batch, tokens, channels = hidden_states.shape
        if encoder_hidden_states is None:
            if batch % num_views:
                raise ValueError(f"a batch of {batch} images is not a multiple of {num_views} views")
            hidden_states = hidden_states.reshape(batch // num_views, num_views * tokens, channels)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            project(source).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project, source in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        output: Tensor = attn.to_out[1](attn.to_out[0](attended))
        return output.reshape(batch, tokens, channels)


class PerViewAttention(MultiViewAttention):
    """Plain attention whatever the number of views: they know of each other by the text alone."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        num_views: int = 1,
    ) -> Tensor:
        """(images, L, C) -> the same shape."""
        return super().__call__(attn, hidden_states, encoder_hidden_states)


class TemporalAttention(nn.Module):
    """Plain attention in each view, then a new attention over the views at the same position, added to it.

    The new layer's weights lie in the network's state under ``attn1.processor``. Its output projection starts at
    zero, so that a network to which it is added computes the same as before. One view (image mode) passes it by.
    """

    def __init__(self, channels: int, heads: int) -> None:
        """``channels`` of the tokens, in so many ``heads``."""
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.to_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)

    # diffusers reads the names of the arguments here; nn.Module's own would hide ``num_views`` from it.
    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        num_views: int = 1,
    ) -> Tensor:
        """(objects * views, L, C) -> the same shape; raises ValueError if the batch is no multiple of the views."""
        output = MultiViewAttention()(attn, hidden_states, encoder_hidden_states)
        if num_views == 1 or encoder_hidden_states is not None:
            return output
        if len(output) % num_views:
            raise ValueError(f"a batch of {len(output)} images is not a multiple of {num_views} views")
        tokens = output.unflatten(0, (-1, num_views)).transpose(1, 2)  # (objects, L, views, C)
        query, key, value = (
            project(tokens).unflatten(-1, (self.heads, -1)).transpose(2, 3)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(2, 3).flatten(3)
        return output + self.to_out(attended).transpose(1, 2).flatten(0, 1)


def _temporal(unet: UNet2DConditionModel) -> dict[str, Any]:
    """New layers for the self-attentions (``attn1`` of every block), plain attention for the others."""
    layers = {name: unet.get_submodule(name.removesuffix(".processor")) for name in unet.attn_processors}
    return {
        name: TemporalAttention(layer.to_q.in_features, layer.heads) if ".attn1." in name else MultiViewAttention()
        for name, layer in layers.items()
    }


ATTENTION: dict[str, Callable[[UNet2DConditionModel], Any]] = {
    "3d": lambda unet: MultiViewAttention(),
    "2d": lambda unet: PerViewAttention(),
    "temporal": _temporal,
}
"""By the name in ``prior.json``: what ``UNet2DConditionModel.set_attn_processor`` takes."""


def set_attention(unet: UNet2DConditionModel, kind: str) -> UNet2DConditionModel:
    """Give a stock UNet one of the kinds in :data:`ATTENTION`, in place; new layers are made on the default device."""
    unet.set_attn_processor(ATTENTION[kind](unet))
    return unet
