"""Configurations of the stock networks, read from the shapes of a checkpoint (docs/method.md, Official weights).

Stable Diffusion 2.1 and 1.5 have the same plan; the differences show in the tensors. Widths are read too,
so that a narrow network of the same plan, as the tests build, is converted by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dream3d.errors import PriorError
from dream3d.prior.official.tensors import Tensors

LEVELS = 4
"""Resolutions of the UNet and of the VAE; the key table counts with it."""
HEAD = 64
"""Channels per attention head, in SD 2.1's UNet and in both text towers."""


@dataclass(frozen=True)
class Family:
    """What does not show in shapes."""

    name: str
    """Name of the prior."""
    linear_projection: bool
    """Whether the transformers of the UNet project by matrices or by 1x1 convolutions."""
    heads: int | None
    """Attention heads of the UNet at every level; None for one per 64 channels."""
    activation: str
    """Of the text tower: OpenCLIP uses the exact GELU, CLIP an approximation."""
    padding_id: int
    """Token that fills a prompt up: "!" for SD 2.1, the end token for SD 1.5."""


SD21 = Family("mvdream-sd21", True, None, "gelu", 0)
SD15 = Family("mvdream-sd15", False, 8, "quick_gelu", 49407)


def family_of(unet: Tensors) -> Family:
    """Which Stable Diffusion a UNet with official names comes from; :class:`PriorError` if neither."""
    name = "input_blocks.1.1.proj_in.weight"
    if name not in unet.shapes:
        raise PriorError(
            f"{unet.path} lacks the tensor {unet.prefix + name!r}; it is not an official MVDream checkpoint"
        )
    rank = len(unet.shapes[name])
    if rank not in (2, 4):
        raise PriorError(f"{unet.path}: tensor {unet.full_names[name]!r} has {rank} axes, not 2 (SD 2.1) or 4 (SD 1.5)")
    return SD21 if rank == 2 else SD15


def unet_config(unet: Tensors, family: Family) -> dict[str, Any]:
    """Arguments of ``UNet2DConditionModel`` for official UNet tensors; :class:`PriorError` if they do not fit."""
    starts = [1 + 3 * level for level in range(LEVELS)]
    widths = [unet.size(f"input_blocks.{start}.0.in_layers.2.weight", 4, 0) for start in starts]
    unit = HEAD if family.heads is None else 32
    for width in widths:
        if width % unit:
            raise PriorError(f"{unet.path}: the UNet has a level of {width} channels, not a multiple of {unit}")
    cross = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 32,
        "in_channels": unet.size("input_blocks.0.0.weight", 4, 1),
        "out_channels": unet.size("out.2.weight", 4, 0),
        "block_out_channels": widths,
        "layers_per_block": 2,
        "down_block_types": [cross[0]] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + [cross[1]] * 3,
        "cross_attention_dim": unet.size("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 2, 1),
        # diffusers' name for the number of heads
        "attention_head_dim": [width // HEAD for width in widths] if family.heads is None else family.heads,
        "use_linear_projection": family.linear_projection,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": unet.size("camera_embed.0.weight", 2, 1),
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
        "act_fn": "silu",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "downsample_padding": 1,
    }


def vae_config(vae: Tensors, stock_names: bool) -> dict[str, Any]:
    """Arguments of ``AutoencoderKL`` for a Stable Diffusion VAE, with official or stock names."""
    first = "encoder.down_blocks.{}.resnets.0.conv1.weight" if stock_names else "encoder.down.{}.block.0.conv1.weight"
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": vae.size("encoder.conv_in.weight", 4, 1),
        "out_channels": vae.size("decoder.conv_out.weight", 4, 0),
        "latent_channels": vae.size("post_quant_conv.weight", 4, 1),
        "block_out_channels": [vae.size(first.format(level), 4, 0) for level in range(LEVELS)],
        "down_block_types": ["DownEncoderBlock2D"] * LEVELS,
        "up_block_types": ["UpDecoderBlock2D"] * LEVELS,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "act_fn": "silu",
        "sample_size": 256,
        "scaling_factor": 0.18215,
    }


def text_config(tower: Tensors, family: Family, openclip: bool) -> dict[str, Any]:
    """Arguments of ``CLIPTextConfig``: of the tower without its last block for OpenCLIP (penultimate layer)."""
    if openclip:
        token, position, first = "token_embedding.weight", "positional_embedding", "transformer.resblocks.0.mlp.c_fc"
        blocks, dropped = "transformer.resblocks.", 1
    else:
        token, position = "embeddings.token_embedding.weight", "embeddings.position_embedding.weight"
        blocks, dropped, first = "encoder.layers.", 0, "encoder.layers.0.mlp.fc1"
    layers = count_blocks(tower, blocks) - dropped
    width = tower.size(token, 2, 1)
    if layers < 1 or width % HEAD:
        raise PriorError(f"{tower.path}: a text tower of width {width} with {layers} used blocks is not CLIP's")
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": tower.size(token, 2, 0),
        "hidden_size": width,
        "intermediate_size": tower.size(f"{first}.weight", 2, 0),
        "num_hidden_layers": layers,
        "num_attention_heads": width // HEAD,
        "max_position_embeddings": tower.size(position, 2, 0),
        "hidden_act": family.activation,
        "layer_norm_eps": 1e-5,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": family.padding_id,
    }


def count_blocks(tower: Tensors, prefix: str) -> int:
    """Number of blocks of a text tower: one more than the highest number after ``prefix``."""
    numbers = {name.removeprefix(prefix).partition(".")[0] for name in tower.shapes if name.startswith(prefix)}
    return max((int(number) for number in numbers if number.isdecimal() and len(number) < 4), default=-1) + 1
