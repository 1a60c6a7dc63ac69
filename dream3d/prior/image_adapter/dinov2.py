"""DINOv2 from a folder in transformers' layout, for the similarity of pictures alone (MV-RAG measures alpha by it)."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from dream3d.errors import PriorError
from dream3d.files import hash_file
from dream3d.prior.folder import build_on_meta, check_has, check_tensors, read_header, read_tensors, shapes_of
from dream3d.prior.image_adapter.features import resized
from dream3d.prior.schema import DINOV2, check, checked, one_of, read_json

FILES = ("config.json", "model.safetensors")
SIDE = 224
"""Pixels of the pictures that it reads, as its own preprocessing has them; less if it was trained on less."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of Oquab et al. 2023."""
_OLDER_NAMES = (
    ("attention.attention.query.", "attention.q_proj."),
    ("attention.attention.key.", "attention.k_proj."),
    ("attention.attention.value.", "attention.v_proj."),
    ("attention.output.dense.", "attention.o_proj."),
)
"""Of tensors in published files, and in newer versions of transformers."""


class Dinov2:
    """A network that says how alike two pictures look."""

    def __init__(self, model: Any, folder: Path, device: torch.device | str = "cpu") -> None:
        """``folder`` is where the model was read from."""
        self.device, self.folder = torch.device(device), folder
        self._model = model.to(self.device)
        self.name = f"DINOv2 of {folder.resolve().name}"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the files, see :func:`dinov2_digest`."""
        return dinov2_digest(self.folder)

    @property
    def size(self) -> int:
        """Side in pixels of the square pictures that it reads: a multiple of its patches."""
        config = self._model.config
        side = min(SIDE, int(config.image_size))
        return max(side // config.patch_size, 1) * int(config.patch_size)

    @torch.no_grad()
    def embed(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> (N, dim) of length 1: the class token behind the last normalisation."""
        mean, std = (torch.tensor(one, device=self.device)[:, None, None] for one in (MEAN, STD))
        pixels = (resized(pictures.to(self.device, torch.float32), self.size) - mean) / std
        return F.normalize(self._model(pixel_values=pixels).pooler_output, dim=-1)


def check_dinov2(folder: Path) -> None:
    """Everything about a folder that can be said without loading a tensor; raises :class:`PriorError`."""
    config = read_dinov2_config(folder)
    path, model = folder / FILES[0], folder / FILES[1]
    skeleton: Any = build_on_meta(lambda: Dinov2Model(config), path)
    check_tensors(model, _names_in(model, skeleton))


def dinov2_digest(folder: Path) -> str:
    """SHA-256 of configuration and weights, one after the other. Raises OSError."""
    return "".join(hash_file(folder / name) for name in FILES)


@lru_cache(maxsize=1)
def load_dinov2(folder: Path, device: str = "cpu") -> Dinov2:
    """The network of a folder in float32, kept for the next call.

    Raises :class:`PriorError` for files that are missing, damaged or of another model. Pickled weights are not read.
    """
    return Dinov2(read_dinov2_network(read_dinov2_config(folder), folder), folder, device)


def read_dinov2_network(config: Any, folder: Path) -> Any:
    """The network of a folder with that configuration, frozen, in float32 on the CPU; raises as :func:`load_dinov2`."""
    weights = folder / FILES[1]
    skeleton: Any = build_on_meta(lambda: Dinov2Model(config), folder / FILES[0])
    expected = _names_in(weights, skeleton)
    tensors = read_tensors(weights, expected, torch.float32)
    model: Any = Dinov2Model(config)  # with memory, should a version have buffers that no file holds
    own = {_newer(name): name for name in model.state_dict()}
    model.load_state_dict({own[_newer(name)]: value for name, value in tensors.items()})
    return model.requires_grad_(False).eval()


def read_dinov2_config(folder: Path) -> Any:
    """The checked configuration of a folder; raises :class:`PriorError`."""
    check_has(folder, FILES, "give DINOv2's folder in the layout of transformers, with safetensors")
    path = folder / FILES[0]
    data = read_json(path)
    check(data.get("model_type"), one_of("dinov2"), "model_type", path)
    arguments = checked(data, DINOV2, path)
    if arguments.get("hidden_size", 768) % arguments.get("num_attention_heads", 12):
        raise PriorError(f"{path}: hidden_size is no multiple of num_attention_heads")
    return build_on_meta(lambda: Dinov2Config(**arguments), path)


def _names_in(weights: Path, model: Any) -> dict[str, torch.Size]:
    """The shapes of a model's tensors by the names that they have in a file, be they older or newer ones."""
    stored = {_newer(name): name for name in read_header(weights)[0]}
    return {stored.get(_newer(name), name): size for name, size in shapes_of(model).items()}


def _newer(name: str) -> str:
    for older, newer in _OLDER_NAMES:
        name = name.replace(older, newer)
    return name
