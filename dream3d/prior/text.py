"""Prompt -> token states, with the frozen text encoder of a prior folder."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel

from dream3d.errors import PriorError
from dream3d.prior.folder import build_on_meta, check_tensors, read_tensors, shapes_of
from dream3d.prior.schema import BERT, CLIP_TEXT, Rules, check, checked, one_of, read_json
from dream3d.prior.tokenizer import MAX_CHARACTERS, bounded, load_tokenizer, repaired

CLIP_PREFIX = "text_model."
"""Of every tensor in a CLIP text encoder's file; transformers' module has it before version 5 and not after."""
PROMPTS_AT_ONCE = 256
"""Captions of a training set are encoded in batches of so many, to bound the memory."""


@dataclass(frozen=True)
class _Encoder:
    """One kind of text encoder."""

    config: type[Any]
    rules: Rules
    build: Callable[[Any], nn.Module]
    states: Callable[[nn.Module, Tensor, Tensor], Tensor]
    """Module, token ids (B, T) and mask (B, T), 0 at padded tokens, to states (B, T, width)."""
    file_name: Callable[[str], str] = str
    """From the module's name of a tensor to the file's."""
    ignored_prefix: str | None = None
    """Tensors that a file may hold and that token states do not need."""
    clean: Callable[[str], str] = str
    """What happens to a text before the tokenizer reads it."""


def _build_bert(config: Any) -> nn.Module:
    return BertModel(config, add_pooling_layer=False)


def _positions(ids: Tensor) -> Tensor:
    """(1, T): the module's own, a buffer that no file has, are on the meta device."""
    return torch.arange(ids.shape[1], device=ids.device)[None]


