"""Official image adapters -> the folder ``image_adapter`` of a prior: MV-RAG's, ImageDream's, or a file's.

An adapter is two groups of tensors: projections of pictures' tokens, which lie in the UNet's cross-attention layers
under official names, and a resampler. What else an ImageDream file holds is left out: there the UNet was trained too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dream3d.errors import PriorError
from dream3d.prior.folder import STOCK_WEIGHTS, build_on_meta, shapes_of
from dream3d.prior.image_adapter.adapter import ImageAdapter
from dream3d.prior.image_adapter.config import AdapterConfig
from dream3d.prior.image_adapter.features import VISION_PREFIX, clip_shapes, clip_skeleton
from dream3d.prior.image_adapter.folder import file_name
from dream3d.prior.official import ldm_keys
from dream3d.prior.official.architecture import count_blocks
from dream3d.prior.official.components import Component
from dream3d.prior.official.ldm_keys import Piece
from dream3d.prior.official.tensors import Tensors, open_tensors
from dream3d.prior.schema import read_json

RESAMPLER_FILE = "resampler/model.safetensors"
ENCODER_FILE = "image_encoder/model.safetensors"
_HEAD = 64
"""Channels of an attention head of the resampler."""
_PREFIXES = ("resampler.", "image_embed.")
"""Of a resampler's tensors: of a file with an adapter alone, and of ImageDream."""
_UNUSED = frozenset({"embeddings.position_ids", "visual_projection.weight"})
"""Of the vision tower: numbers from 0 on that older versions stored, and what follows the features."""
_VIT_H = {"hidden_act": "gelu", "num_attention_heads": 16, "layer_norm_eps": 1e-5}
"""What does not show in the shapes of OpenCLIP's ViT-H/14, for a folder without its config.json."""


def is_projection(name: str) -> bool:
    """Whether an official UNet tensor belongs to the adapter."""
    return name.endswith((".to_k_ip.weight", ".to_v_ip.weight"))


def read_adapter(source: Path, channels: Mapping[str, int]) -> list[Component]:
    """The adapter in a file or in a diffusers-style folder, and the image encoder if the folder has one.

    ``channels`` are those of the prior's cross-attention layers by stock name. Raises :class:`PriorError` for a source
    without adapter, and for tensors that are missing or do not fit.
    """
    if source.is_dir():
        unet = open_tensors(source / "unet" / STOCK_WEIGHTS)
        apart = source / RESAMPLER_FILE
        tensors = adapter_tensors(unet, open_tensors(apart) if apart.is_file() else None)
        components = [adapter_component(tensors, channels)]
        return [*components, encoder_component(source)] if (source / ENCODER_FILE).is_file() else components
    tensors = open_tensors(source)
    inner = tensors.under("model.diffusion_model.")
    return [adapter_component(adapter_tensors(inner if inner.shapes else tensors, None), channels)]


def adapter_tensors(unet: Tensors, resampler: Tensors | None) -> Tensors:
    """Projections by their official names, and the resampler's under ``resampler.``, from one file or from two."""
    projections = _only(unet, is_projection)
    if resampler is None:
        found = (unet.under(prefix) for prefix in _PREFIXES)
        resampler = next((one for one in found if one.shapes), None)
    if resampler is None or not projections.shapes:
        raise PriorError(
            f"{unet.path} holds no image adapter (to_k_ip, to_v_ip, a resampler); give MV-RAG's or ImageDream's weights"
        )
    named = resampler.renamed(lambda name: f"resampler.{name}")
    own, other = dict(projections.full_names), dict(named.full_names)

    def fetch(full: str) -> torch.Tensor:
        place, _, name = full.partition("|")
        return (projections if place == "unet" else named).fetch(name)

    names = {name: f"unet|{full}" for name, full in own.items()} | {
        name: f"other|{full}" for name, full in other.items()
    }
    return Tensors(unet.path, {**projections.shapes, **named.shapes}, fetch, names)


def _only(tensors: Tensors, wanted: Callable[[str], bool]) -> Tensors:
    shapes = {name: size for name, size in tensors.shapes.items() if wanted(name)}
    return Tensors(
        tensors.path, shapes, tensors.fetch, {name: tensors.full_names[name] for name in shapes}, tensors.prefix
    )


def without_projections(unet: Tensors) -> Tensors:
    """The base network's tensors alone."""
    return _only(unet, lambda name: not is_projection(name))


def adapter_component(tensors: Tensors, channels: Mapping[str, int]) -> Component:
    """The component of a prior that an official adapter becomes."""
    config = adapter_config(tensors)
    adapter = build_on_meta(lambda: ImageAdapter(config, channels), tensors.path)
    expected = {file_name(name): size for name, size in shapes_of(adapter).items()}
    facts = {**config.to_dict(), "licence_weights": "not stated by its authors"}
    return Component("image_adapter", "model.safetensors", facts, tensors, expected, adapter_origin)


def adapter_origin(name: str) -> Piece | None:
    """Source of an adapter's tensor: projections have the names of their layers in the official UNet."""
    return ldm_keys.unet_origin(name.removeprefix("layers.")) if name.startswith("layers.") else Piece(name)


def adapter_config(tensors: Tensors) -> AdapterConfig:
    """Sizes of an official resampler, read from its shapes; padding and lambda' are MV-RAG's."""
    dim = tensors.size("resampler.latents", 3, 2)
    return AdapterConfig(
        encoder="clip_vision",
        feature_width=tensors.size("resampler.proj_in.weight", 2, 1),
        dim=dim,
        depth=count_blocks(tensors, "resampler.layers."),
        heads=max(1, tensors.size("resampler.layers.0.0.to_q.weight", 2, 0) // _HEAD),
        head_dim=_HEAD,
        queries=tensors.size("resampler.latents", 3, 1),
        feedforward=max(1, tensors.size("resampler.layers.0.1.1.weight", 2, 0) // max(1, dim)),
        token_width=tensors.size("resampler.norm_out.weight", 1, 0),
    )


def encoder_component(folder: Path) -> Component:
    """CLIP's vision tower of a diffusers-style folder."""
    tensors = open_tensors(folder / ENCODER_FILE).renamed(lambda name: name.removeprefix(VISION_PREFIX))
    path = folder / "image_encoder" / "config.json"
    config = vision_config(tensors, read_json(path) if path.is_file() else {})
    expected = clip_shapes(clip_skeleton(config, path))

    def origin(name: str) -> Piece | None:
        return ldm_keys.same_name(name.removeprefix(VISION_PREFIX))

    return Component("image_encoder", "model.safetensors", config, tensors, expected, origin, _UNUSED)


def vision_config(tensors: Tensors, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``CLIPVisionConfig``: sizes from the shapes, the rest as ``given``, else ViT-H's."""
    width, patch = (tensors.size("embeddings.patch_embedding.weight", 4, axis) for axis in (0, 2))
    places = tensors.size("embeddings.position_embedding.weight", 2, 0) - 1
    return {
        "architectures": ["CLIPVisionModel"],
        "model_type": "clip_vision_model",
        **{key: given.get(key, value) for key, value in _VIT_H.items()},
        "hidden_size": width,
        "intermediate_size": tensors.size("encoder.layers.0.mlp.fc1.weight", 2, 0),
        "num_hidden_layers": count_blocks(tensors, "encoder.layers."),
        "image_size": math.isqrt(max(places, 1)) * patch,
        "patch_size": patch,
    }
