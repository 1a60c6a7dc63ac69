"""Small checkpoints in MVDream's official layouts, with random weights.

The names are made by walking the official networks' construction (index by index, as their code appends
blocks), so that they are independent of the product's table, which goes the other way.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

State = dict[str, Tensor]
Pairs = list[tuple[str, str]]

UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
OPENCLIP_PREFIX, CLIP_PREFIX = "cond_stage_model.model.", "cond_stage_model.transformer.text_model."
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
VAE_FILE = "vae/diffusion_pytorch_model.safetensors"
TEXT_FILE = "text_encoder/model.safetensors"
BUFFERS = [
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
]


@dataclass(frozen=True)
class Size:
    """Widths of a network of the official plan."""

    unet: tuple[int, int, int, int] = (64, 128, 128, 128)
    vae: tuple[int, int, int, int] = (32, 32, 64, 64)
    text: int = 128
    text_blocks: int = 3
    """Of the OpenCLIP tower, the unused last one included; CLIP's has the same number, all used."""
    mlp: int = 160


SMALL = Size()
FULL_SD21 = Size((320, 640, 1280, 1280), (128, 256, 512, 512), 1024, 24, 4096)


def stock_unet(size: Size, sd15: bool) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=32,
        block_out_channels=size.unet,
        cross_attention_dim=size.text,
        attention_head_dim=8 if sd15 else [width // 64 for width in size.unet],
        use_linear_projection=not sd15,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
    )


def stock_vae(size: Size) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=size.vae,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
    )


def stock_text(size: Size, sd15: bool) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=size.text,
            intermediate_size=size.mlp,
            num_hidden_layers=size.text_blocks,
            num_attention_heads=size.text // 64,
            vocab_size=49408,
            hidden_act="quick_gelu" if sd15 else "gelu",
        )
    )


def unet_pairs() -> Pairs:
    """(official, stock) module names in the order in which the official UNet appends its blocks."""
    pairs: Pairs = [("input_blocks.0.0", "conv_in"), ("out.0", "conv_norm_out"), ("out.2", "conv_out")]
    for official, stock in (("time_embed", "time_embedding"), ("camera_embed", "class_embedding")):
        pairs += [(f"{official}.0", f"{stock}.linear_1"), (f"{official}.2", f"{stock}.linear_2")]
    index = 1
    for level in range(4):
        for layer in range(2):
            pairs += _resnet(f"input_blocks.{index}.0", f"down_blocks.{level}.resnets.{layer}")
            if level < 3:
                pairs.append((f"input_blocks.{index}.1", f"down_blocks.{level}.attentions.{layer}"))
            index += 1
        if level < 3:
            pairs.append((f"input_blocks.{index}.0.op", f"down_blocks.{level}.downsamplers.0.conv"))
            index += 1
    pairs += _resnet("middle_block.0", "mid_block.resnets.0") + _resnet("middle_block.2", "mid_block.resnets.1")
    pairs.append(("middle_block.1", "mid_block.attentions.0"))
    index = 0
    for block in range(4):
        for layer in range(3):
            slots = 1
            pairs += _resnet(f"output_blocks.{index}.0", f"up_blocks.{block}.resnets.{layer}")
            if block > 0:
                pairs.append((f"output_blocks.{index}.1", f"up_blocks.{block}.attentions.{layer}"))
                slots = 2
            if layer == 2 and block < 3:
                pairs.append((f"output_blocks.{index}.{slots}.conv", f"up_blocks.{block}.upsamplers.0.conv"))
            index += 1
    return pairs


def _resnet(official: str, stock: str) -> Pairs:
    parts = "in_layers.0 norm1,in_layers.2 conv1,emb_layers.1 time_emb_proj,out_layers.0 norm2,out_layers.3 conv2"
    names = [part.split() for part in f"{parts},skip_connection conv_shortcut".split(",")]
    return [(f"{official}.{a}", f"{stock}.{b}") for a, b in names]


def vae_pairs() -> Pairs:
    pairs: Pairs = [("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv")]
    for half in ("encoder", "decoder"):
        pairs += [(f"{half}.{name}", f"{half}.{name}") for name in ("conv_in", "conv_out")]
        pairs.append((f"{half}.norm_out", f"{half}.conv_norm_out"))
        pairs += [(f"{half}.mid.block_{i}", f"{half}.mid_block.resnets.{i - 1}") for i in (1, 2)]
        attention = zip(
            ("norm", "q", "k", "v", "proj_out"), ("group_norm", "to_q", "to_k", "to_v", "to_out.0"), strict=True
        )
        pairs += [(f"{half}.mid.attn_1.{a}", f"{half}.mid_block.attentions.0.{b}") for a, b in attention]
    for level in range(4):
        pairs += [(f"encoder.down.{level}.block.{j}", f"encoder.down_blocks.{level}.resnets.{j}") for j in range(2)]
        pairs += [(f"decoder.up.{level}.block.{j}", f"decoder.up_blocks.{3 - level}.resnets.{j}") for j in range(3)]
        pairs.append((f"encoder.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv"))
        pairs.append((f"decoder.up.{level}.upsample.conv", f"decoder.up_blocks.{3 - level}.upsamplers.0.conv"))
    return pairs


