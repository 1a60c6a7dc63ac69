"""What all judges in folders share: checked weights, and pictures as networks see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dream3d.errors import PriorError, first_line
from dream3d.prior.folder import build_on_meta, shapes_of

BATCH = 32
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours of ImageNet, which many networks were trained with."""
_MAX_BYTES_PER_NUMBER = 4
Color = tuple[float, float, float]


def loaded(
    build: Callable[[], Any], path: Path, is_left_out: Callable[[str], bool] = lambda name: False
) -> torch.nn.Module:
    """The network that ``build`` makes, frozen, with the weights of a safetensors file in float32.

    Raises :class:`PriorError` for a file that is damaged, or holds other tensors than the network's. Tensors that
    ``is_left_out`` may be there or not; the network keeps its own.
    """
    shapes = {name: shape for name, shape in shapes_of(build_on_meta(build, path)).items() if not is_left_out(name)}
    needed = sum(shape.numel() for shape in shapes.values())
    if path.stat().st_size > _MAX_BYTES_PER_NUMBER * needed + 2**24:
        raise PriorError(f"{path} is larger than its configuration's {needed} numbers; copy the complete folder")
    try:
        tensors = {name: value.float() for name, value in load_file(path).items() if not is_left_out(name)}
    except (OSError, SafetensorError, RuntimeError) as error:
        raise PriorError(f"{path} is truncated or not a safetensors file ({first_line(error)})") from error
    if {name: value.shape for name, value in tensors.items()} != shapes:
        odd = sorted(tensors.keys() ^ shapes.keys()) or ["a shape"]
        raise PriorError(f"{path} does not belong to its configuration ({odd[0]}); copy the complete folder")
    network: torch.nn.Module = build()  # with memory: it may have buffers that no file holds
    network.load_state_dict(tensors, strict=False)  # strictly but for what is left out: it was compared
    return network.requires_grad_(False).eval()


def shown_to(pictures: Tensor, side: int, mean: Color, std: Color, device: torch.device) -> Iterator[Tensor]:
    """(N, 3, H, W) pictures in [0, 1] as a network sees them: (n, 3, side, side) at a time, resized and not cut."""
    middle, spread = (torch.tensor(one, device=device).view(3, 1, 1) for one in (mean, std))
    for part in pictures.split(BATCH):
        pixels = part.to(device, torch.float32)
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        yield (pixels - middle) / spread
