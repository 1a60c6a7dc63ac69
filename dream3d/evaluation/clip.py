"""CLIP as the judge, from a folder in transformers' layout: OpenAI's, and OpenCLIP's that were converted to it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from dream3d.errors import PriorError
from dream3d.evaluation.judge_files import BATCH, CONFIG, TOKENIZER, WEIGHTS, loaded, shown_to
from dream3d.files import hash_file
from dream3d.prior.folder import build_on_meta, check_has
from dream3d.prior.schema import CLIP_TEXT, CLIP_VISION, WIDTH, Rules, checked, read_json, whole
from dream3d.prior.tokenizer import bounded, load_tokenizer, repaired

FILES = (CONFIG, WEIGHTS, TOKENIZER)
ADVICE = "give a folder in the layout of transformers, with safetensors"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the colours that CLIP was trained on (Radford et al. 2021); OpenCLIP kept them."""
_TEXT: Rules = {**CLIP_TEXT, "eos_token_id": whole(0, 1_000_000)}
_WHOLE: Rules = {"projection_dim": WIDTH}


class ClipFolder:
    """A :class:`dream3d.evaluation.encoders.TextImageEncoder`.

    Raises :class:`PriorError` for files that are missing, damaged, or do not belong together. Pickled weights are not
    read.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        check_has(folder, FILES, ADVICE)
        self.name = f"CLIP of {folder.resolve().name}"
        self._folder, self.device = folder, torch.device(device)
        path = folder / CONFIG
        text, vision = tower_settings(path, _TEXT, CLIP_VISION)
        shared = checked(read_json(path), _WHOLE, path)
        config = build_on_meta(lambda: CLIPConfig(text_config=text, vision_config=vision, **shared), path)
        model = loaded(lambda: CLIPModel(config), folder / WEIGHTS, lambda name: "position_ids" in name)
        self._model: Any = model.to(self.device)
        words, tokens = config.text_config.vocab_size, config.text_config.max_position_embeddings
        self._tokenizer = load_tokenizer(folder / TOKENIZER, tokens, words)
        self._side = int(config.vision_config.image_size)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of weights, tokenizer and configuration, one after the other."""
        return "".join(hash_file(self._folder / name) for name in FILES)

    @torch.no_grad()
    def embed_images(self, pictures: Tensor) -> Tensor:
        """See :class:`dream3d.evaluation.encoders.TextImageEncoder`; pictures are resized, not cut."""
        vectors = []
        for pixels in shown_to(pictures, self._side, MEAN, STD, self.device):
            pooled = self._model.vision_model(pixel_values=pixels).pooler_output
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


def tower_settings(path: Path, text: Rules, vision: Rules) -> tuple[dict[str, Any], dict[str, Any]]:
    """The checked settings of both towers of a ``config.json``; :class:`PriorError` if it has none."""
    data, parts = read_json(path), []
    for name, rules in (("text_config", text), ("vision_config", vision)):
        part = data.get(name)
        if not isinstance(part, dict):
            raise PriorError(f"{path} has no table {name!r}; it does not describe both towers of such a model")
        parts.append(checked(part, rules, path))
    return parts[0], parts[1]
