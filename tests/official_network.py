"""The official networks as functions of a checkpoint's own tensors, written from a description and not from diffusers.

Nothing here is shared with the product: a converted network must give these numbers. ``state`` maps official
names (without the component's prefix) to tensors. The description is docs/method.md, Multi-view network and
Official weights.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Cosines first, then sines; longest period 10000."""
    frequencies = torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def _conv(state: State, name: str, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
    weight = state[f"{name}.weight"]
    pad = weight.shape[-1] // 2 if padding is None else padding
    return F.conv2d(x, weight, state[f"{name}.bias"], stride=stride, padding=pad)


def _group_norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], eps)


def _layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.layer_norm(x, weight.shape, weight, state[f"{name}.bias"], 1e-5)


def _attention(state: State, name: str, x: Tensor, context: Tensor, heads: int) -> Tensor:
    """Heads are consecutive groups of channels: (heads, channels per head)."""
    q, k, v = (_linear(state, f"{name}.to_{p}", s) for p, s in (("q", x), ("k", context), ("v", context)))
    q, k, v = (y.reshape(*y.shape[:2], heads, -1).permute(0, 2, 1, 3) for y in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return _linear(state, f"{name}.to_out.0", (weights @ v).permute(0, 2, 1, 3).flatten(2))


def _transformer(state: State, name: str, x: Tensor, text: Tensor, views: int, sd15: bool) -> Tensor:
    """Group norm with eps 1e-6; self-attention over all views of an object; exact GELU on the second half."""
    count, channels, height, width = x.shape
    heads = 8 if sd15 else channels // 64
    h = _group_norm(state, f"{name}.norm", x, 1e-6)
    if sd15:
        tokens = _conv(state, f"{name}.proj_in", h).flatten(2).transpose(1, 2)
    else:
        tokens = _linear(state, f"{name}.proj_in", h.flatten(2).transpose(1, 2))
    block = f"{name}.transformer_blocks.0"
    tokens = tokens.reshape(count // views, views * height * width, channels)
    normed = _layer_norm(state, f"{block}.norm1", tokens)
    tokens = tokens + _attention(state, f"{block}.attn1", normed, normed, heads)
    tokens = tokens.reshape(count, height * width, channels)
    tokens = tokens + _attention(state, f"{block}.attn2", _layer_norm(state, f"{block}.norm2", tokens), text, heads)
    value, gate = _linear(state, f"{block}.ff.net.0.proj", _layer_norm(state, f"{block}.norm3", tokens)).chunk(2, -1)
    tokens = tokens + _linear(state, f"{block}.ff.net.2", value * F.gelu(gate))
    if sd15:
        return x + _conv(state, f"{name}.proj_out", tokens.transpose(1, 2).reshape(x.shape))
    return x + _linear(state, f"{name}.proj_out", tokens).transpose(1, 2).reshape(x.shape)


def _resnet(state: State, name: str, x: Tensor, emb: Tensor) -> Tensor:
    h = _conv(state, f"{name}.in_layers.2", F.silu(_group_norm(state, f"{name}.in_layers.0", x, 1e-5)))
    h = h + _linear(state, f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None]
    h = _conv(state, f"{name}.out_layers.3", F.silu(_group_norm(state, f"{name}.out_layers.0", h, 1e-5)))
    return h + (_conv(state, f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in state else x)


def unet(state: State, x: Tensor, t: Tensor, text: Tensor, cameras: Tensor, views: int) -> Tensor:
    """The multi-view UNet: (N, 4, h, w), timesteps (N,), text (N, 77, width), cameras (N, 16) -> (N, 4, h, w)."""
    sd15 = state["input_blocks.1.1.proj_in.weight"].dim() == 4

    def mlp(name: str, y: Tensor) -> Tensor:
        return _linear(state, f"{name}.2", F.silu(_linear(state, f"{name}.0", y)))

    emb = mlp("time_embed", timestep_embedding(t, state["input_blocks.0.0.weight"].shape[0]))
    emb = emb + mlp("camera_embed", cameras)

    def block(name: str, h: Tensor) -> Tensor:
        for slot in (f"{name}.{i}" for i in range(3)):
            if f"{slot}.in_layers.0.weight" in state:
                h = _resnet(state, slot, h, emb)
            elif f"{slot}.proj_in.weight" in state:
                h = _transformer(state, slot, h, text, views, sd15)
            elif f"{slot}.op.weight" in state:
                h = _conv(state, f"{slot}.op", h, stride=2)
            elif f"{slot}.conv.weight" in state:
                h = _conv(state, f"{slot}.conv", F.interpolate(h, scale_factor=2.0, mode="nearest"))
            elif f"{slot}.weight" in state:
                h = _conv(state, slot, h)
        return h

    skips = []
    for index in range(12):
        x = block(f"input_blocks.{index}", x)
        skips.append(x)
    x = block("middle_block", x)
    for index in range(12):
        x = block(f"output_blocks.{index}", torch.cat([x, skips.pop()], 1))
    return _conv(state, "out.2", F.silu(_group_norm(state, "out.0", x, 1e-5)))


def _vae_resnet(state: State, name: str, x: Tensor) -> Tensor:
    h = _conv(state, f"{name}.conv1", F.silu(_group_norm(state, f"{name}.norm1", x, 1e-6)))
    h = _conv(state, f"{name}.conv2", F.silu(_group_norm(state, f"{name}.norm2", h, 1e-6)))
    return h + (_conv(state, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in state else x)


def _vae_middle(state: State, name: str, x: Tensor) -> Tensor:
    x = _vae_resnet(state, f"{name}.block_1", x)
    h = _group_norm(state, f"{name}.attn_1.norm", x, 1e-6)
    q, k, v = (_conv(state, f"{name}.attn_1.{part}", h).flatten(2) for part in "qkv")
    weights = (q.transpose(1, 2) @ k / math.sqrt(q.shape[1])).softmax(-1)
    x = x + _conv(state, f"{name}.attn_1.proj_out", (v @ weights.transpose(1, 2)).reshape(x.shape))
    return _vae_resnet(state, f"{name}.block_2", x)


def vae_encode(state: State, images: Tensor) -> tuple[Tensor, Tensor]:
    """Images (N, 3, S, S) in [-1, 1] -> mean and standard deviation (N, 4, S / 8, S / 8), unscaled."""
    h = _conv(state, "encoder.conv_in", images)
    for level in range(4):
        for index in range(2):
            h = _vae_resnet(state, f"encoder.down.{level}.block.{index}", h)
        if level < 3:  # padded on the right and at the bottom only
            h = _conv(state, f"encoder.down.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), stride=2, padding=0)
    h = F.silu(_group_norm(state, "encoder.norm_out", _vae_middle(state, "encoder.mid", h), 1e-6))
    mean, log_variance = _conv(state, "quant_conv", _conv(state, "encoder.conv_out", h)).chunk(2, 1)
    return mean, (0.5 * log_variance.clamp(-30, 20)).exp()


def vae_decode(state: State, latents: Tensor) -> Tensor:
    """Unscaled latents -> images in about [-1, 1]. Level 0 is the finest."""
    h = _conv(state, "decoder.conv_in", _conv(state, "post_quant_conv", latents))
    h = _vae_middle(state, "decoder.mid", h)
    for level in (3, 2, 1, 0):
        for index in range(3):
            h = _vae_resnet(state, f"decoder.up.{level}.block.{index}", h)
        if level > 0:
            h = _conv(state, f"decoder.up.{level}.upsample.conv", F.interpolate(h, scale_factor=2.0, mode="nearest"))
    return _conv(state, "decoder.conv_out", F.silu(_group_norm(state, "decoder.norm_out", h, 1e-6)))


def openclip_states(state: State, ids: Tensor) -> Tensor:
    """Ids (N, T) -> (N, T, width): all blocks but the last, then ``ln_final``; causal attention, no projection."""
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
    width, blocks = x.shape[-1], 0
    while f"transformer.resblocks.{blocks}.ln_1.weight" in state:
        blocks += 1
    causal = torch.full((ids.shape[1], ids.shape[1]), -torch.inf).triu(1)
    for name in (f"transformer.resblocks.{index}" for index in range(blocks - 1)):
        h = _layer_norm(state, f"{name}.ln_1", x)
        q, k, v = F.linear(h, state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]).chunk(3, -1)
        q, k, v = (y.reshape(*y.shape[:2], width // 64, 64).transpose(1, 2) for y in (q, k, v))
        h = ((q @ k.transpose(-1, -2) / 8 + causal).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + _linear(state, f"{name}.attn.out_proj", h)
        h = F.gelu(_linear(state, f"{name}.mlp.c_fc", _layer_norm(state, f"{name}.ln_2", x)))
        x = x + _linear(state, f"{name}.mlp.c_proj", h)
    return _layer_norm(state, "ln_final", x)
