"""Attention of the UNet on two axes: how a view sees the other views, and how it sees the text.

MVDream's one change to Stable Diffusion's network is that self-attention sees all views of an object (Shi et al. 2023,
section 3.1). The other kinds of self-attention are those that the paper compares it with. Cross-attention stays per
image in all of them. Tokens of pictures, if there are any, are a second cross-attention beside the text's (MV-RAG,
Dayani et al. 2025, section 3.3); its keys and values are made outside the network, which therefore stays the stock one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from dream3d.prior.layout import AttentionKind

DotProduct = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries (B, heads, L, D), keys and values (B, heads, M, D) -> (B, heads, L, D)."""


def fused_dot_product(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k / sqrt(D)) v by torch's fused kernel."""
    return F.scaled_dot_product_attention(query, key, value)


def plain_dot_product(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same by two matrix products, whose backward is faster in bf16 on CPUs."""
    return (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(-1) @ value


def attend(layer: Any, tokens: Tensor, context: Tensor, dot_product: DotProduct = fused_dot_product) -> Tensor:
    """(B, L, C) tokens that look at a context (B, M, W) -> (B, L, C), before the output projection.

    ``layer`` has the projections ``to_q``, ``to_k``, ``to_v`` and a number of ``heads``.
    """
    query = split_heads(layer.to_q(tokens), layer.heads)
    return _merge_heads(dot_product(query, *keys_and_values(layer, context)))


class ContextKeys(NamedTuple):
    """What a cross-attention layer looks at: keys and values (B, heads, M, D), B its batch of queries."""

    text: tuple[Tensor, Tensor] | None
    """None: the layer makes them itself."""
    images: tuple[Tensor, Tensor] | None = None
    """Of pictures' tokens, by projections that are no part of the network; None without pictures."""
    text_weight: float = 1.0
    """Factor on what is seen of the text, where there are images."""
    image_weight: float = 1.0


Context = Mapping[str, ContextKeys]
"""By the names of the cross-attention layers, as in :func:`cross_layers`."""


def keys_and_values(layer: Any, context: Tensor) -> tuple[Tensor, Tensor]:
    """(B, M, W) -> keys and values (B, heads, M, D) of a layer with ``to_k``, ``to_v`` and a number of ``heads``."""
    return split_heads(layer.to_k(context), layer.heads), split_heads(layer.to_v(context), layer.heads)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, M, heads * D) -> (B, heads, M, D)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(-3, -2)


def _merge_heads(attended: Tensor) -> Tensor:
    return attended.transpose(-3, -2).flatten(-2)


def cross_layers(unet: UNet2DConditionModel) -> dict[str, Attention]:
    """The cross-attention layers of a stock UNet by name, such as ``mid_block.attentions.0...attn2``, in its order."""
    names = [name.removesuffix(".processor") for name in unet.attn_processors if ".attn2." in name]
    return {name: unet.get_submodule(name) for name in names}


def _group(tokens: Tensor, views: int) -> Tensor:
    """(objects * views, L, C) -> (objects, views * L, C); ValueError if the batch is no multiple of the views."""
    if len(tokens) % views:
        raise ValueError(f"a batch of {len(tokens)} images is not a multiple of {views} views")
    return tokens.reshape(len(tokens) // views, views * tokens.shape[1], tokens.shape[2])


@dataclass(frozen=True)
class SelfAttention:
    """Processor of a stock network's self-attention layer: (objects * views, L, C) -> the same shape.

    With ``joint`` the tokens of ``num_views`` consecutive images are attended together; otherwise each image is by
    itself. ``num_views`` arrives through ``cross_attention_kwargs``; 1 gives plain attention, bit for bit.
    """

    joint: bool = True
    dot_product: DotProduct = fused_dot_product

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        num_views: int = 1,
        keys: Context | None = None,
    ) -> Tensor:
        """Raises ValueError if the batch is no multiple of the views. ``keys`` are for the cross-attention."""
        tokens = _group(hidden_states, num_views if self.joint else 1)
        return _project(attn, attend(attn, tokens, tokens, self.dot_product), hidden_states)


@dataclass(frozen=True)
class CrossAttention:
    """Processor of a stock network's cross-attention layer: images (N, L, C) and their text (N, T, W) -> (N, L, C).

    With ``per_object``, keys and values of the text are computed once for the ``num_views`` images of an object, which
    then must share their text.
    """

    per_object: bool = False
    dot_product: DotProduct = fused_dot_product
    layer: str = ""
    """Name of the layer, by which it finds its part of the ``keys``."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        num_views: int = 1,
        keys: Context | None = None,
    ) -> Tensor:
        """``text_weight * f_text + image_weight * f_images`` before the output projection (MV-RAG, section 3.3).

        Without ``keys``, or without images in them, it is the stock layer, bit for bit, whatever the weights. ``keys``
        have a row for each row of queries: for each object with ``per_object``, else for each image. Raises ValueError
        if the batch is no multiple of the views.
        """
        views = num_views if self.per_object else 1
        tokens = _group(hidden_states, views)
        own = ContextKeys(None) if keys is None else keys[self.layer]
        query = split_heads(attn.to_q(tokens), attn.heads)
        attended = self.dot_product(query, *(own.text or keys_and_values(attn, encoder_hidden_states[::views])))
        if own.images is not None:
            pictured = self.dot_product(query, *own.images)
            attended = own.text_weight * attended + own.image_weight * pictured
        return _project(attn, _merge_heads(attended), hidden_states)


def _project(attn: Attention, attended: Tensor, hidden_states: Tensor) -> Tensor:
    """The layer's output projection and dropout, in the shape of its input."""
    return attn.to_out[1](attn.to_out[0](attended)).reshape(hidden_states.shape)


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
        keys: Context | None = None,
    ) -> Tensor:
        """(objects * views, L, C) -> the same shape; raises ValueError if the batch is no multiple of the views."""
        output = SelfAttention(joint=False)(attn, hidden_states)
        if num_views == 1:
            return output
        if len(output) % num_views:
            raise ValueError(f"a batch of {len(output)} images is not a multiple of {num_views} views")
        tokens = output.unflatten(0, (-1, num_views)).transpose(1, 2)  # (objects, L, views, C)
        attended = attend(self, tokens, tokens)
        return output + self.to_out(attended).transpose(1, 2).flatten(0, 1)


SELF_ATTENTION: dict[AttentionKind, Callable[[Attention], Any]] = {
    "3d": lambda layer: SelfAttention(),
    "2d": lambda layer: SelfAttention(joint=False),
    "temporal": lambda layer: TemporalAttention(layer.to_q.in_features, layer.heads),
}
"""By the name in ``prior.json``: the processor of a self-attention layer."""
ADDED_WEIGHTS: dict[AttentionKind, str] = {"temporal": ".attn1.processor."}
"""Part of the names of the weights that a kind of self-attention adds to the stock network."""


def set_attention(
    unet: UNet2DConditionModel,
    kind: AttentionKind,
    cross: CrossAttention | None = None,
    own: SelfAttention | None = None,
) -> UNet2DConditionModel:
    """Give a stock UNet a kind of self-attention, and a cross-attention, in place.

    ``own`` replaces the kind's self-attention. New layers are made on the default device.
    """
    layers = {name: unet.get_submodule(name.removesuffix(".processor")) for name in unet.attn_processors}
    unet.set_attn_processor(
        {
            name: (own or SELF_ATTENTION[kind](layer))
            if ".attn1." in name
            else replace(cross or CrossAttention(), layer=name.removesuffix(".processor"))
            for name, layer in layers.items()
        }
    )
    return unet
