"""A small change of a prior's UNet: low-rank matrices in a folder of a few megabytes, read as untrusted data.

The files are those of peft (``adapter_config.json``, ``adapter_model.safetensors``), but peft is not needed to read
them. ``prior.json`` beside them names the prior that they belong to and its digest; they are of no use to any other.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dream3d.errors import PriorError
from dream3d.files import hash_file
from dream3d.prior.folder import PriorSettings, check_has, read_header, read_settings, read_tensors
from dream3d.prior.schema import check, number, one_of, read_json, whole

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
FILES = ("prior.json", CONFIG, WEIGHTS)
PREFIX = "base_model.model."
"""Of every tensor in a file of peft."""
MAX_RANK = 1024
_NAME = re.compile(re.escape(PREFIX) + r"([\w.]+)\.lora_([AB])\.weight")


@dataclass(frozen=True)
class Adapter:
    """An adapter folder whose configuration is sound; its weights are read by :func:`merge`."""

    folder: Path
    settings: PriorSettings
    """Of the prior that it makes of its base."""
    scale: float
    """Factor on the product of the matrices: peft's lora_alpha / r."""

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the base's digest and of the adapter's files. Raises OSError."""
        lines = [f"{self.settings.base_digest}\n", *(f"{name} {hash_file(self.folder / name)}\n" for name in FILES)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no prior of its own."""
    return os.path.isfile(folder / CONFIG) and not os.path.isdir(folder / "unet")


def read_adapter(folder: Path) -> Adapter:
    """The adapter of a folder; :class:`PriorError` if its files are missing or damaged, or name no base."""
    check_has(folder, FILES, "copy the complete adapter folder")
    settings, path = read_settings(folder), folder / CONFIG
    if not settings.base or not settings.base_digest:
        raise PriorError(f"{folder / 'prior.json'} names no base; an adapter needs 'base' and 'base_digest'")
    config = read_json(path)
    check(config.get("peft_type"), one_of("LORA"), "peft_type", path)
    rank = check(config.get("r"), whole(1, MAX_RANK), "r", path)
    alpha = check(config.get("lora_alpha"), number(1e-3, 1e6), "lora_alpha", path)
    return Adapter(folder, settings, alpha / rank)


@torch.no_grad()
def merge(unet: nn.Module, adapter: Adapter) -> None:
    """Add the adapter's matrices to the linear layers of its base: W + scale * B A (Hu et al. 2021, equation 3).

    Raises :class:`PriorError` for a layer that the network lacks, matrices of other shapes, or half a pair.
    """
    path = adapter.folder / WEIGHTS
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, nn.Linear)}
    found = {name: (_NAME.fullmatch(name), shape) for name, shape in read_header(path)[0].items()}
    pairs: dict[str, dict[str, torch.Size]] = {}
    for name, (parts, shape) in found.items():
        if parts is None or parts[1] not in layers:
            raise PriorError(f"{path} holds {name!r}, which the UNet of prior {adapter.settings.base!r} lacks")
        pairs.setdefault(parts[1], {})[parts[2]] = shape
    expected: dict[str, torch.Size] = {}
    for name, pair in pairs.items():
        layer, rank = layers[name], pair["A"][0] if pair.get("A") else 0
        if not 1 <= rank <= MAX_RANK:
            raise PriorError(f"{path}: the matrices of {name!r} are no pair; copy the complete adapter folder")
        expected[f"{PREFIX}{name}.lora_A.weight"] = torch.Size((rank, layer.in_features))
        expected[f"{PREFIX}{name}.lora_B.weight"] = torch.Size((layer.out_features, rank))
    tensors = read_tensors(path, expected, torch.float32)
    for name in pairs:
        down, up = (tensors[f"{PREFIX}{name}.lora_{letter}.weight"] for letter in "AB")
        _add(layers[name].weight, adapter.scale * up @ down)


def _add(weight: Tensor, change: Tensor) -> None:
    """Added in float32, and rounded once."""
    weight.copy_((weight.float() + change.to(weight.device)).to(weight.dtype))
