"""Reading a prior folder as untrusted data: json and safetensors only, every tensor accounted for."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dream3d.errors import PriorError, first_line
from dream3d.files import hash_file
from dream3d.prior.compact import ROW_SCALE, unpack
from dream3d.prior.layout import AttentionKind, files_of
from dream3d.prior.schema import SETTINGS, checked, read_json

STOCK_WEIGHTS = "diffusion_pytorch_model.safetensors"
"""The name that diffusers gives a network's weights."""
MAX_NAMES = 4096
"""All names are read by the text encoder before a run; of a prior with more, no list says what it does not know."""
MAX_HEADER_BYTES = 16 * 2**20
"""Of a weights file, before its tensors."""
MAX_NUMBER_BYTES = 8
"""Of one number in a weights file."""
_STORED = ("F16", "BF16", "F32", "F64", "I8")
"""Types of weights; int8 has scales beside it."""

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class PriorSettings:
    """The part of ``prior.json`` that changes behaviour, checked."""

    name: str
    image_size: int
    """Side of the prior's square images, pixels."""
    views: int
    text_tokens: int
    """Tokens that the text encoder reads, the two special ones included."""
    background: tuple[float, float, float]
    """Background colour of its training images, sRGB in [0, 1]."""
    version: int = 0
    recipe: str = "mini"
    """Recommended preset."""
    licence_weights: str = "unknown"
    licence_data: str = "unknown"
    prompt_suffix: str = ""
    """What its 3D captions end with, such as ", 3d asset"."""
    attention: AttentionKind = "3d"
    names: tuple[str, ...] = ()
    """What its training objects were called; empty if it does not say."""
    base: str = ""
    """Name or folder of the prior that it was personalised from; empty for one of its own."""
    base_digest: str = ""
    """Of that prior, see :func:`digest_of`."""


def check_files(folder: Path) -> tuple[str, ...]:
    """The files of a prior folder; :class:`PriorError` naming the first one that it lacks."""
    if not folder.is_dir():
        raise PriorError(f"prior folder {folder} does not exist; give a catalogue name or a folder with prior.json")
    check_has(folder, files_of(folder))
    return files_of(folder)


def check_has(folder: Path, names: Iterable[str], advice: str = "copy the complete folder") -> None:
    """:class:`PriorError` naming the first of some files that a folder lacks."""
    for name in names:
        if not (folder / name).is_file():
            raise PriorError(f"folder {folder} lacks {name}; {advice}")


def digest_of(folder: Path) -> str:
    """SHA-256 of the names and contents of a prior's files. Raises OSError."""
    lines = (f"{name} {hash_file(folder / name)}\n" for name in files_of(folder))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_settings(folder: Path) -> PriorSettings:
    """``prior.json`` of a folder, checked field by field."""
    path = folder / "prior.json"
    data = checked(read_json(path), SETTINGS, path, needed=("image_size", "views", "text_tokens"))
    if data.get("background", "white") == "white":
        data["background"] = (1, 1, 1)
    names = tuple(name for name in data.get("names", ()) if name.strip())
    data["names"] = names if len(names) <= MAX_NAMES else ()
    red, green, blue = map(float, data["background"])
    return PriorSettings(**{"name": folder.name[:100], **data, "background": (red, green, blue)})


def read_tensors(
    path: Path, expected: Mapping[str, torch.Size], dtype: torch.dtype, ignored_prefix: str | None = None
) -> dict[str, Tensor]:
    """Tensors of a safetensors file, after checking that names and shapes are exactly the expected ones.

    Raises :class:`PriorError` for a truncated or foreign file and for the first missing, unknown or
    wrong-shaped tensor. Shapes are compared on the file's header, before anything is loaded. Tensors
    whose name starts with ``ignored_prefix`` may be there and are left out.
    """
    check_tensors(path, expected, ignored_prefix)
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        tensors = {}
        for name in expected:
            tensor, largest = file.get_tensor(name), None
            if name + ROW_SCALE in names:
                scale = file.get_tensor(name + ROW_SCALE)
                # At most 128 steps: to look at the scales is enough, and much faster.
                tensor, largest = unpack(tensor, scale, dtype), (128 * scale).to(dtype)
            tensors[name] = tensor.to(dtype)
            check_finite(tensors[name] if largest is None else largest, f"{path}: tensor {name!r}", f"{dtype} numbers")
    return tensors


