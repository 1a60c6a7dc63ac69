"""Names of the official (LDM) checkpoints for the stock networks' tensors (docs/method.md, Official weights).

Each function goes from a stock name (diffusers, transformers) to the tensor of the checkpoint that it
comes from. This direction makes the account complete: a stock tensor without a source is missing, and
a source that no stock tensor asked for is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

SCHEDULE_BUFFERS = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
    }
)
"""The noise schedule as the official code stores it; computed from four numbers, so it is not converted."""

OPENCLIP_UNUSED = frozenset({"text_projection", "logit_scale", "attn_mask"})
"""Of the OpenCLIP tower: what follows the token states, and the causal mask that older versions stored."""

CLIP_UNUSED = frozenset({"embeddings.position_ids"})
"""Of the CLIP tower: the numbers 0..76, which older versions of transformers stored."""


@dataclass(frozen=True)
class Piece:
    """Where a stock tensor comes from: a tensor of the checkpoint, whole or in part."""

    source: str
    third: int | None = None
    """Which third of the rows (q, k, v of a fused projection), or None for all."""
    flatten: bool = False
    """A 1x1 convolution (out, in, 1, 1) that the stock network has as a matrix (out, in)."""


Origin = Callable[[str], "Piece | None"]
"""From a stock name to its source; None for a name that the table does not know."""

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding.linear_1": "camera_embed.0",
    "class_embedding.linear_2": "camera_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPENCLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPENCLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_QKV = ("q", "k", "v")


def unet_origin(name: str) -> Piece | None:
    """Source of a ``UNet2DConditionModel`` tensor, without the prefix ``model.diffusion_model.``.

    ``down_blocks.1.resnets.0.norm1.weight`` comes from ``input_blocks.4.0.in_layers.0.weight``. The
    blocks are counted for two layers per block, as in both Stable Diffusions.
    """
    module, _, leaf = name.rpartition(".")
    if module in _UNET_ENDS:
        return Piece(f"{_UNET_ENDS[module]}.{leaf}")
    place = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    if place:
        way, block, kind, index, rest = place[1], int(place[2]), place[3], int(place[4]), place[5]
    elif middle := re.fullmatch(r"mid_block\.(\w+)\.(\d+)\.(.+)", name):
        way, block, kind, index, rest = "mid", 0, middle[1], int(middle[2]), middle[3]
    else:
        return None
    if kind == "resnets":
        part, _, leaf = rest.rpartition(".")
        slot = {"down": f"input_blocks.{3 * block + 1 + index}.0", "up": f"output_blocks.{3 * block + index}.0"}
        where = slot.get(way, f"middle_block.{2 * index}")
        return Piece(f"{where}.{_RESNET[part]}.{leaf}") if part in _RESNET else None
    if kind == "attentions":
        slot = {"down": f"input_blocks.{3 * block + 1 + index}.1", "up": f"output_blocks.{3 * block + index}.1"}
        return Piece(f"{slot.get(way, 'middle_block.1')}.{rest}")
    if kind == "downsamplers":
        return Piece(f"input_blocks.{3 * block + 3}.0.op.{leaf}")
    if kind == "upsamplers":  # after the attention, which the first block does not have
        return Piece(f"output_blocks.{3 * block + 2}.{1 if block == 0 else 2}.conv.{leaf}")
    return None


def vae_origin(name: str) -> Piece | None:
    """Source of an ``AutoencoderKL`` tensor, without the prefix ``first_stage_model.``.

    The decoder's blocks are counted from the image in the checkpoint and from the latents in diffusers.
    """
    half, _, rest = name.partition(".")
    if half in ("quant_conv", "post_quant_conv"):
        return Piece(name)
    if half not in ("encoder", "decoder"):
        return None
    if re.match(r"conv_(in|out)\.", rest):
        return Piece(name)
    module, _, leaf = rest.rpartition(".")
    if module == "conv_norm_out":
        return Piece(f"{half}.norm_out.{leaf}")
    if attention := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", module):
        part = _VAE_ATTENTION.get(attention[1])
        flatten = part != "norm" and leaf == "weight"
        return Piece(f"{half}.mid.attn_1.{part}.{leaf}", flatten=flatten) if part else None
    rest = rest.replace("conv_shortcut", "nin_shortcut")
    if middle := re.fullmatch(r"mid_block\.resnets\.(\d+)\.(.+)", rest):
        return Piece(f"{half}.mid.block_{int(middle[1]) + 1}.{middle[2]}")
    place = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)", rest)
    if not place:
        return None
    way, block, kind = place[1], int(place[2]), place[3]
    level = block if way == "down" else 3 - block
    if kind == "resnets":
        return Piece(f"{half}.{way}.{level}.block.{place[4]}.{place[5]}")
    return Piece(f"{half}.{way}.{level}.{way}sample.{place[5]}")


def openclip_origin(name: str) -> Piece | None:
    """Source of a ``CLIPTextModel`` tensor in an OpenCLIP tower, both without their prefixes.

    The tower's fused ``in_proj`` holds q, k and v as thirds of its rows.
    """
    if name in _OPENCLIP_ENDS:
        return Piece(_OPENCLIP_ENDS[name])
    layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if not layer:
        return None
    block, part, leaf = f"transformer.resblocks.{layer[1]}", layer[2], layer[3]
    if fused := re.fullmatch(r"self_attn\.([qkv])_proj", part):
        return Piece(f"{block}.attn.in_proj_{leaf}", third=_QKV.index(fused[1]))
    return Piece(f"{block}.{_OPENCLIP_LAYER[part]}.{leaf}") if part in _OPENCLIP_LAYER else None


def same_name(name: str) -> Piece | None:
    """Source of a tensor in a component that has stock names already."""
    return Piece(name)


def openclip_block_names(index: int) -> frozenset[str]:
    """The twelve tensors of one OpenCLIP block, such as the last one, which the token states do not pass."""
    block = f"transformer.resblocks.{index}"
    modules = {f"{block}.{part}.{leaf}" for part in _OPENCLIP_LAYER.values() for leaf in ("weight", "bias")}
    return frozenset(modules | {f"{block}.attn.in_proj_{leaf}" for leaf in ("weight", "bias")})


def modern_vae_name(name: str) -> str:
    """Today's diffusers name for a VAE tensor of a folder that an older diffusers wrote."""
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        name = name.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
    return name
