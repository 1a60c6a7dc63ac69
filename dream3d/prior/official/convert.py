"""Official MVDream weights -> a prior folder of stock networks in safetensors (facts 1.7, 1.8).

Three sources are told apart: ``checkpoint``, one LDM file with UNet, VAE and text tower; ``folder``, the
diffusers-style folder whose UNet kept its official names; ``converted``, what this module writes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from dream3d.errors import Dream3DError, PriorError, UsageError
from dream3d.files import build_folder
from dream3d.prior.codec import vae_skeleton
from dream3d.prior.folder import STOCK_WEIGHTS, build_on_meta, check_files, read_json, read_settings, shapes_of
from dream3d.prior.official import ldm_keys
from dream3d.prior.official.architecture import (
    SD21,
    Family,
    count_blocks,
    family_of,
    text_config,
    unet_config,
    vae_config,
)
from dream3d.prior.official.ldm_keys import Origin, Piece
from dream3d.prior.official.tensors import Tensors, open_tensors, write_tensors
from dream3d.prior.text import CLIP_PREFIX, PromptEncoder, clip_file_name
from dream3d.prior.unet import unet_skeleton

Layout = Literal["checkpoint", "folder", "converted"]
Precision = Literal["fp16", "fp32"]

CONFIGS = Path(__file__).resolve().parent / "configs"
"""Tokenizer and schedule: small, the same for every copy of the weights, and so never fetched."""
_DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
_SCHEDULE_STEPS = 1000
_DESCRIPTION: dict[str, Any] = {
    "version": 1,
    "image_size": 256,
    "views": 4,
    "camera": "row-major c2w, unit sphere, z up, azimuth 0 at +x looks at the front, OpenGL axes",
    "background": [0.5, 0.5, 0.5],  # trained on random greys (facts 5); the middle one is the least unlike all of them
    "prompt_suffix": ", 3d asset",
    "recipe": "mvdream",
    "licence_weights": "CreativeML OpenRAIL-M",
    "licence_data": "Objaverse (ODC-By, per-object licences) and LAION; see MVDream",
}


@dataclass(frozen=True)
class _Component:
    """One network of the prior: what it is made from, what it will be, and by which names."""

    folder: str
    file: str
    config: dict[str, Any]
    tensors: Tensors
    expected: Mapping[str, torch.Size]
    """Names and shapes that the folder's file must have."""
    origin: Origin
    unused: frozenset[str] = frozenset()
    """Tensors that belong there and are not converted."""


def detect(source: Path) -> Layout:
    """Which of the three layouts a path holds, judged by what is there; nothing is loaded.

    A folder that is none of them counts as ``converted``, whose reader names the file that is missing.
    Raises :class:`PriorError` if the path does not exist.
    """
    if source.is_file():
        return "checkpoint"
    if not source.is_dir():
        raise PriorError(f"{source} does not exist; give a checkpoint file or a folder with weights")
    if not (source / "prior.json").is_file() and ((source / "model_index.json").is_file() or (source / "vae").is_dir()):
        return "folder"
    return "converted"


def convert(source: Path, destination: Path, dtype: Precision = "fp16") -> Path:
    """Write a prior folder with the weights of ``source`` at ``destination`` and return that path.

    One tensor at a time is in memory beside the mapped source. The folder appears whole or not at all.
    Raises :class:`UsageError` if the destination exists or has no parent folder, :class:`PriorError` if the
    source is damaged or any tensor is unknown, missing or of the wrong shape, and
    :class:`~dream3d.errors.Dream3DError` if writing fails.
    """
    if dtype not in _DTYPES:
        raise UsageError(f"unknown precision {dtype!r}; use fp16 or fp32")
    if destination.exists() or destination.is_symlink():
        raise UsageError(f"{destination} exists; choose another destination or remove it first")
    if not destination.parent.is_dir():
        raise UsageError(f"folder {destination.parent} does not exist; create it first")
    layout = detect(source)
    fill: Callable[[Path], None]
    if layout == "converted":
        check_files(source)
        fill = lambda folder: _copy(source, folder, _DTYPES[dtype])  # noqa: E731
    else:
        fill = _plan_official(source, layout, _DTYPES[dtype])
    try:
        build_folder(destination, fill)
    except OSError as error:
        raise Dream3DError(f"{destination} could not be written ({error.strerror or error})") from error
    return destination


