"""MVDream's one change to the UNet: self-attention sees all views of an object (facts 1.3)."""

from __future__ import annotations

import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor


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
