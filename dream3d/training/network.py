"""The network in training: made from a prior, from Stable Diffusion or from scratch, and called in both modes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from dream3d.errors import PriorError, UsageError
from dream3d.prior.attention import set_attention
from dream3d.prior.folder import STOCK_WEIGHTS, known_arguments, read_json, read_tensors, shapes_of, tensor_shapes

CAMERA_NUMBERS = 16


@contextmanager
def without_camera(unet: UNet2DConditionModel) -> Iterator[None]:
    """Image mode: the camera network is skipped, since what it gives for zeros would still be added (facts 1.5)."""
    camera_network = unet.class_embedding
    unet.class_embedding = None
    try:
        yield
    finally:
        unet.class_embedding = camera_network


def predict(
    network: Any, unet: UNet2DConditionModel, noisy: Tensor, timesteps: Tensor, text: Tensor, cameras: Tensor | None
) -> Tensor:
    """The network's output (N, C, h, w) for latents of that shape, timesteps (N,) and token states (N, T, W).

    ``cameras`` is (objects, views, 16) with objects * views = N, or None for the image mode. ``network`` is what is
    called: ``unet`` itself, or something around it.
    """

    def call(labels: Tensor | None, views: int) -> Tensor:
        output: tuple[Tensor] = network(
            noisy,
            timesteps,
            text,
            class_labels=labels,
            cross_attention_kwargs={"num_views": views},
            return_dict=False,
        )
        return output[0]

    if cameras is not None:
        return call(cameras.flatten(0, 1), cameras.shape[1])
    with without_camera(unet):
        return call(None, 1)


def make_network(
    folder: Path, scratch: Mapping[str, Any], attention: str, sample_size: int, generator: torch.Generator
) -> UNet2DConditionModel:
    """A UNet in float32 that trains: the weights of ``folder`` (``unet`` of a prior), or new ones for ``scratch``.

    What the folder's network lacks is added: a camera network whose last layer is zero, so that the first step gives
    what the 2D network gave, and the layers of the attention. Random weights come from the generator. Raises
    PriorError for a damaged folder, UsageError for arguments that make no network.
    """
    stock = read_json(folder / "config.json")
    config = known_arguments(UNet2DConditionModel, stock)
    if scratch:
        config = _scratch_config(config, scratch)
    camera = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": CAMERA_NUMBERS}
    inflate = not scratch and config.get("class_embed_type") is None
    if not inflate and not scratch and any(config.get(key) != value for key, value in camera.items()):
        raise PriorError(f"{folder / 'config.json'}: its class embedding is not that of cameras (projection, 16)")
    config |= camera | {"sample_size": sample_size}
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation takes no generator
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        try:
            unet = set_attention(UNet2DConditionModel(**config), attention)
        except Exception as error:  # third-party constructors raise anything on a bad configuration
            raise UsageError(f"the network of the recipe cannot be built ({type(error).__name__}: {error})") from error
    if not scratch:
        _load(unet, folder / STOCK_WEIGHTS, inflate)
    return unet


def _scratch_config(start: Mapping[str, Any], scratch: Mapping[str, Any]) -> dict[str, Any]:
    known = list(inspect.signature(UNet2DConditionModel).parameters)
    unknown = [key for key in scratch if key not in known]
    if unknown:
        raise UsageError(f"unknown recipe key 'network.{unknown[0]}'; known here: {', '.join(known)}")
    # Codec and text are the start's, so their sizes are not up for choice.
    fixed = {key: start[key] for key in ("in_channels", "out_channels", "cross_attention_dim") if key in start}
    return {**scratch, **fixed}


def _load(unet: UNet2DConditionModel, path: Path, inflate: bool) -> None:
    """The weights of a file; layers that it lacks keep theirs, but only those that training may add."""
    shapes = shapes_of(unet)
    added = {name for name in shapes if inflate and name.startswith("class_embedding.")}
    temporal = {name for name in shapes if ".processor." in name}
    if temporal and not temporal & tensor_shapes(path).keys():
        added |= temporal
    tensors = read_tensors(path, {n: s for n, s in shapes.items() if n not in added}, torch.float32)
    unet.load_state_dict(tensors, strict=False)
    if inflate:
        last = unet.class_embedding.linear_2
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