def _plan_official(source: Path, layout: Layout, dtype: torch.dtype) -> Callable[[Path], None]:
    """Check everything that headers tell, then return what fills the folder."""
    family, components = _from_checkpoint(source) if layout == "checkpoint" else _from_folder(source)
    unet, _, text = components
    if unet.config["cross_attention_dim"] != text.config["hidden_size"]:
        raise PriorError(
            f"{source}: the UNet reads text of width {unet.config['cross_attention_dim']}, "
            f"the text encoder gives {text.config['hidden_size']}; it mixes two models"
        )
    pieces = [
        account(component.tensors, component.expected, component.origin, component.unused) for component in components
    ]

    def fill(folder: Path) -> None:
        for component, plan in zip(components, pieces, strict=True):
            place = folder / component.folder
            place.mkdir()
            _write_json(place / "config.json", component.config)
            make = _maker(component.tensors, plan, dtype)
            write_tensors(place / component.file, component.expected, dtype, make)
        write_small_files(folder, family, text.config["max_position_embeddings"], source.name)

    return fill


def _from_checkpoint(path: Path) -> tuple[Family, list[_Component]]:
    tensors = open_tensors(path)
    prefixes = {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "openclip": "cond_stage_model.model.",
        "clip": "cond_stage_model.transformer.text_model.",
    }
    for name, shape in tensors.shapes.items():
        if name in ldm_keys.SCHEDULE_BUFFERS:
            if tuple(shape) != (_SCHEDULE_STEPS,):
                raise PriorError(f"{path}: tensor {name!r} has shape {tuple(shape)}, not ({_SCHEDULE_STEPS},)")
        elif not name.startswith(tuple(prefixes.values())):
            raise PriorError(f"{path} holds the unknown tensor {name!r}; it is not an official MVDream checkpoint")
    unet, vae, openclip, clip = (tensors.under(prefix) for prefix in prefixes.values())
    family = family_of(unet)
    wanted, other = (openclip, clip) if family is SD21 else (clip, openclip)
    if other.shapes:
        stray = next(iter(other.full_names.values()))
        raise PriorError(f"{path} holds {stray!r}, a text encoder that does not belong to {family.name}'s UNet")
    return family, [
        _unet(unet, family),
        _vae(vae, False),
        _openclip_text(wanted, family) if family is SD21 else _stock_text(wanted, family),
    ]


def _from_folder(folder: Path) -> tuple[Family, list[_Component]]:
    places = (f"unet/{STOCK_WEIGHTS}", f"vae/{STOCK_WEIGHTS}", "text_encoder/model.safetensors")
    for name in places:
        if not (folder / name).is_file():
            raise PriorError(f"folder {folder} lacks {name}; copy the complete folder")
    unet, vae, text = (open_tensors(folder / name) for name in places)
    if "conv_in.weight" in unet.shapes:
        raise PriorError(f"{unet.path} has stock names; a folder of stock networks needs a prior.json beside them")
    family = family_of(unet)
    text = text.renamed(lambda name: name.removeprefix(CLIP_PREFIX))
    return family, [_unet(unet, family), _vae(vae.renamed(ldm_keys.modern_vae_name), True), _stock_text(text, family)]


def _unet(tensors: Tensors, family: Family) -> _Component:
    config = unet_config(tensors, family)
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    expected = shapes_of(build_on_meta(lambda: UNet2DConditionModel(**arguments), tensors.path))
    return _Component("unet", STOCK_WEIGHTS, config, tensors, expected, ldm_keys.unet_origin)


