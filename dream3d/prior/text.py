"""Prompt -> token states, with the frozen text encoder of a prior folder."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BertConfig, BertModel

from dream3d.errors import PriorError
from dream3d.prior.folder import build_on_meta, check_tensors, read_json, read_tensors, shapes_of

_ENCODERS = {"bert": (BertConfig, BertModel)}
_POOLER = "pooler."
"""sentence-transformers' files carry a sentence pooler, which token states do not pass through."""


class PromptEncoder:
    """Tokenizer and text encoder of one folder. Weights are loaded for :meth:`encode` and dropped after."""

    def __init__(self, folder: Path, tokens: int) -> None:
        self.tokens = tokens
        path = folder / "tokenizer" / "tokenizer.json"
        read_json(path)  # bounds the size and names the file if it is damaged
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise PriorError(f"{path} is not a tokenizer ({error}); copy the file again") from error
        self._tokenizer.enable_truncation(tokens)
        self._tokenizer.enable_padding(length=tokens)
        self._weights = folder / "text_encoder" / "model.safetensors"
        config_path = folder / "text_encoder" / "config.json"
        config = read_json(config_path)
        kind = config.get("model_type")
        if kind not in _ENCODERS:
            raise PriorError(f"{config_path}: unknown text encoder {kind!r}; known: {', '.join(_ENCODERS)}")
        config_class, self._model_class = _ENCODERS[kind]
        known = config_class().to_dict().keys()
        self._config = config_class(**{key: value for key, value in config.items() if key in known})
        skeleton = build_on_meta(lambda: self._model_class(self._config, add_pooling_layer=False), config_path)
        self._shapes = shapes_of(skeleton)
        check_tensors(self._weights, self._shapes, _POOLER)
        self.width = int(self._config.hidden_size)

    def cut(self, prompt: str) -> int | None:
        """Index of the first character that the encoder does not read, or None if it reads all."""
        encoding = self._tokenizer.encode(prompt)
        if not encoding.overflowing:
            return None
        return max((end for _, end in encoding.offsets), default=0)

    @torch.no_grad()
    def encode(self, prompts: list[str], device: torch.device) -> Tensor:
        """Token states (len(prompts), tokens, width), those of padded tokens zeroed."""
        model = self._model_class(self._config, add_pooling_layer=False)
        model.load_state_dict(read_tensors(self._weights, self._shapes, torch.float32, _POOLER))
        model.eval().to(device)
        encodings = [self._tokenizer.encode(prompt) for prompt in prompts]
        ids = torch.tensor([encoding.ids for encoding in encodings], device=device)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=device)
        states: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return states * mask[..., None]