def official_unet(stock: State) -> State:
    return _rename(stock, unet_pairs())


def official_vae(stock: State) -> State:
    renamed = {k.replace("conv_shortcut", "nin_shortcut"): v for k, v in _rename(stock, vae_pairs()).items()}
    return {k: v[..., None, None] if ".attn_1." in k and v.dim() == 2 else v for k, v in renamed.items()}


def openclip_text(stock: State) -> State:
    """The tower whose all but last block give ``stock``'s states; the last block is made of other numbers."""
    stock = {name.removeprefix("text_model."): value for name, value in stock.items()}
    layers = 1 + max(int(name.split(".")[2]) for name in stock if name.startswith("encoder.layers."))
    state = {
        "token_embedding.weight": stock["embeddings.token_embedding.weight"],
        "positional_embedding": stock["embeddings.position_embedding.weight"],
        "ln_final.weight": stock["final_layer_norm.weight"],
        "ln_final.bias": stock["final_layer_norm.bias"],
        "text_projection": torch.ones(4, 4),
        "logit_scale": torch.tensor(4.6),
    }
    names = (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"))
    for index in range(layers):
        block, layer = f"transformer.resblocks.{index}", f"encoder.layers.{index}"
        for leaf in ("weight", "bias"):
            for official, name in (*names, ("attn.out_proj", "self_attn.out_proj")):
                state[f"{block}.{official}.{leaf}"] = stock[f"{layer}.{name}.{leaf}"]
            thirds = [stock[f"{layer}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            state[f"{block}.attn.in_proj_{leaf}"] = torch.cat(thirds)
    return state


def _rename(stock: State, pairs: Pairs) -> State:
    names = {new: old for old, new in pairs}
    state: State = {}
    for name, value in stock.items():
        parts = name.split(".")
        cut = next(cut for cut in range(len(parts), 0, -1) if ".".join(parts[:cut]) in names)
        state[".".join([names[".".join(parts[:cut])], *parts[cut:]])] = value
    assert len(state) == len(stock)
    return state


def randomise(module: nn.Module, seed: int) -> None:
    """Move every parameter, so that no zero or one of an initialisation hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.03)


@dataclass(frozen=True)
class Official:
    """A synthetic official model: the stock networks it was made from, and its parts by official names."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text: CLIPTextModel
    sd15: bool

    @property
    def parts(self) -> dict[str, State]:
        """Component prefix -> official names -> tensors."""
        text = self.text.state_dict()
        if self.sd15:
            clip = {name.removeprefix("text_model."): value for name, value in text.items()}
            clip["embeddings.position_ids"] = torch.arange(77)[None]
        return {
            UNET_PREFIX: official_unet(self.unet.state_dict()),
            VAE_PREFIX: official_vae(self.vae.state_dict()),
            **({CLIP_PREFIX: clip} if self.sd15 else {OPENCLIP_PREFIX: openclip_text(text)}),
        }

    @property
    def state(self) -> State:
        """The single file's state dict, schedule buffers included."""
        return {
            **{name: torch.linspace(0, 1, 1000) for name in BUFFERS},
            **{prefix + name: value for prefix, part in self.parts.items() for name, value in part.items()},
        }


def make_official(sd15: bool = False, size: Size = SMALL) -> Official:
    torch.manual_seed(0)
    networks = stock_unet(size, sd15), stock_vae(size), stock_text(size, sd15)
    for seed, network in enumerate(networks):
        randomise(network.eval().requires_grad_(False), seed)
    return Official(*networks, sd15)


def write_folder(official: Official, folder: Path) -> Path:
    """The diffusers-style folder: official names in the UNet, stock names elsewhere, no unused text block."""
    for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (folder / name).mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "MVDreamPipeline"}))
    save_file(official.parts[UNET_PREFIX], folder / UNET_FILE)
    save_file(official.vae.state_dict(), folder / VAE_FILE)
    text = {"text_model." + name.removeprefix("text_model."): v for name, v in kept_text(official).items()}
    save_file(text, folder / TEXT_FILE)
    return folder


def kept_text(official: Official) -> State:
    """Stock tensors of the text tower that a conversion keeps: for OpenCLIP all but the last block."""
    state = {name.removeprefix("text_model."): value for name, value in official.text.state_dict().items()}
    last = f"encoder.layers.{official.text.config.num_hidden_layers - 1}."
    return {name: value for name, value in state.items() if official.sd15 or not name.startswith(last)}


def change(state: State, edit: Callable[[State], object]) -> State:
    """A copy of a state dict after ``edit`` changed it in place."""
    copy = dict(state)
    edit(copy)
    return copy
