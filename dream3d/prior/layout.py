"""What a prior folder holds: its files, and the words that may stand in its ``prior.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

AttentionKind = Literal["3d", "2d", "temporal"]
"""How views see each other, see :mod:`dream3d.prior.attention`."""
ATTENTION_KINDS: tuple[AttentionKind, ...] = get_args(AttentionKind)

PRIOR_FILES = (
    "prior.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "codec/config.json",
    "codec/codec.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "scheduler/scheduler_config.json",
)
"""Files of a prior folder with a linear codec (design: diffusers' pipeline layout plus prior.json)."""

_CODEC_TO_VAE = {
    "codec/config.json": "vae/config.json",
    "codec/codec.safetensors": "vae/diffusion_pytorch_model.safetensors",
}


def files_of(folder: Path) -> tuple[str, ...]:
    """Files that a prior folder must hold: those of a VAE instead of ``codec`` if it has a folder ``vae``."""
    if not (folder / "vae").is_dir():
        return PRIOR_FILES
    return tuple(_CODEC_TO_VAE.get(name, name) for name in PRIOR_FILES)