def check_finite(values: Tensor, what: str, needed: str = "numbers") -> None:
    """:class:`PriorError` unless all values are finite."""
    if values.numel() and not all(bound.isfinite() for bound in values.aminmax()):
        raise PriorError(f"{what}: {needed} that are not finite; is the prior damaged?")


def check_tensors(path: Path, expected: Mapping[str, torch.Size], ignored_prefix: str | None = None) -> None:
    """The header part of :func:`read_tensors`: cheap, loads no tensor."""
    needed = sum(size.numel() for size in expected.values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 2 * needed > memory:
        raise PriorError(
            f"{path}: the configuration asks for {needed:.3g} numbers, more than {memory / 1e9:.0f} GB of memory hold"
        )
    # Before the library maps the file: one with holes can claim any size.
    if path.stat().st_size > MAX_NUMBER_BYTES * needed + MAX_HEADER_BYTES:
        raise PriorError(f"{path} is larger than its configuration's {needed} numbers; copy the complete folder")
    found, kinds = read_header(path)
    for name, shape in expected.items():
        if name not in found:
            raise PriorError(f"{path} lacks the tensor {name!r}; it does not belong to this configuration")
        if found[name] != shape:
            raise PriorError(
                f"{path}: tensor {name!r} has shape {tuple(found[name])}, the configuration needs {tuple(shape)}"
            )
        if kinds[name] not in _STORED or kinds.get(name + ROW_SCALE, "F32") not in _STORED:
            raise PriorError(f"{path}: tensor {name!r} holds {kinds[name]}, not floating-point numbers")
    unknown = sorted(
        name for name in found.keys() - expected.keys() if ignored_prefix is None or not name.startswith(ignored_prefix)
    )
    if unknown:
        raise PriorError(f"{path} holds the unknown tensor {unknown[0]!r}; it does not belong to this configuration")


def read_header(path: Path) -> tuple[dict[str, torch.Size], dict[str, str]]:
    """Shapes and types by name from a safetensors file's header; :class:`PriorError` for a truncated or foreign file.

    Scales of :mod:`dream3d.prior.compact` are checked against their tensors, and their shapes left out.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: torch.Size(part.get_shape()) for name, part in slices.items()}
            kinds = {name: str(part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError, RuntimeError, MemoryError) as error:
        raise PriorError(f"{path} is truncated or not a safetensors file ({error}); copy it again") from error
    for name in [name for name, kind in kinds.items() if kind == "I8"]:
        if shapes.pop(name + ROW_SCALE, None) != shapes[name][:1]:
            raise PriorError(f"{path}: tensor {name!r} is int8 without one scale a row in {name + ROW_SCALE!r}")
    return shapes, kinds


def known_arguments(kind: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a configuration that a class's constructor takes; files carry more, such as versions."""
    known = inspect.signature(kind).parameters
    return {key: value for key, value in config.items() if key in known}


def build_on_meta(build: Callable[[], Module], path: Path) -> Module:
    """Build a network without memory, so that an absurd configuration costs nothing; errors name the file."""
    try:
        with torch.device("meta"):
            return build()
    except Exception as error:  # third-party constructors raise anything on a bad configuration
        raise PriorError(f"{path} does not describe a network ({type(error).__name__}: {first_line(error)})") from error


def shapes_of(module: nn.Module) -> dict[str, torch.Size]:
    """Names and shapes of everything in a module's state."""
    return {name: value.shape for name, value in module.state_dict().items()}