def _vae(tensors: Tensors, stock_names: bool) -> _Component:
    config = vae_config(tensors, stock_names)
    expected = shapes_of(vae_skeleton(config, tensors.path))
    return _Component(
        "vae", STOCK_WEIGHTS, config, tensors, expected, ldm_keys.same_name if stock_names else ldm_keys.vae_origin
    )


def _openclip_text(tensors: Tensors, family: Family) -> _Component:
    config = text_config(tensors, family, openclip=True)
    last = ldm_keys.openclip_block_names(count_blocks(tensors, "transformer.resblocks.") - 1)
    return _text(config, tensors, ldm_keys.openclip_origin, last | ldm_keys.OPENCLIP_UNUSED)


def _stock_text(tensors: Tensors, family: Family) -> _Component:
    return _text(text_config(tensors, family, openclip=False), tensors, ldm_keys.same_name, ldm_keys.CLIP_UNUSED)


def _text(config: dict[str, Any], tensors: Tensors, origin: Origin, unused: frozenset[str]) -> _Component:
    def from_file_name(name: str) -> Piece | None:
        return origin(name.removeprefix(CLIP_PREFIX))

    build: Callable[[], nn.Module] = lambda: CLIPTextModel(CLIPTextConfig(**config))  # noqa: E731
    shapes = shapes_of(build_on_meta(build, tensors.path))
    expected = {clip_file_name(name): shape for name, shape in shapes.items()}
    return _Component("text_encoder", "model.safetensors", config, tensors, expected, from_file_name, unused)


def account(
    tensors: Tensors, expected: Mapping[str, torch.Size], origin: Origin, unused: frozenset[str] = frozenset()
) -> dict[str, Piece]:
    """Where every expected tensor comes from, with nothing missing and nothing left over.

    Raises :class:`PriorError` naming the first missing, wrong-shaped or unknown tensor of the source.
    """
    pieces: dict[str, Piece] = {}
    for name, shape in expected.items():
        piece = origin(name)
        if piece is None:
            raise PriorError(f"this version of the libraries has a tensor {name!r} that no checkpoint is known to hold")
        if piece.source not in tensors.shapes:
            raise PriorError(
                f"{tensors.path} lacks the tensor {tensors.prefix + piece.source!r}; it is incomplete or another model"
            )
        needed = _source_shape(piece, shape)
        if tensors.shapes[piece.source] != needed:
            raise PriorError(
                f"{tensors.path}: tensor {tensors.full_names[piece.source]!r} has shape "
                f"{tuple(tensors.shapes[piece.source])}, the others need {tuple(needed)}"
            )
        pieces[name] = piece
    unknown = sorted(tensors.shapes.keys() - {piece.source for piece in pieces.values()} - unused)
    if unknown:
        raise PriorError(
            f"{tensors.path} holds the unknown tensor {tensors.full_names[unknown[0]]!r}; it is another model"
        )
    return pieces


def _source_shape(piece: Piece, shape: torch.Size) -> torch.Size:
    if piece.third is not None:
        return torch.Size([3 * shape[0], *shape[1:]])
    return torch.Size([*shape, 1, 1]) if piece.flatten else shape


def _maker(tensors: Tensors, pieces: Mapping[str, Piece], dtype: torch.dtype) -> Callable[[str], Tensor]:
    def make(name: str) -> Tensor:
        piece = pieces[name]
        tensor, full = tensors[piece.source], tensors.full_names[piece.source]
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


def write_small_files(folder: Path, family: Family, tokens: int, source: str) -> None:
    """Tokenizer, schedule and description; last, as ``prior.json`` says that the folder is complete."""
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
    description = {"name": family.name, **_DESCRIPTION, "text_tokens": tokens, "converted_from": source}
    _write_json(folder / "prior.json", description)


def _copy(source: Path, folder: Path, dtype: torch.dtype) -> None:
    """A prior folder again, its networks in another type; the linear codec stays as it is."""
    settings = read_settings(source)
    PromptEncoder(source, settings.text_tokens)  # checks the header of the text encoder
    for name in check_files(source):
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


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
