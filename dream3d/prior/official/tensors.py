"""Weight files as untrusted data: names and shapes first, one tensor at a time after that.

A checkpoint of 5 GB is mapped, not read: what is in memory is the tensor being converted.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # only the name of the refusal: nothing here unpickles
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from dream3d.errors import PriorError, first_line
from dream3d.prior.folder import read_header

MAX_FILE_BYTES = 64 * 2**30
"""Ten times the largest official file. A file of holes may claim any size at no cost; what it becomes has none."""
_STORED_TYPES = {torch.float16: "F16", torch.float32: "F32"}


@dataclass(frozen=True)
class Tensors:
    """Named tensors of one file, or the part of them under a prefix."""

    path: Path
    shapes: Mapping[str, torch.Size]
    """By name without the prefix."""
    fetch: Callable[[str], Tensor]
    """From a full name, prefix included."""
    full_names: Mapping[str, str]
    """From a name here to the name in the file, for messages and for :attr:`fetch`."""
    prefix: str = ""
    """What the names here have lost."""

    def __getitem__(self, name: str) -> Tensor:
        return self.fetch(self.full_names[name])

    def under(self, prefix: str) -> Tensors:
        """The tensors whose names start with a prefix, which their names then lose."""
        names = {name.removeprefix(prefix): full for name, full in self.full_names.items() if name.startswith(prefix)}
        shapes = {name: self.shapes[prefix + name] for name in names}
        return Tensors(self.path, shapes, self.fetch, names, self.prefix + prefix)

    def renamed(self, rename: Callable[[str], str]) -> Tensors:
        """The same tensors by other names; :class:`PriorError` if two get the same one."""
        names: dict[str, str] = {}
        for name, full in self.full_names.items():
            if rename(name) in names:
                raise PriorError(f"{self.path} holds {full!r} and {names[rename(name)]!r}, which are the same tensor")
            names[rename(name)] = full
        return Tensors(
            self.path, {rename(name): shape for name, shape in self.shapes.items()}, self.fetch, names, self.prefix
        )

    def size(self, name: str, rank: int, axis: int) -> int:
        """One side of a tensor that the architecture is read from; :class:`PriorError` if it is not there."""
        if name not in self.shapes:
            raise PriorError(
                f"{self.path} lacks the tensor {self.prefix + name!r}; it is not an official MVDream checkpoint"
            )
        shape = self.shapes[name]
        if len(shape) != rank:
            raise PriorError(f"{self.path}: tensor {self.full_names[name]!r} has shape {tuple(shape)}, not {rank} axes")
        return int(shape[axis])


def open_tensors(path: Path) -> Tensors:
    """Open a torch file or a safetensors file; which of the two is decided by its content, not by its name.

    Raises :class:`PriorError` for anything else, and for a truncated, foreign or code-carrying file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise PriorError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if size > MAX_FILE_BYTES:
        raise PriorError(f"{path} has {size} bytes, more than {MAX_FILE_BYTES}; use the official file")
    if head.startswith(b"PK\x03\x04"):
        return _open_torch(path)
    if len(head) == 9 and head[8:] == b"{":
        return _open_safetensors(path)
    if head.startswith(b"\x80"):
        raise PriorError(
            f"{path} is a bare pickle or torch's format from before 1.6, which is not opened; "
            "use the official file, or save its state dict again as safetensors"
        )
    raise PriorError(f"{path} is neither a torch checkpoint nor a safetensors file; download it again")


def _open_safetensors(path: Path) -> Tensors:
    shapes = read_header(path)[0]
    file: Any = safe_open(path, framework="pt")
    return Tensors(path, shapes, file.get_tensor, {name: name for name in shapes})


def _open_torch(path: Path) -> Tensors:
    try:
        with zipfile.ZipFile(path) as archive:  # the table at the end of the file, which a truncated one lacks
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except Exception as error:  # besides BadZipFile, a damaged table raises errors of text, numbers and versions
        raise PriorError(f"{path} is truncated or damaged ({error}); download it again") from error
    if packed:
        raise PriorError(
            f"{path} is a compressed zip archive, not a torch checkpoint; unpack it and give what is in it"
        )
    try:
        content = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"the Python object {found[1]}" if found else "more than tensors"
        raise PriorError(
            f"{path} holds {what}, which could run code, so it was not opened; use the official file"
        ) from error
    except Exception as error:  # torch raises anything on a damaged archive
        raise PriorError(
            f"{path} is damaged or not a torch checkpoint ({first_line(error)}); download it again"
        ) from error
    return _from_state_dict(path, content)


def _from_state_dict(path: Path, content: Any) -> Tensors:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise PriorError(f"{path} holds a {type(content).__name__}, not a state dict; use the official file")
    if not content:
        raise PriorError(f"{path} holds no tensors; use the official file")
    for name, value in content.items():
        if not isinstance(name, str) or not _is_plain(value):
            kind = type(value).__name__ + (f" on {value.device}" if isinstance(value, Tensor) else "")
            raise PriorError(f"{path} holds {str(name)[:100]!r}, a {kind}, which is no weight tensor")
    state: dict[str, Tensor] = content
    claimed = sum(value.numel() * value.element_size() for value in state.values())
    if claimed > path.stat().st_size:  # overlapping storages could claim any size
        raise PriorError(f"{path} claims {claimed} bytes of tensors, more than the file has; use the official file")
    return Tensors(path, {n: v.shape for n, v in state.items()}, state.__getitem__, {n: n for n in state})


def _is_plain(value: object) -> bool:
    """Whether it is numbers in memory: no nested, sparse or quantised tensor, and none on the meta device."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_nested or value.is_quantized)
    )


def write_tensors(
    path: Path, shapes: Mapping[str, torch.Size], dtype: torch.dtype, make: Callable[[str], Tensor]
) -> None:
    """Write a safetensors file one tensor at a time: ``make(name)`` gives it, in any type, with the declared shape.

    ``safetensors.torch.save_file`` wants all tensors at once, which is most of a checkpoint in memory.
    The file is on the disk when this returns.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end, width = 0, torch.empty((), dtype=dtype).element_size()
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * width
        header[name] = {"dtype": _STORED_TYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    packed = json.dumps(header, separators=(",", ":")).encode()
    packed += b" " * (-len(packed) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(packed)) + packed)
        for name, shape in shapes.items():
            tensor = make(name).to(dtype).contiguous()
            if tensor.shape != shape:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, declared was {tuple(shape)}")
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
