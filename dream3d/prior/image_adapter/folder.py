"""An adapter's folder, ``image_adapter`` beside a prior's other parts: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from dream3d.errors import PriorError
from dream3d.files import hash_file, write_atomically, write_json
from dream3d.prior.compact import pack
from dream3d.prior.folder import build_on_meta, read_tensors, shapes_of
from dream3d.prior.image_adapter.adapter import ImageAdapter, layer_channels
from dream3d.prior.image_adapter.config import parse_config
from dream3d.prior.image_adapter.features import PictureEncoder, load_encoder
from dream3d.prior.image_encoder import FOLDER as ENCODER_FOLDER
from dream3d.prior.schema import read_json

FOLDER = "image_adapter"
"""Its place inside a prior folder."""
FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter ready to read pictures, with the image encoder that it was trained with."""

    module: ImageAdapter
    encoder: PictureEncoder
    folder: Path
    """Of the prior."""
    licence: str = "unknown"

    @torch.no_grad()
    def tokens(self, pictures: Tensor) -> Tensor:
        """K squares (K, 3, S, S) in [0, 1], S the encoder's -> (1, K * queries, token_width), float32."""
        tokens: Tensor = self.module.tokens(self.encoder.features(pictures))
        return tokens

    @torch.no_grad()
    def blank_tokens(self, count: int) -> Tensor:
        """(1, count * queries, token_width): what guidance leads away from, as many tokens as ``count`` pictures have.

        The same picture ``count`` times is seen as once (a softmax over copies), and both halves fit into one batch.
        """
        tokens: Tensor = self.module.tokens(self.encoder.blank())
        return tokens.repeat(1, count, 1)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the adapter's and the image encoder's files."""
        return adapter_digest(self.folder)


def adapter_digest(folder: Path) -> str:
    """SHA-256 of the files of a prior's image adapter and image encoder. Raises OSError."""
    places = (folder / FOLDER, folder / ENCODER_FOLDER)
    lines = (f"{place.name}/{name} {hash_file(place / name)}\n" for place in places for name in FILES)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def has_adapter(folder: Path) -> bool:
    """Whether a prior's folder has an image adapter."""
    return all((folder / FOLDER / name).is_file() for name in FILES)


def check_adapter(folder: Path, name: str) -> None:
    """:class:`PriorError` that says how to get one, unless the prior called ``name`` has an image adapter."""
    if not has_adapter(folder):
        raise PriorError(
            f"prior {name!r} has no image adapter ({FOLDER}/{FILES[1]} in its folder), so it cannot draw by pictures; "
            "train one by 'dream3d train' with task = \"retrieval\" (docs/mv-rag.md), use a prior that has one, or "
            "leave out --images and --retrieve"
        )


def load_adapter(
    folder: Path, name: str, unet: UNet2DConditionModel, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> LoadedAdapter:
    """The adapter of a prior's folder for its network; :class:`PriorError` for none, and for one that does not fit.

    The resampler computes in float32, since it runs once; the projections have the network's type.
    """
    check_adapter(folder, name)
    path = folder / FOLDER / FILES[0]
    data = read_json(path)
    config = parse_config(data, path)
    wanted = unet.config.cross_attention_dim
    if config.token_width != wanted:
        raise PriorError(
            f"{path}: the adapter's tokens are {config.token_width} wide, the network reads {wanted}; take the "
            "adapter that was trained with this prior"
        )
    channels = layer_channels(unet)
    adapter = build_on_meta(lambda: ImageAdapter(config, channels), path)
    tensors = read_adapter_tensors(folder / FOLDER / FILES[1], adapter)
    adapter.load_state_dict(tensors, assign=True)
    adapter.requires_grad_(False).eval().to(device)
    adapter.layers.to(dtype)
    encoder = load_encoder(folder, config.encoder, device)
    _check_features(adapter, encoder, path)
    licence = data.get("licence_weights")
    return LoadedAdapter(adapter, encoder, folder, licence if isinstance(licence, str) else "unknown")


def _check_features(adapter: ImageAdapter, encoder: PictureEncoder, path: Path) -> None:
    count, width = encoder.blank().shape[1:]
    config = adapter.config
    if width != config.feature_width or config.positions not in (0, count):
        raise PriorError(
            f"{path}: the adapter reads features of width {config.feature_width}"
            f"{f' at {config.positions} places' if config.positions else ''}, the image encoder gives {count} of width "
            f"{width}; take the image encoder that the adapter was trained with"
        )


def read_adapter_tensors(path: Path, adapter: ImageAdapter) -> dict[str, Tensor]:
    """An adapter's weights, in float32, by its module's names; :class:`PriorError` for any too many or too few."""
    own = {file_name(name): name for name in adapter.state_dict()}
    shapes = {file_name(name): size for name, size in shapes_of(adapter).items()}
    return {own[name]: value for name, value in read_tensors(path, shapes, torch.float32).items()}


def file_name(name: str) -> str:
    """The name in a file of a module's tensor: that of its layer in the stock network, with ``to_k_ip`` behind it."""
    return name.replace("/", ".")


def save_adapter(adapter: ImageAdapter, folder: Path, facts: Mapping[str, Any], compact: bool = False) -> None:
    """Write an adapter's two files into an existing folder, in half precision, or in int8 if ``compact``.

    ``facts`` are added to ``config.json``: licences, how it was trained.
    """
    state = {file_name(name): value.detach().cpu() for name, value in adapter.state_dict().items()}
    stored = pack(state) if compact else {name: value.half() for name, value in state.items()}
    tensors = {name: value.contiguous() for name, value in stored.items()}
    write_atomically(folder / FILES[1], lambda path: save_file(tensors, path))
    write_json(folder / FILES[0], {**adapter.config.to_dict(), **facts})
