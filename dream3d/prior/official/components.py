"""The components of an official model: what each is made from, what it becomes, and by which names.

A prior gains a component, such as an image encoder, by a line in ``_CHECKPOINT_PARTS`` or ``_FOLDER_PARTS`` and the
function that describes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from dream3d.errors import PriorError
from dream3d.prior.codec import vae_skeleton
from dream3d.prior.folder import STOCK_WEIGHTS, build_on_meta, check_has, shapes_of
from dream3d.prior.official import architecture, ldm_keys
from dream3d.prior.official.architecture import SD15, SD21, Family, family_of
from dream3d.prior.official.ldm_keys import Origin, Piece
from dream3d.prior.official.tensors import Tensors, open_tensors
from dream3d.prior.schema import CLIP_TEXT, UNET, checked
from dream3d.prior.text import CLIP_PREFIX, clip_file_name

_SCHEDULE_STEPS = 1000


@dataclass(frozen=True)
class Component:
    """One network of the prior."""

    folder: str
    file: str
    config: dict[str, Any]
    tensors: Tensors
    """What it is made from."""
    expected: Mapping[str, torch.Size]
    """Names and shapes that the folder's file must have."""
    origin: Origin
    unused: frozenset[str] = frozenset()
    """Tensors that belong there and are not converted."""


def read_checkpoint(path: Path) -> tuple[Family, list[Component]]:
    """The components of one LDM file; :class:`PriorError` for a tensor that is of no known one."""
    tensors = open_tensors(path)
    for name, shape in tensors.shapes.items():
        if name in ldm_keys.SCHEDULE_BUFFERS:
            if tuple(shape) != (_SCHEDULE_STEPS,):
                raise PriorError(f"{path}: tensor {name!r} has shape {tuple(shape)}, not ({_SCHEDULE_STEPS},)")
        elif not name.startswith(tuple(prefix for prefix, *_ in _CHECKPOINT_PARTS)):
            raise PriorError(f"{path} holds the unknown tensor {name!r}; it is not an official MVDream checkpoint")
    family = family_of(tensors.under(_CHECKPOINT_PARTS[0][0]))
    components = []
    for prefix, describe, only in _CHECKPOINT_PARTS:
        part = tensors.under(prefix)
        if only in (None, family):
            components.append(describe(part, family))
        elif part.shapes:
            stray = next(iter(part.full_names.values()))
            raise PriorError(f"{path} holds {stray!r}, a text encoder that does not belong to {family.name}'s UNet")
    return family, components


def read_folder(
    folder: Path, of_unet: Callable[[Tensors], Tensors] = lambda tensors: tensors
) -> tuple[Family, list[Component]]:
    """The components of a diffusers-style folder; :class:`PriorError` if a file is missing or the UNet's is stock.

    ``of_unet`` leaves tensors of the UNet's file out that are another component's.
    """
    check_has(folder, _FOLDER_PARTS)
    parts = {name: open_tensors(folder / name).renamed(rename) for name, (rename, _) in _FOLDER_PARTS.items()}
    first = next(iter(parts))
    unet = parts[first] = of_unet(parts[first])
    if "conv_in.weight" in unet.shapes:
        raise PriorError(f"{unet.path} has stock names; a folder of stock networks needs a prior.json beside them")
    family = family_of(unet)
    return family, [describe(parts[name], family) for name, (_, describe) in _FOLDER_PARTS.items()]


def _unet(tensors: Tensors, family: Family) -> Component:
    config = architecture.unet_config(tensors, family)
    arguments = checked(config, UNET, tensors.path)
    expected = shapes_of(build_on_meta(lambda: UNet2DConditionModel(**arguments), tensors.path))
    return Component("unet", STOCK_WEIGHTS, config, tensors, expected, ldm_keys.unet_origin)


def _vae(tensors: Tensors, family: Family, stock_names: bool = False) -> Component:
    config = architecture.vae_config(tensors, stock_names)
    expected = shapes_of(vae_skeleton(config, tensors.path))
    origin = ldm_keys.same_name if stock_names else ldm_keys.vae_origin
    return Component("vae", STOCK_WEIGHTS, config, tensors, expected, origin)


def _openclip_text(tensors: Tensors, family: Family) -> Component:
    config = architecture.text_config(tensors, family, openclip=True)
    last = ldm_keys.openclip_block_names(architecture.count_blocks(tensors, "transformer.resblocks.") - 1)
    return _text(config, tensors, ldm_keys.openclip_origin, last | ldm_keys.OPENCLIP_UNUSED)


def _clip_text(tensors: Tensors, family: Family) -> Component:
    return _text(
        architecture.text_config(tensors, family, openclip=False), tensors, ldm_keys.same_name, ldm_keys.CLIP_UNUSED
    )


def _text(config: dict[str, Any], tensors: Tensors, origin: Origin, unused: frozenset[str]) -> Component:
    def from_file_name(name: str) -> Piece | None:
        return origin(name.removeprefix(CLIP_PREFIX))

    arguments = checked(config, CLIP_TEXT, tensors.path)
    build: Callable[[], nn.Module] = lambda: CLIPTextModel(CLIPTextConfig(**arguments))  # noqa: E731
    shapes = shapes_of(build_on_meta(build, tensors.path))
    expected = {clip_file_name(name): shape for name, shape in shapes.items()}
    return Component("text_encoder", "model.safetensors", config, tensors, expected, from_file_name, unused)


_Describe = Callable[[Tensors, Family], Component]
_CHECKPOINT_PARTS: tuple[tuple[str, _Describe, Family | None], ...] = (
    ("model.diffusion_model.", _unet, None),
    ("first_stage_model.", _vae, None),
    ("cond_stage_model.model.", _openclip_text, SD21),
    ("cond_stage_model.transformer.text_model.", _clip_text, SD15),
)
"""Prefix of the tensors, the description, and the only family that has the part (None: all). The UNet is first."""
_FOLDER_PARTS: dict[str, tuple[Callable[[str], str], _Describe]] = {
    f"unet/{STOCK_WEIGHTS}": (str, _unet),
    f"vae/{STOCK_WEIGHTS}": (ldm_keys.modern_vae_name, partial(_vae, stock_names=True)),
    "text_encoder/model.safetensors": (lambda name: name.removeprefix(CLIP_PREFIX), _clip_text),
}
"""For each file: how its tensors are renamed first, and the description. The UNet is first."""


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
