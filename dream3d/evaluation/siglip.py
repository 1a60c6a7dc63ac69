"""SigLIP as the judge (Zhai et al. 2023), from a folder in transformers' layout."""

from __future__ import annotations

import string
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SiglipConfig, SiglipModel

from dream3d.evaluation.clip import ADVICE, FILES, tower_settings
from dream3d.evaluation.judge_files import BATCH, CONFIG, TOKENIZER, WEIGHTS, loaded, shown_to
from dream3d.files import hash_file
from dream3d.prior.folder import build_on_meta, check_has
from dream3d.prior.schema import CLIP_TEXT, CLIP_VISION, WIDTH, Rules, one_of, whole
from dream3d.prior.tokenizer import bounded, load_tokenizer

HALF = (0.5, 0.5, 0.5)
"""Mean and spread of the colours that it was trained on."""
PADDING = 1
"""Id that fills up the texts, which the network reads as any other."""
_ACTIVATIONS = one_of("gelu", "gelu_new", "quick_gelu", "gelu_pytorch_tanh")
_TEXT: Rules = {**CLIP_TEXT, "hidden_act": _ACTIVATIONS, "projection_size": WIDTH, "pad_token_id": whole(0, 1_000_000)}
_VISION: Rules = {**CLIP_VISION, "hidden_act": _ACTIVATIONS}
_TOKENS = 64


class SiglipFolder:
    """A :class:`dream3d.evaluation.encoders.TextImageEncoder`; raises as :class:`dream3d.evaluation.clip.ClipFolder`.

    Its files leave out what SigLIP has as a rule, so that settings which they lack are SigLIP's own.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        check_has(folder, FILES, ADVICE)
        self.name = f"SigLIP of {folder.resolve().name}"
        self._folder, self.device = folder, torch.device(device)
        path = folder / CONFIG
        text, vision = tower_settings(path, _TEXT, _VISION)
        config = build_on_meta(lambda: SiglipConfig(text_config=text, vision_config=vision), path)
        model = loaded(lambda: SiglipModel(config), folder / WEIGHTS, lambda name: "position_ids" in name)
        self._model: Any = model.to(self.device)
        tokens = text.get("max_position_embeddings", _TOKENS)
        self._tokenizer = load_tokenizer(folder / TOKENIZER, tokens, config.text_config.vocab_size)
        self._tokenizer.enable_padding(length=tokens, pad_id=text.get("pad_token_id", PADDING))
        self._side = int(config.vision_config.image_size)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of weights, tokenizer and configuration, one after the other."""
        return "".join(hash_file(self._folder / name) for name in FILES)

    @torch.no_grad()
    def embed_images(self, pictures: Tensor) -> Tensor:
        """See :class:`dream3d.evaluation.encoders.TextImageEncoder`."""
        seen = [
            self._model.vision_model(pixel_values=pixels).pooler_output.cpu()
            for pixels in shown_to(pictures, self._side, HALF, HALF, self.device)
        ]
        return F.normalize(torch.cat(seen), dim=-1)

    @torch.no_grad()
    def embed_texts(self, prompts: list[str]) -> Tensor:
        """See :class:`dream3d.evaluation.encoders.TextImageEncoder`. The padding is read too, as in its training."""
        read = []
        for start in range(0, len(prompts), BATCH):
            found = self._tokenizer.encode_batch([canonical(bounded(one)) for one in prompts[start : start + BATCH]])
            ids = torch.tensor([one.ids for one in found], device=self.device)
            read.append(self._model.text_model(input_ids=ids).pooler_output.cpu())
        return F.normalize(torch.cat(read), dim=-1)


def canonical(text: str) -> str:
    """A text as SigLIP was taught with: lower case, no punctuation, single blanks."""
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())
