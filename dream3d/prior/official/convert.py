"""Official MVDream weights -> a prior folder of stock networks in safetensors (docs/method.md, Official weights).

Three sources are told apart: ``checkpoint``, one LDM file with UNet, VAE and text tower; ``folder``, the
diffusers-style folder whose UNet kept its official names; ``converted``, what this module writes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dream3d.errors import Dream3DError, PriorError, UsageError, first_line
from dream3d.files import build_folder, replace_folder, write_json
from dream3d.prior.codec import vae_skeleton
from dream3d.prior.folder import STOCK_WEIGHTS, check_files, check_has, read_settings, shapes_of
from dream3d.prior.layout import Dtype, files_of
from dream3d.prior.official import ldm_keys
from dream3d.prior.official.architecture import Family
from dream3d.prior.official.components import Component, account, read_checkpoint, read_folder
from dream3d.prior.official.image_adapter import (
    ENCODER_FILE,
    RESAMPLER_FILE,
    adapter_component,
    adapter_tensors,
    encoder_component,
    read_adapter,
    without_projections,
)
from dream3d.prior.official.ldm_keys import Piece
from dream3d.prior.official.tensors import Tensors, open_tensors, write_tensors
from dream3d.prior.schema import read_json
from dream3d.prior.text import PromptEncoder
from dream3d.prior.unet import unet_skeleton

Layout = Literal["checkpoint", "folder", "converted"]

CONFIGS = Path(__file__).resolve().parent / "configs"
"""Tokenizer and schedule: small, the same for every copy of the weights, and so never fetched."""
_DTYPES: dict[Dtype, torch.dtype] = {"fp16": torch.float16, "fp32": torch.float32}
_DESCRIPTION: dict[str, Any] = {
    "version": 1,
    "image_size": 256,
    "views": 4,
    "camera": "row-major c2w, unit sphere, z up, azimuth 0 at +x looks at the front, OpenGL axes",
    # Trained on random greys (MVDream's data, docs/method.md); the middle one is the least unlike all of them.
    "background": [0.5, 0.5, 0.5],
    "prompt_suffix": ", 3d asset",
    "recipe": "mvdream",
    "licence_weights": "CreativeML OpenRAIL-M",
    "licence_data": "Objaverse (ODC-By, per-object licences) and LAION; see MVDream",
}


def detect(source: Path) -> Layout:
    """Which of the three layouts a path holds, judged by what is there; nothing is loaded.

    A folder that is none of them counts as ``converted``, whose reader names the file that is missing.
    Raises :class:`PriorError` if the path does not exist.
    """
    if source.is_file():
        return "checkpoint"
    if not source.is_dir():
        raise PriorError(
            f"{source} does not exist or is neither a file nor a folder; give a checkpoint or such a folder"
        )
    if not (source / "prior.json").is_file() and ((source / "model_index.json").is_file() or (source / "vae").is_dir()):
        return "folder"
    return "converted"


def convert(source: Path, destination: Path, dtype: Dtype = "fp16", replace: bool = False) -> Path:
    """Write a prior folder with the weights of ``source`` at ``destination`` and return that path.

    One tensor at a time is in memory beside the mapped source. The folder appears whole or not at all; with
    ``replace`` in place of the one that is there. Raises :class:`UsageError` if the destination exists without
    ``replace`` or has no parent folder, :class:`PriorError` if the source is damaged or any tensor is unknown, missing
    or of the wrong shape, and :class:`~dream3d.errors.Dream3DError` if writing fails.
    """
    if dtype not in _DTYPES:
        raise UsageError(f"unknown precision {dtype!r}; use fp16 or fp32")
    if not replace and (destination.exists() or destination.is_symlink()):
        raise UsageError(f"{destination} exists; choose another destination or remove it first")
    if not destination.parent.is_dir():
        raise UsageError(f"folder {destination.parent} does not exist; create it first")
    write = plan(source, _DTYPES[dtype])

    def fill(folder: Path) -> None:
        write(folder)
        missing = [name for name in files_of(folder) if not (folder / name).is_file()]
        if missing:
            raise PriorError(f"the conversion of {source} did not write {missing[0]}")

    try:
        (replace_folder if replace else build_folder)(destination, fill)
    except OSError as error:
        raise Dream3DError(f"{destination} could not be written ({error.strerror or error})") from error
    return destination


def plan(source: Path, dtype: torch.dtype) -> Callable[[Path], None]:
    """Check everything that headers tell; returns what fills an empty folder. Raises like :func:`convert`."""
    layout = detect(source)
    if layout == "converted":
        check_files(source)
        return lambda folder: _copy(source, folder, dtype)
    name, components = None, list[Component]()
    if layout == "checkpoint":
        family, components = read_checkpoint(source)
    elif (source / RESAMPLER_FILE).is_file():
        name = "mvrag"
        family, components = _read_mvrag(source)
    else:
        family, components = read_folder(source)
    configs = {component.folder: component.config for component in components}
    wanted, given = configs["unet"]["cross_attention_dim"], configs["text_encoder"]["hidden_size"]
    if wanted != given:
        raise PriorError(
            f"{source}: the UNet reads text of width {wanted}, the text encoder gives {given}; it mixes two models"
        )
    plans = [(one, account(one.tensors, one.expected, one.origin, one.unused)) for one in components]

    def fill(folder: Path) -> None:
        for component, pieces in plans:
            (folder / component.folder).mkdir()
            _write(component, pieces, folder / component.folder, dtype)
        write_small_files(folder, family, configs["text_encoder"]["max_position_embeddings"], source.name, name)

    return fill


def _read_mvrag(source: Path) -> tuple[Family, list[Component]]:
    """MV-RAG's folder: MVDream's network with an adapter's projections in it, the resampler and CLIP's vision tower.

    Files are read by their names here; ``model_index.json`` and code beside them are never looked at.
    """
    check_has(source, [ENCODER_FILE])
    family, components = read_folder(source, without_projections)
    unet = open_tensors(source / "unet" / STOCK_WEIGHTS)
    tensors = adapter_tensors(unet, open_tensors(source / RESAMPLER_FILE))
    adapter = adapter_component(tensors, channels_of(components[0].expected))
    return family, [*components, adapter, encoder_component(source)]


def channels_of(shapes: Mapping[str, torch.Size]) -> dict[str, int]:
    """Channels of the cross-attention layers of a stock UNet with tensors of these shapes, by name."""
    end = ".to_k.weight"
    return {name.removesuffix(end): size[0] for name, size in shapes.items() if name.endswith(f".attn2{end}")}


def add_adapter(source: Path, prior: Path, dtype: Dtype = "fp16") -> Path:
    """Give a prior folder the image adapter of official weights; returns its folder ``image_adapter``.

    ``source`` is MV-RAG's or ImageDream's folder or file, or a file with the 83 tensors of an adapter. The image
    encoder comes from the source if it has one and the prior has none. Raises :class:`UsageError` if the prior has an
    adapter, :class:`PriorError` for a source that does not fit, :class:`~dream3d.errors.Dream3DError` if writing fails.
    """
    check_files(prior)
    target = prior / "image_adapter"
    if target.exists():
        raise UsageError(f"{target} exists; remove it first, or use a copy of the prior")
    components = read_adapter(source, channels_of(shapes_of(unet_skeleton(prior / "unet"))))
    plans = [(one, account(one.tensors, one.expected, one.origin, one.unused)) for one in components]
    if len(plans) == 1 and not (prior / ENCODER_FILE).is_file():
        raise PriorError(
            f"neither {source} nor {prior} has an image encoder; put CLIP's ViT-H/14 into {prior / 'image_encoder'}"
        )
    try:
        for component, pieces in reversed(plans):  # the adapter last: with it the prior reads pictures
            if not (prior / component.folder).exists():

                def fill(folder: Path, one: Component = component, parts: Mapping[str, Piece] = pieces) -> None:
                    _write(one, parts, folder, _DTYPES[dtype])

                build_folder(prior / component.folder, fill)
    except OSError as error:
        raise Dream3DError(f"{target} could not be written ({error.strerror or error})") from error
    return target


def _write(component: Component, pieces: Mapping[str, Piece], place: Path, dtype: torch.dtype) -> None:
    write_json(place / "config.json", component.config, ascii_only=True)
    make = _maker(component.tensors, pieces, dtype)
    write_tensors(place / component.file, component.expected, dtype, make)


def _maker(tensors: Tensors, pieces: Mapping[str, Piece], dtype: torch.dtype) -> Callable[[str], Tensor]:
    def make(name: str) -> Tensor:
        piece = pieces[name]
        full = tensors.full_names[piece.source]
        try:
            tensor = tensors[piece.source].detach().resolve_neg()
        except Exception as error:  # torch and safetensors raise anything on a damaged file
            raise PriorError(
                f"{tensors.path}: tensor {full!r} cannot be read ({first_line(error)}); download it again"
            ) from error
        if not tensor.is_floating_point():
            raise PriorError(f"{tensors.path}: tensor {full!r} holds {tensor.dtype}, not floating-point numbers")
        if piece.third is not None:
            tensor = tensor.chunk(3)[piece.third]
        if piece.flatten:
            tensor = tensor.flatten(1)
        tensor = tensor.to(dtype)
        if not bool(tensor.isfinite().all()):
            raise PriorError(f"{tensors.path}: tensor {full!r} has values that are no finite {dtype}; try fp32")
        return tensor

    return make


def write_small_files(folder: Path, family: Family, tokens: int, source: str, prior_name: str | None = None) -> None:
    """Tokenizer, schedule and description; last, as ``prior.json`` says that the folder is complete.

    ``prior_name`` is the family's by default.
    """
    for name in ("tokenizer", "scheduler"):
        (folder / name).mkdir()
    tokenizer = json.loads((CONFIGS / "clip" / "tokenizer.json").read_text(encoding="utf-8"))
    word = next(word for word, index in tokenizer["model"]["vocab"].items() if index == family.padding_id)
    tokenizer["padding"] = {
        "strategy": {"Fixed": tokens},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": family.padding_id,
        "pad_type_id": 0,
        "pad_token": word,
    }
    path = folder / "tokenizer" / "tokenizer.json"
    path.write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    shutil.copyfile(CONFIGS / "mvdream" / "scheduler_config.json", folder / "scheduler" / "scheduler_config.json")
    description = {"name": prior_name or family.name, **_DESCRIPTION, "text_tokens": tokens, "converted_from": source}
    write_json(folder / "prior.json", description, ascii_only=True)


def _copy(source: Path, folder: Path, dtype: torch.dtype) -> None:
    """A prior folder again, its networks in another type; the linear codec stays as it is."""
    settings = read_settings(source)
    PromptEncoder(source, settings.text_tokens)  # checks the header of the text encoder
    for name in files_of(source, optional=True):
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        if not name.endswith(".safetensors") or name.startswith("codec/"):
            shutil.copyfile(source / name, target)
            continue
        tensors = open_tensors(source / name)
        expected: Mapping[str, torch.Size] = tensors.shapes
        if name.startswith("unet/"):
            expected = shapes_of(unet_skeleton(source / "unet"))
        elif name.startswith("vae/"):
            config_path = source / "vae" / "config.json"
            expected = shapes_of(vae_skeleton(read_json(config_path), config_path))
        pieces = account(tensors, expected, ldm_keys.same_name)
        write_tensors(target, expected, dtype, _maker(tensors, pieces, dtype))
