"""Pictures to what an image encoder sees: features for the resampler, and one vector for similarity."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from dream3d.errors import PriorError
from dream3d.prior.folder import build_on_meta, check_has, read_header, read_tensors, shapes_of
from dream3d.prior.image_adapter.config import EncoderKind
from dream3d.prior.image_encoder import FOLDER, Towers, load_towers
from dream3d.prior.schema import CLIP_VISION, check, checked, one_of, read_json

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI CLIP's normalisation, which OpenCLIP's towers share."""
VISION_PREFIX = "vision_model."
"""Of every tensor in a CLIP vision file; transformers' module has it before version 5 and not after."""
_POSITIONS = "embeddings.position_ids"
"""The numbers from 0 on, which older versions of transformers stored."""


class PictureEncoder(Protocol):
    """What the adapter reads pictures with."""

    @property
    def size(self) -> int:
        """Side in pixels of the square pictures that it reads."""
        ...

    def features(self, pictures: Tensor) -> Tensor:
        """(K, 3, S, S) in [0, 1] -> (K, M, width)."""
        ...

    def blank(self) -> Tensor:
        """(1, M, width): features of a picture that is 0 after normalisation, MV-RAG's "no picture"."""
        ...

    def embed(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> (N, dim) of length 1, for similarity by dot product."""
        ...


def resized(pictures: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N, 3, size, size)."""
    if pictures.shape[-2:] == (size, size):
        return pictures
    return F.interpolate(pictures, (size, size), mode="bilinear", antialias=True).clamp(0, 1)


class ContrastiveFeatures:
    """The towers of ``dream3d train-encoder``: the last feature map, a feature for each of its places, row by row."""

    def __init__(self, towers: Towers, device: torch.device | str = "cpu") -> None:
        self.towers = towers.to(device).requires_grad_(False).eval()
        self.device = torch.device(device)

    @property
    def size(self) -> int:
        """See :class:`PictureEncoder`."""
        return self.towers.config.image_size

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """See :class:`PictureEncoder`."""
        return self.towers.features(pictures.to(self.device, torch.float32)).flatten(2).transpose(1, 2)

    def blank(self) -> Tensor:
        """See :class:`PictureEncoder`; the towers normalise [0, 1] to [-1, 1]."""
        return self.features(torch.full((1, 3, self.size, self.size), 0.5))

    @torch.no_grad()
    def embed(self, pictures: Tensor) -> Tensor:
        """See :class:`PictureEncoder`."""
        return self.towers.images(resized(pictures.to(self.device, torch.float32), self.size))


class ClipFeatures:
    """CLIP's vision tower: the states before its last block, the class token first (MV-RAG: ViT-H/14, 257 x 1280)."""

    def __init__(self, tower: Any, device: torch.device | str = "cpu") -> None:
        self.tower = tower.to(device).requires_grad_(False).eval()
        self.device = torch.device(device)

    @property
    def size(self) -> int:
        """See :class:`PictureEncoder`."""
        return int(self.tower.config.image_size)

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """See :class:`PictureEncoder`."""
        mean, std = (torch.tensor(numbers, device=self.device)[:, None, None] for numbers in (CLIP_MEAN, CLIP_STD))
        return self._penultimate((pictures.to(self.device, torch.float32) - mean) / std)

    @torch.no_grad()
    def blank(self) -> Tensor:
        """See :class:`PictureEncoder`; a grey brown, CLIP's mean colour."""
        return self._penultimate(torch.zeros(1, 3, self.size, self.size, device=self.device))

    @torch.no_grad()
    def embed(self, pictures: Tensor) -> Tensor:
        """The class token behind the last normalisation. MV-RAG uses DINOv2's here, which knows objects better."""
        mean, std = (torch.tensor(numbers, device=self.device)[:, None, None] for numbers in (CLIP_MEAN, CLIP_STD))
        pixels = (resized(pictures.to(self.device, torch.float32), self.size) - mean) / std
        return F.normalize(self.tower(pixels).pooler_output, dim=-1)

    def _penultimate(self, pixels: Tensor) -> Tensor:
        states: Tensor = self.tower(pixels, output_hidden_states=True).hidden_states[-2]
        return states


def load_encoder(folder: Path, kind: EncoderKind, device: torch.device | str = "cpu") -> PictureEncoder:
    """The image encoder of a prior's folder, in float32; :class:`PriorError` for a missing, damaged or other one."""
    place = folder / FOLDER
    check_has(place, ("config.json", "model.safetensors"), "its image adapter reads pictures with it; copy it too")
    path = place / "config.json"
    data = read_json(path)
    found = "contrastive" if data.get("type") == "contrastive" else data.get("model_type", data.get("type"))
    check(found, one_of("contrastive" if kind == "contrastive" else "clip_vision_model"), "type", path)
    if kind == "contrastive":
        return ContrastiveFeatures(load_towers(place), device)
    return ClipFeatures(_load_clip(place / "model.safetensors", data, path), device)


def clip_skeleton(config: dict[str, Any], path: Path) -> Any:
    """CLIP's vision tower of a checked configuration, without memory for its weights."""
    arguments = checked(config, CLIP_VISION, path)
    if arguments.get("hidden_size", 768) % arguments.get("num_attention_heads", 12):
        raise PriorError(f"{path}: hidden_size is no multiple of num_attention_heads")
    return build_on_meta(lambda: CLIPVisionModel(CLIPVisionConfig(**arguments)), path)


def clip_shapes(tower: Any) -> dict[str, torch.Size]:
    """Names as in a file, and shapes, of a tower's weights."""
    return {f"{VISION_PREFIX}{name.removeprefix(VISION_PREFIX)}": size for name, size in shapes_of(tower).items()}


def _load_clip(weights: Path, config: dict[str, Any], path: Path) -> Any:
    arguments = checked(config, CLIP_VISION, path)
    shapes = clip_shapes(clip_skeleton(config, path))
    names = read_header(weights)[0]
    if not any(name.startswith(VISION_PREFIX) for name in names):
        shapes = {name.removeprefix(VISION_PREFIX): size for name, size in shapes.items()}
    tensors = read_tensors(weights, shapes, torch.float32, ignored_prefix=_ignored(names))
    tower = CLIPVisionModel(CLIPVisionConfig(**arguments))  # with memory: it has buffers that no file holds
    own = {name.removeprefix(VISION_PREFIX): name for name in tower.state_dict()}
    tower.load_state_dict({own[name.removeprefix(VISION_PREFIX)]: value for name, value in tensors.items()})
    return tower


def _ignored(names: Any) -> str | None:
    return next((name for name in names if name.removeprefix(VISION_PREFIX) == _POSITIONS), None)