def _bert_states(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    first_sentence = torch.zeros_like(ids)
    words = {"input_ids": ids, "attention_mask": mask, "token_type_ids": first_sentence}
    states: Tensor = model(**words, position_ids=_positions(ids)).last_hidden_state
    return states * mask[..., None]


def clip_file_name(name: str) -> str:
    """Name in a CLIP text encoder's file of a tensor of transformers' module, whatever its version."""
    return CLIP_PREFIX + name.removeprefix(CLIP_PREFIX)


def _clip_states(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Neither masked nor zeroed at padded tokens: Stable Diffusion was trained to read those states too."""
    states: Tensor = model(input_ids=ids, position_ids=_positions(ids)).last_hidden_state
    return states


_CLIP = _Encoder(
    # older files carry the numbers 0 to 76 as a tensor
    CLIPTextConfig,
    CLIP_TEXT,
    CLIPTextModel,
    _clip_states,
    clip_file_name,
    "text_model.embeddings.position_ids",
    repaired,
)
_ENCODERS = {
    # sentence-transformers' files carry a sentence pooler, which token states do not pass through
    "bert": _Encoder(BertConfig, BERT, _build_bert, _bert_states, ignored_prefix="pooler."),
    "clip_text_model": _CLIP,
}


@dataclass(frozen=True)
class Pieces:
    """How a tokenizer reads a word."""

    count: int
    """Tokens that it is split into."""
    place: float
    """Of its last token in the vocabulary, 0 to 1, frequent ones first."""
    unknown: bool
    """It is read as any other unknown word."""


def with_suffix(text: str, suffix: str) -> str:
    """The text with the suffix of 3D captions, unless it says "3d" already (docs/method.md, Training)."""
    return text if "3d" in text.lower() else text + suffix


class PromptEncoder:
    """Tokenizer and text encoder of one folder. Weights are loaded for :meth:`encode` and dropped after."""

    def __init__(self, folder: Path, tokens: int) -> None:
        self._kept: nn.Module | None = None
        self.tokens = tokens
        self._weights = folder / "text_encoder" / "model.safetensors"
        config_path = folder / "text_encoder" / "config.json"
        config = read_json(config_path)
        self._encoder = _ENCODERS[check(config.get("model_type"), one_of(*_ENCODERS), "model_type", config_path)]
        self._config = self._encoder.config(**checked(config, self._encoder.rules, config_path))
        tokenizer_path = folder / "tokenizer" / "tokenizer.json"
        self._tokenizer = load_tokenizer(tokenizer_path, tokens, int(self._config.vocab_size))
        skeleton = build_on_meta(lambda: self._encoder.build(self._config), config_path)
        self._names = {self._encoder.file_name(name): name for name in shapes_of(skeleton)}
        self._shapes = {self._encoder.file_name(name): shape for name, shape in shapes_of(skeleton).items()}
        check_tensors(self._weights, self._shapes, self._encoder.ignored_prefix)
        self.width = int(self._config.hidden_size)
        places = int(self._config.max_position_embeddings)
        if tokens > places:
            raise PriorError(f"{config_path}: an encoder of {places} places cannot read {tokens} tokens")

    def cut(self, prompt: str) -> int | None:
        """Index of the first character that the encoder does not read, or None if it reads all.

        Where the text is cleaned first, that of the longest beginning which is read as a whole.
        """
        prompt = prompt[:MAX_CHARACTERS]
        text = self._encoder.clean(prompt)
        encoding = self._tokenizer.encode(text)
        if not encoding.overflowing:
            return None
        if text == prompt:
            return max((end for _, end in encoding.offsets), default=0)

        def too_long(size: int) -> bool:
            return bool(self._tokenizer.encode(self._encoder.clean(prompt[:size])).overflowing)

        read = bisect(range(len(prompt)), False, key=too_long) - 1
        return len(prompt[: max(0, read)].rstrip())

    def pieces(self, word: str) -> Pieces:
        """How the tokenizer reads one word in the middle of a sentence."""
        encoding = self._tokenizer.encode(self._encoder.clean(bounded(word)), add_special_tokens=False)
        ids = [identity for identity, real in zip(encoding.ids, encoding.attention_mask, strict=True) if real]
        size = self._tokenizer.get_vocab_size()
        unknown = {self._tokenizer.token_to_id(name) for name in ("[UNK]", "<unk>")} & set(ids)
        frequent = self._config.model_type == "bert"  # a vocabulary of word pieces has the frequent words whole
        return Pieces(len(ids), 0.0 if frequent else max(ids, default=0) / size, bool(unknown) or not ids)

    @torch.no_grad()
    def encode(self, prompts: list[str], device: torch.device) -> Tensor:
        """Token states (len(prompts), tokens, width), float32."""
        model = self._model(device)
        encodings = [self._tokenizer.encode(self._encoder.clean(bounded(prompt))) for prompt in prompts]
        ids = torch.tensor([encoding.ids for encoding in encodings], device=device)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=device)
        parts = zip(ids.split(PROMPTS_AT_ONCE), mask.split(PROMPTS_AT_ONCE), strict=True)
        return torch.cat([self._encoder.states(model, *part) for part in parts])

    @torch.no_grad()
    def mean_states(self, texts: list[str]) -> Tensor:
        """(len(texts), width) float32 on the CPU: the mean over the real tokens of each text, without padding.

        Texts of like length are read together, so that a short one costs little. The weights are kept from the first
        call on, for one who asks often.
        """
        cpu = torch.device("cpu")
        self._kept = model = self._kept or self._model(cpu)
        encodings = [self._tokenizer.encode(self._encoder.clean(bounded(text))) for text in texts]
        lengths = [sum(encoding.attention_mask) for encoding in encodings]
        means = torch.zeros(len(texts), self.width)
        for part in torch.tensor(lengths, dtype=torch.int64).argsort(stable=True).split(PROMPTS_AT_ONCE):
            longest = max(1, lengths[int(part[-1])])
            ids = torch.tensor([encodings[i].ids[:longest] for i in part.tolist()])
            mask = torch.tensor([encodings[i].attention_mask[:longest] for i in part.tolist()])
            states = self._encoder.states(model, ids, mask) * mask[..., None]
            means[part] = states.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        return means

    def _model(self, device: torch.device) -> nn.Module:
        """The text encoder on a device, ready to run."""
        tensors = read_tensors(self._weights, self._shapes, torch.float32, self._encoder.ignored_prefix)
        with torch.device("meta"):  # random numbers would be drawn only to be replaced
            model = self._encoder.build(self._config)
        model.load_state_dict({self._names[name]: value.to(device) for name, value in tensors.items()}, assign=True)
        return model.eval()
