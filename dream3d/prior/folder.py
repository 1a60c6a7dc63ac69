"""Reading a prior folder as untrusted data: json and safetensors only, every tensor accounted for."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dream3d.errors import PriorError
from dream3d.prior.compact import ROW_SCALE, unpack
from dream3d.prior.layout import ATTENTION_KINDS, AttentionKind, files_of

STOCK_WEIGHTS = "diffusion_pytorch_model.safetensors"
"""The name that diffusers gives a network's weights."""
MAX_JSON_BYTES = 64 * 2**20
"""A tokenizer is a few megabytes; anything far beyond is not a configuration."""
MAX_NAMES = 4096
"""All names are read by the text encoder before a run; of a prior with more, no list says what it does not know."""

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class PriorSettings:
    """The part of ``prior.json`` that changes behaviour, checked."""

    name: str
    version: int
    image_size: int
    """Side of the prior's square images, pixels."""
    views: int
    text_tokens: int
    """Tokens that the text encoder reads, the two special ones included."""
    background: tuple[float, float, float]
    """Background colour of its training images, sRGB in [0, 1]."""
    recipe: str
    """Recommended preset."""
    licence_weights: str
    licence_data: str
    prompt_suffix: str = ""
    """What its 3D captions end with, such as ", 3d asset"."""
    attention: AttentionKind = "3d"
    names: tuple[str, ...] = ()
    """What its training objects were called; empty if it does not say."""


def check_files(folder: Path) -> tuple[str, ...]:
    """The files of a prior folder; :class:`PriorError` naming the first one that it lacks."""
    if not folder.is_dir():
        raise PriorError(f"prior folder {folder} does not exist; give a catalogue name or a folder with prior.json")
    names = files_of(folder)
    for name in names:
        if not (folder / name).is_file():
            raise PriorError(f"prior folder {folder} lacks {name}; copy the complete folder")
    return names


def read_json(path: Path) -> dict[str, Any]:
    """A json object from a file of bounded size; :class:`PriorError` otherwise."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise PriorError(f"{path} is larger than {MAX_JSON_BYTES} bytes, which is no configuration file")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise PriorError(f"{path} is not valid JSON ({type(error).__name__}); copy the file again") from error
    if not isinstance(data, dict):
        raise PriorError(f"{path} holds a {type(data).__name__}, not a JSON object; copy the file again")
    return data


def read_settings(folder: Path) -> PriorSettings:
    """``prior.json`` of a folder, checked field by field."""
    path = folder / "prior.json"
    data = read_json(path)

    def integer(key: str, low: int, high: int) -> int:
        value = data.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise PriorError(f"{path}: {key!r} is {value!r}, not a whole number from {low} to {high}")
        return value

    attention = data.get("attention", "3d")
    if attention not in ATTENTION_KINDS:
        raise PriorError(f"{path}: unknown attention {attention!r}; known: {', '.join(ATTENTION_KINDS)}")
    return PriorSettings(
        name=str(data.get("name", folder.name))[:100],
        version=integer("version", 0, 10**6) if "version" in data else 0,
        image_size=integer("image_size", 8, 4096),
        views=integer("views", 1, 64),
        text_tokens=integer("text_tokens", 2, 1024),
        background=_color(data.get("background", "white"), path),
        recipe=str(data.get("recipe", "mini")),
        licence_weights=str(data.get("licence_weights", "unknown")),
        licence_data=str(data.get("licence_data", "unknown")),
        prompt_suffix=str(data.get("prompt_suffix", ""))[:100],
        attention=attention,
        names=_names(data.get("names", []), path),
    )


def _color(value: object, path: Path) -> tuple[float, float, float]:
    if value == "white":
        return (1.0, 1.0, 1.0)
    if isinstance(value, list) and len(value) == 3 and all(isinstance(v, int | float) for v in value):
        red, green, blue = (float(v) for v in value)
        if all(math.isfinite(v) and 0 <= v <= 1 for v in (red, green, blue)):
            return (red, green, blue)
    raise PriorError(f"{path}: 'background' is {value!r}, not \"white\" or three numbers from 0 to 1")


def _names(value: object, path: Path) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(name[:100] for name in value if name.strip()) if len(value) <= MAX_NAMES else ()
    raise PriorError(f"{path}: 'names' is not a list of strings; write one, or leave it out")


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
        scaled = {name.removesuffix(ROW_SCALE) for name in file.keys() if name.endswith(ROW_SCALE)}  # noqa: SIM118
        return {
            name: unpack(file.get_tensor(name), file.get_tensor(name + ROW_SCALE), dtype)
            if name in scaled
            else file.get_tensor(name).to(dtype)
            for name in expected
        }


def check_tensors(path: Path, expected: Mapping[str, torch.Size], ignored_prefix: str | None = None) -> None:
    """The header part of :func:`read_tensors`: cheap, loads no tensor."""
    found = tensor_shapes(path)
    for name, shape in expected.items():
        if name not in found:
            raise PriorError(f"{path} lacks the tensor {name!r}; it does not belong to this configuration")
        if found[name] != shape:
            raise PriorError(
                f"{path}: tensor {name!r} has shape {tuple(found[name])}, the configuration needs {tuple(shape)}"
            )
    unknown = sorted(
        name for name in found.keys() - expected.keys() if ignored_prefix is None or not name.startswith(ignored_prefix)
    )
    if unknown:
        raise PriorError(f"{path} holds the unknown tensor {unknown[0]!r}; it does not belong to this configuration")


def tensor_shapes(path: Path) -> dict[str, torch.Size]:
    """Names and shapes from a safetensors file's header; :class:`PriorError` for a truncated or foreign file.

    Scales of :mod:`dream3d.prior.compact` are checked against their tensors and left out.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: torch.Size(part.get_shape()) for name, part in slices.items()}
            whole = {name for name, part in slices.items() if part.get_dtype() == "I8"}
    except (SafetensorError, OSError) as error:
        raise PriorError(f"{path} is truncated or not a safetensors file ({error}); copy it again") from error
    for name in whole:
        if shapes.pop(name + ROW_SCALE, None) != shapes[name][:1]:
            raise PriorError(f"{path}: tensor {name!r} is int8 without one scale a row in {name + ROW_SCALE!r}")
    return shapes


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
        raise PriorError(f"{path} does not describe a network ({type(error).__name__}: {error})") from error


def shapes_of(module: nn.Module) -> dict[str, torch.Size]:
    """Names and shapes of everything in a module's state."""
    return {name: value.shape for name, value in module.state_dict().items()}
