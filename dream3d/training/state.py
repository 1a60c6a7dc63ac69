"""The content of a training checkpoint, in the files of :mod:`dream3d.run.checkpoints`.

Tensors: ``PART.NAME`` for each trained parameter (PART is ``unet`` for a prior), ``ema.NAME`` for its moving average,
``optimizer.KEY.NAME`` for the optimiser's state, ``random.NAME`` for the task's generators if it has any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dream3d.errors import TrainingError
from dream3d.run import checkpoints
from dream3d.training.task import Trained

VERSION = 1
"""Of the format; a newer one is refused."""


@dataclass(frozen=True)
class Checkpoint:
    """All that the next step depends on."""

    step: int
    """Steps done."""
    seconds: float
    """Spent in training."""
    recipe: Mapping[str, Any]
    """The task's settings."""
    scaler: Mapping[str, Any]
    """State of the fp16 loss scaler; empty without one."""
    tensors: Mapping[str, Tensor]
    """As the module's docstring says, on any device."""


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``step-00000000.safetensors`` for a checkpoint and remove all but the newest two."""
    facts = {"seconds": checkpoint.seconds, "recipe": checkpoint.recipe, "scaler": checkpoint.scaler}
    return checkpoints.write(folder, checkpoint.step, VERSION, facts, checkpoint.tensors)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, or None."""
    found = checkpoints.all_in(folder)
    return found[-1] if found else None


def load(
    path: Path, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None, free: Sequence[str] = ()
) -> Checkpoint:
    """A checkpoint for going on with ``settings``; ``defaults`` and ``free`` are those of the task.

    Raises CheckpointError for a damaged file and a newer version, TrainingError for settings that differ in more than
    what is free; the message names what differs.
    """
    facts, tensors = checkpoints.read(path, VERSION)
    try:
        found = Checkpoint(facts["step"], float(facts["seconds"]), facts["recipe"], facts["scaler"], tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is no checkpoint of a training run ({error}); remove it") from error
    changed = differences(_filled(found.recipe, _plain(defaults or {})), _plain(settings), free)
    if changed:
        raise TrainingError(
            f"{path} was made with another recipe: {'; '.join(changed[:5])}; "
            "undo the change, or train in another folder (--out)"
        )
    return found


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As json gives it back: lists for tuples."""
    return json.loads(json.dumps(settings))


def _filled(recipe: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """An older recipe with the settings that have come since, which it followed without knowing."""
    filled = {**defaults, **recipe}
    for key, value in defaults.items():
        if isinstance(value, Mapping) and value and isinstance(filled[key], Mapping):
            filled[key] = _filled(filled[key], value)
    return filled


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], free: Sequence[str] = (), prefix: str = ""
) -> list[str]:
    """``key was OLD and is NEW`` for each setting that two recipes do not share, but for the ``free`` ones."""
    lines = []
    for key in sorted((old.keys() | new.keys()) - set(free)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, prefix=f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key} was {json.dumps(before)} and is {json.dumps(after)}")
    return lines


def tensors_of(trained: Trained, random: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint."""
    tensors = {f"{trained.part}.{name}": value.detach() for name, value in trained.parameters.items()}
    tensors |= {f"ema.{name}": value.detach() for name, value in trained.average.items()}
    shared = set[int]()
    for name, parameter in trained.parameters.items():
        for key, value in trained.optimizer.state.get(parameter, {}).items():
            own = value if torch.is_tensor(value) else torch.tensor(value)
            # A table that all parameters share, such as that of 8 bits, is written for each: safetensors wants it so.
            tensors[f"optimizer.{key}.{name}"] = own.clone() if own.data_ptr() in shared else own
            shared.add(own.data_ptr())
    return tensors | {f"random.{name}": value for name, value in random.items()}


@torch.no_grad()
def restore(trained: Trained, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a checkpoint's tensors where they came from; returns the ``random`` ones.

    Raises ValueError, KeyError or RuntimeError for tensors that do not fit what trains.
    """
    parts: dict[str, dict[str, Tensor]] = {trained.part: {}, "ema": {}, "optimizer": {}, "random": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    for own, found in ((trained.parameters, parts[trained.part]), (trained.average, parts["ema"])):
        if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in found.items()}:
            raise ValueError("names or shapes of the weights differ")
        for name, value in found.items():
            own[name].copy_(value)
    for name, value in parts["optimizer"].items():
        key, _, parameter_name = name.partition(".")
        parameter = trained.parameters[parameter_name]
        trained.optimizer.state[parameter][key] = _as_state(value, parameter)
    return parts["random"]


def _as_state(value: Tensor, parameter: Tensor) -> Any:
    """A part of an optimiser's state as it keeps that: a count, numbers for each weight, or for blocks of weights."""
    if value.dim() == 0:
        return value.item() if value.dtype == torch.int64 else value  # bitsandbytes counts by an int
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    # In the parameter's own layout: what is fused walks through both alike.
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
