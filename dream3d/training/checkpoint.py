"""The state of a run on the disk: one safetensors file with a line of json in its header, written whole or not at all.

No generator has to be kept: all chance of step n comes from the recipe's seed, the process and n.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dream3d.errors import TrainingError
from dream3d.files import write_atomically

VERSION = 1
"""Of the format; a newer one is refused."""
KEPT = 2
"""Checkpoints that stay; the one before the last is there for a disk that fails."""
_NAME = re.compile(r"step-([0-9]{8})\.safetensors")
_FREE = ("every", "sample_prompts", "name")
"""Parts of a recipe that do not change the weights, and so may differ when a run goes on."""


@dataclass(frozen=True)
class Checkpoint:
    """All that the next step depends on."""

    step: int
    """Steps done."""
    seconds: float
    """Spent in training."""
    recipe: Mapping[str, Any]
    scaler: Mapping[str, Any]
    """State of the fp16 loss scaler; empty without one."""
    tensors: Mapping[str, Tensor]
    """``unet.``, ``ema.`` and ``optimizer.`` entries, on the CPU."""


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``step-00000000.safetensors`` for a checkpoint and remove all but the newest :data:`KEPT`."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "version": VERSION,
        "step": checkpoint.step,
        "seconds": checkpoint.seconds,
        "recipe": checkpoint.recipe,
        "scaler": checkpoint.scaler,
    }
    path = folder / f"step-{checkpoint.step:08d}.safetensors"
    tensors = {name: value.contiguous() for name, value in checkpoint.tensors.items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, {"dream3d": json.dumps(facts)}))
    for old in _all(folder)[:-KEPT]:
        old.unlink()
    return path


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, or None."""
    found = _all(folder)
    return found[-1] if found else None


def load(path: Path, recipe: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint for going on with ``recipe``.

    Raises TrainingError for a damaged file, a newer version, and a recipe that differs in more than what is written
    when; the message names what differs.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["dream3d"])
            version = int(facts["version"])
            if version <= VERSION:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                found = Checkpoint(
                    int(facts["step"]), float(facts["seconds"]), facts["recipe"], facts["scaler"], tensors
                )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is damaged ({error}); remove it to go on from the one before") from error
    if version > VERSION:
        raise TrainingError(f"{path} is of version {version}, this dream3d reads {VERSION}; use a newer dream3d")
    changed = differences(found.recipe, json.loads(json.dumps(recipe)))
    if changed:
        raise TrainingError(
            f"{path} was made with another recipe: {'; '.join(changed[:5])}; "
            "undo the change, or train in another folder (--out)"
        )
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key was OLD and is NEW`` for each setting that two recipes do not share and that changes the weights."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if not prefix and key in _FREE:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key} was {json.dumps(before)} and is {json.dumps(after)}")
    return lines


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name))
