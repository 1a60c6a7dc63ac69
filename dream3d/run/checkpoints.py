"""Checkpoints on the disk: ``step-00000000.safetensors`` with a line of json in the header, whole or not at all.

What is in one is the business of :mod:`dream3d.training.state` and :mod:`dream3d.run.checkpointer`. The header also has
the file's SHA-256, taken with zeros in its own place: a file of which a bit has changed is not read.
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
from dream3d.files import hash_stream, open_regular, parse_json, write_atomically

KEPT = 2
"""Checkpoints that stay; the one before the last is there for a disk that fails."""
NAME = re.compile(r"step-([0-9]{8})(-[0-9]+)?\.safetensors")
MAX_BYTES = 2**36
MAX_HEADER_BYTES = 2**24
_UNSEALED = b"0" * 64
_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def write(folder: Path, step: int, version: int, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """:func:`save` the checkpoint of a step in a folder and remove all but the newest :data:`KEPT`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    save(path, step, version, facts, tensors)
    for old in all_in(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def save(path: Path, step: int, version: int, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write one file. ``facts`` is plain data; tensors are written as they are, on the CPU."""
    about = json.dumps({**facts, "step": step, "version": version, "sealed": True})
    header = {"dream3d": about, "sha256": _UNSEALED.decode()}
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def write_sealed(temporary: Path) -> None:
        save_file(whole, temporary, header)
        _, at, digest = _examine(temporary, MAX_BYTES)
        with temporary.open("rb+") as file:
            file.seek(at)
            file.write(digest.encode())

    write_atomically(path, write_sealed)


def read(path: Path, version: int, limit: int = MAX_BYTES) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts (with ``step``) and tensors of a checkpoint of at most ``limit`` bytes.

    Files of before they had a SHA-256 are read without. Raises NewerCheckpointError for a version above ``version``,
    CheckpointError for a damaged file, one that is no regular file, and one with the name of another step.
    """
    try:
        facts, at, digest = _examine(path, limit)
        with path.open("rb") as stream:
            stream.seek(at)
            if digest and stream.read(len(digest)) != digest.encode():
                raise ValueError("its SHA-256 is another")
        step, found, name = facts["step"], facts["version"], NAME.fullmatch(path.name)
        if type(step) is not int or type(found) is not int:
            raise TypeError("step or version is not a whole number")
        if name and int(name[1]) != step:
            raise ValueError(f"it is of step {step}")
        if found <= version:
            with safe_open(path, framework="pt") as file:
                return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise CheckpointError(f"{path} is damaged ({reason}); remove it to go on from the one before") from error
    raise NewerCheckpointError(f"{path} is of version {found}, this dream3d reads {version}; use a newer dream3d")


def _examine(path: Path, limit: int) -> tuple[dict[str, Any], int, str]:
    """Facts of a file, where its SHA-256 stands, and what that should be ("" for a file that has none)."""
    with open_regular(path, limit) as file:
        size = file.read(8)
        length = int.from_bytes(size, "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"its header has {length} bytes")
        header = file.read(length)
        facts: dict[str, Any] = parse_json(parse_json(header)["__metadata__"]["dream3d"].encode())
        seal = _SEAL.search(header)
        if seal is None:
            if facts.get("sealed"):
                raise ValueError("its SHA-256 is missing")
            return facts, 0, ""
        start, end = seal.span(1)
        return facts, 8 + start, hash_stream(file, size + header[:start] + _UNSEALED + header[end:])


def all_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest last; none if it does not exist."""
    return sorted(path for path in folder.glob("step-*.safetensors") if NAME.fullmatch(path.name))
