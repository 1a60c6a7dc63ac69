"""The state of a training run on the disk, in the files of :mod:`dream3d.run.checkpoints`.

No generator has to be kept: all chance of step n comes from the recipe's seed, the process and n.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dream3d.errors import TrainingError
from dream3d.run import checkpoints
from dream3d.training.recipe import BatchRecipe, DataRecipe, TrainingRecipe

VERSION = 1
"""Of the format; a newer one is refused."""
_FREE = ("every", "sample_prompts", "name")
"""Parts of a recipe that do not change the weights, and so may differ when a run goes on."""
DEFAULTS: Mapping[str, Any] = json.loads(
    json.dumps(TrainingRecipe(data=DataRecipe(views="none"), batch=BatchRecipe(image_mode_fraction=0)).to_dict())
)


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
    """Write ``step-00000000.safetensors`` for a checkpoint and remove all but the newest two."""
    facts = {"seconds": checkpoint.seconds, "recipe": checkpoint.recipe, "scaler": checkpoint.scaler}
    return checkpoints.write(folder, checkpoint.step, VERSION, facts, checkpoint.tensors)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, or None."""
    found = checkpoints.all_in(folder)
    return found[-1] if found else None


def load(path: Path, recipe: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint for going on with ``recipe``.

    Raises CheckpointError for a damaged file and a newer version, TrainingError for a recipe that differs in more than
    what is written when; the message names what differs.
    """
    facts, tensors = checkpoints.read(path, VERSION)
    try:
        found = Checkpoint(facts["step"], float(facts["seconds"]), facts["recipe"], facts["scaler"], tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is no checkpoint of a training run ({error}); remove it") from error
    changed = differences(_filled(found.recipe, DEFAULTS), json.loads(json.dumps(recipe)))
    if changed:
        raise TrainingError(
            f"{path} was made with another recipe: {'; '.join(changed[:5])}; "
            "undo the change, or train in another folder (--out)"
        )
    return found


def _filled(recipe: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """An older recipe with the settings that have come since, which it followed without knowing."""
    filled = {**defaults, **recipe}
    for key, value in defaults.items():
        if isinstance(value, Mapping) and value and isinstance(filled[key], Mapping):
            filled[key] = _filled(filled[key], value)
    return filled


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
