"""What a prior folder holds: its files by component, and words of ``prior.json``. Nothing heavy is imported here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

PACKAGED = Path(__file__).resolve().parent.parent / "priors"
"""Folder of the priors that ship inside the package."""

AttentionKind = Literal["3d", "2d", "temporal"]
"""How views see each other, see :mod:`dream3d.prior.attention`."""
ATTENTION_KINDS: tuple[AttentionKind, ...] = get_args(AttentionKind)

Dtype = Literal["fp16", "fp32"]
"""Number formats that a prior folder's networks may be converted to."""

_FILES = {
    "unet": ("config.json", "diffusion_pytorch_model.safetensors"),
    "codec": ("config.json", "codec.safetensors"),
    "decoder": ("config.json", "diffusion_pytorch_model.safetensors"),
    "vae": ("config.json", "diffusion_pytorch_model.safetensors"),
    "text_encoder": ("config.json", "model.safetensors"),
    "tokenizer": ("tokenizer.json",),
    "scheduler": ("scheduler_config.json",),
    "image_encoder": ("config.json", "model.safetensors"),
    "image_adapter": ("config.json", "model.safetensors"),
}
_OPTIONAL = ("image_encoder", "image_adapter")
"""Components that a prior may lack. A new one is a name here and its files above."""


def files_of(folder: Path, optional: bool = False) -> tuple[str, ...]:
    """Files that a prior folder must hold, in diffusers' layout plus ``prior.json``.

    A folder ``vae`` takes the place of the linear ``codec``, beside which a ``decoder`` may be. With ``optional``
    also those of the optional components that are there and whole.
    """
    # os.path and not Path: a folder that may not be looked into has nothing in it.
    codec = "vae" if os.path.isdir(folder / "vae") else "codec"
    decoder = ["decoder"] if codec == "codec" and os.path.isdir(folder / "decoder") else []
    components = ["unet", codec, *decoder, "text_encoder", "tokenizer", "scheduler"]
    if optional:
        components += [name for name in _OPTIONAL if all(os.path.isfile(folder / name / one) for one in _FILES[name])]
    return ("prior.json", *(f"{name}/{file}" for name in components for file in _FILES[name]))
