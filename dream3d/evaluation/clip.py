"""CLIP as the judge, from a folder in transformers' layout: OpenAI's, and OpenCLIP's that were converted to it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from dream3d.errors import PriorError, first_line
from dream3d.files import hash_file
from dream3d.prior.folder import build_on_meta, check_has, shapes_of
from dream3d.prior.schema import CLIP_TEXT, CLIP_VISION, WIDTH, Rules, checked, read_json, whole
from dream3d.prior.tokenizer import bounded, load_tokenizer, repaired

FILES = ("config.json", "model.safetensors", "tokenizer.json")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the colours that CLIP was trained on (Radford et al. 2021); OpenCLIP kept them."""
BATCH = 32
_TEXT: Rules = {**CLIP_TEXT, "eos_token_id": whole(0, 1_000_000)}
_WHOLE: Rules = {"projection_dim": WIDTH}
_MAX_BYTES_PER_NUMBER = 4


def is_clip(folder: Path) -> bool:
    """Whether a folder says that it holds a CLIP model."""
    path = folder / "config.json"
    return path.is_file() and read_json(path).get("model_type") == "clip"


class ClipFolder:
    """A :class:`dream3d.evaluation.encoders.TextImageEncoder`.

    Raises :class:`PriorError` for files that are missing, damaged, or do not belong together. Pickled weights are not
    read.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        check_has(folder, FILES, "give a folder in the layout of transformers, with safetensors")
        self.name = f"CLIP of {folder.resolve().name}"
        self._folder, self.device = folder, torch.device(device)
        config = _config(folder / "config.json")
        self._model = _loaded(config, folder / "model.safetensors").to(self.device).requires_grad_(False).eval()
        text = config.text_config
        self._tokenizer = load_tokenizer(folder / "tokenizer.json", text.max_position_embeddings, text.vocab_size)
        self._side = int(config.vision_config.image_size)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of weights, tokenizer and configuration, one after the other."""
        return "".join(hash_file(self._folder / name) for name in FILES)

    @torch.no_grad()
    def embed_images(self, pictures: Tensor) -> Tensor:
        """See :class:`dream3d.evaluation.encoders.TextImageEncoder`; pictures are resized, not cut."""
        mean, std = (torch.tensor(one, device=self.device).view(3, 1, 1) for one in (MEAN, STD))
        vectors = []
        for part in pictures.split(BATCH):
            pixels = part.to(self.device, torch.float32)
            if pixels.shape[-2:] != (self._side, self._side):
                pixels = F.interpolate(pixels, (self._side, self._side), mode="bicubic", antialias=True).clamp(0, 1)
            pooled = self._model.vision_model(pixel_values=(pixels - mean) / std).pooler_output
            vectors.append(F.normalize(self._model.visual_projection(pooled), dim=-1).cpu())
        return torch.cat(vectors)

    @torch.no_grad()
    def embed_texts(self, prompts: list[str]) -> Tensor:
        """See :class:`dream3d.evaluation.encoders.TextImageEncoder`."""
        vectors = []
        for start in range(0, len(prompts), BATCH):
            part = [repaired(bounded(prompt)) for prompt in prompts[start : start + BATCH]]
            found = self._tokenizer.encode_batch(part)
            ids, mask = (
                torch.tensor([getattr(one, name) for one in found], device=self.device)
                for name in ("ids", "attention_mask")
            )
            pooled = self._model.text_model(input_ids=ids, attention_mask=mask).pooler_output
            vectors.append(F.normalize(self._model.text_projection(pooled), dim=-1).cpu())
        return torch.cat(vectors)


def _config(path: Path) -> Any:
    data = read_json(path)
    parts = {}
    for name, rules in (("text_config", _TEXT), ("vision_config", CLIP_VISION)):
        part = data.get(name)
        if not isinstance(part, dict):
            raise PriorError(f"{path} has no table {name!r}; it does not describe a CLIP model")
        parts[name] = checked(part, rules, path)
    shared = checked(data, _WHOLE, path)
    return CLIPConfig(**parts, **shared)


def _loaded(config: Any, path: Path) -> Any:
    """The model with the weights of a file, in float32."""
    shapes = shapes_of(build_on_meta(lambda: CLIPModel(config), path))
    needed = sum(shape.numel() for shape in shapes.values())
    if path.stat().st_size > _MAX_BYTES_PER_NUMBER * needed + 2**24:
        raise PriorError(f"{path} is larger than its configuration's {needed} numbers; copy the complete folder")
    try:
        tensors = {name: value.float() for name, value in load_file(path).items() if "position_ids" not in name}
    except (OSError, SafetensorError, RuntimeError) as error:
        raise PriorError(f"{path} is truncated or not a safetensors file ({first_line(error)})") from error
    if {name: value.shape for name, value in tensors.items()} != shapes:
        odd = sorted(tensors.keys() ^ shapes.keys()) or ["a shape"]
        raise PriorError(f"{path} does not belong to its configuration ({odd[0]}); copy the complete folder")
    model: Any = CLIPModel(config)  # with memory: it has buffers that no file holds
    model.load_state_dict(tensors)
    return model
