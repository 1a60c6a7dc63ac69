"""LoRA by peft: small trained matrices beside the frozen layers of a UNet (Hu et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dream3d.errors import UsageError
from dream3d.files import write_atomically
from dream3d.prior.adapter import PREFIX, WEIGHTS

LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
"""Ends of the names of the layers that get matrices: attention (of views and of text) and feed-forward."""
_ADAPTER = "default"
"""Peft's name for the one adapter that there is."""


def check_peft(asker: str = "--method lora", instead: str = "--method full") -> None:
    """Raises UsageError without peft: it names the extra, who needs it, and what does without."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{asker} needs peft; pip install 'dream3d[dreambooth]', or use {instead}") from error


def add_lora(unet: nn.Module, rank: int, seed: int) -> Any:
    """Put matrices of a rank beside the layers of a UNet, in place; returns peft's configuration of them.

    What the network computes is still the same: one matrix of each pair is zero. All else is frozen.
    """
    check_peft()
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LAYERS), lora_dropout=0.0)
    with torch.random.fork_rng(devices=[]):  # peft draws from the global generator
        torch.manual_seed(seed)
        inject_adapter_in_model(config, unet, adapter_name=_ADAPTER)
    return config


def lora_parameters(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices by the names that they have in a file of peft, but for its prefix."""
    marked = ((name, parameter) for name, parameter in unet.named_parameters() if ".lora_" in name)
    return {name.replace(f".{_ADAPTER}.", "."): parameter for name, parameter in marked}


def lora_changes(unet: nn.Module) -> Iterator[Tensor]:
    """What the matrices add to each layer's weight, with gradients."""
    from peft.tuners.lora import LoraLayer

    for layer in unet.modules():
        if isinstance(layer, LoraLayer):
            yield cast(Any, layer).get_delta_weight(_ADAPTER)


def save_lora(unet: nn.Module, config: Any, folder: Path) -> None:
    """Peft's two files in a folder, the matrices in half precision."""
    config.save_pretrained(folder)
    tensors = {PREFIX + name: value.detach().half().cpu().contiguous() for name, value in lora_parameters(unet).items()}
    write_atomically(folder / WEIGHTS, lambda path: save_file(tensors, path))  # for the rights of the user's files
