"""The network in training: made from a prior, from Stable Diffusion or from scratch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from dream3d.errors import UsageError
from dream3d.prior.attention import ADDED_WEIGHTS, set_attention
from dream3d.prior.folder import STOCK_WEIGHTS, read_header, read_tensors, shapes_of
from dream3d.prior.layout import AttentionKind
from dream3d.prior.schema import UNET, checked, read_json
from dream3d.prior.unet import MultiViewUNet

CAMERA_NUMBERS = 16


def make_network(
    folder: Path, scratch: Mapping[str, Any], attention: AttentionKind, sample_size: int, generator: torch.Generator
) -> MultiViewUNet:
    """A UNet in float32 that trains: the weights of ``folder`` (``unet`` of a prior), or new ones for ``scratch``.

    What the folder's network lacks is added: a camera network whose last layer is zero, so that the first step gives
    what the 2D network gave, and the layers of the attention. Random weights come from the generator. Raises
    PriorError for a damaged folder, UsageError for arguments that make no network.
    """
    stock = read_json(folder / "config.json")
    config = checked(stock, UNET, folder / "config.json", UNet2DConditionModel)
    if scratch:
        config = checked(_scratch_config(config, scratch), UNET, "the recipe's network", UNet2DConditionModel)
    camera = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": CAMERA_NUMBERS}
    inflate = not scratch and config.get("class_embed_type") is None
    config |= camera | {"sample_size": sample_size}
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation takes no generator
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        try:
            unet = MultiViewUNet(**config)
            set_attention(unet, attention)
        except Exception as error:  # third-party constructors raise anything on a bad configuration
            raise UsageError(f"the network of the recipe cannot be built ({type(error).__name__}: {error})") from error
    if not scratch:
        _load(unet, folder / STOCK_WEIGHTS, attention, inflate)
    return unet


def _scratch_config(start: Mapping[str, Any], scratch: Mapping[str, Any]) -> dict[str, Any]:
    known = list(inspect.signature(UNet2DConditionModel).parameters)
    unknown = [key for key in scratch if key not in known]
    if unknown:
        raise UsageError(f"unknown recipe key 'network.{unknown[0]}'; known here: {', '.join(known)}")
    # Codec and text are the start's, so their sizes are not up for choice.
    fixed = {key: start[key] for key in ("in_channels", "out_channels", "cross_attention_dim") if key in start}
    return {**scratch, **fixed}


def _load(unet: MultiViewUNet, path: Path, attention: AttentionKind, inflate: bool) -> None:
    """The weights of a file; PriorError for any tensor too many or too few.

    Two things alone may be missing, and keep their first weights: the camera network of a 2D model, and what the kind
    of attention adds, if the file has nothing of it at all.
    """
    shapes, found = shapes_of(unet), read_header(path)[0]
    added = {name for name in shapes if inflate and name.startswith("class_embedding.")}
    own = {name for name in shapes if attention in ADDED_WEIGHTS and ADDED_WEIGHTS[attention] in name}
    if not own & found.keys():
        added |= own
    tensors = read_tensors(path, {n: s for n, s in shapes.items() if n not in added}, torch.float32)
    unet.load_state_dict(tensors, strict=False)
    if inflate:
        last = unet.class_embedding.linear_2
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
