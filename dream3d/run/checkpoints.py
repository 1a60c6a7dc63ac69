"""Checkpoints on the disk: ``step-00000000.safetensors`` with a line of json in the header, whole or not at all.

What is in one is the business of :mod:`dream3d.training.state` and :mod:`dream3d.run.checkpointer`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dream3d.errors import CheckpointError, NewerCheckpointError
from dream3d.files import write_atomically

KEPT = 2
"""Checkpoints that stay; the one before the last is there for a disk that fails."""
_NAME = re.compile(r"step-([0-9]{8})\.safetensors")


def write(folder: Path, step: int, version: int, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write the checkpoint of a step and remove all but the newest :data:`KEPT`.

    ``facts`` is plain data; tensors are written as they are, on the CPU.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    header = {"dream3d": json.dumps({**facts, "step": step, "version": version})}
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, lambda temporary: save_file(whole, temporary, header))
    for old in all_in(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def read(path: Path, version: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts (with ``step``) and tensors of a checkpoint.

    Raises NewerCheckpointError for a version above ``version``, CheckpointError for a damaged file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["dream3d"])
            found = int(facts["version"])
            if found <= version:
                facts["step"] = int(facts["step"])
                return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove it to go on from the one before") from error
    raise NewerCheckpointError(f"{path} is of version {found}, this dream3d reads {version}; use a newer dream3d")


def all_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest last; none if it does not exist."""
    return sorted(path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name))
