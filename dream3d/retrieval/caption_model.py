"""An image-captioning model from a folder in transformers' layout: BLIP, or GIT. Nothing in it is executed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BlipConfig, BlipForConditionalGeneration, GitConfig, GitForCausalLM
from transformers.utils import logging

from dream3d.errors import PriorError, first_line
from dream3d.prior.folder import MAX_NUMBER_BYTES, build_on_meta, check_has, read_header
from dream3d.prior.image_adapter.features import CLIP_MEAN, CLIP_STD
from dream3d.prior.schema import CLIP_TEXT, CLIP_VISION, WIDTH, Rules, check, checked, one_of, read_json, whole
from dream3d.prior.tokenizer import load_tokenizer
from dream3d.retrieval.captioning import Rgb
from dream3d.retrieval.pictures import square

FILES = ("config.json", "model.safetensors", "tokenizer.json")
MAX_TOKENS = 24
"""Of a caption."""
_TEXT: Rules = {
    **CLIP_TEXT,
    "encoder_hidden_size": WIDTH,
    "max_position_embeddings": whole(MAX_TOKENS + 2, 8192),
    **{name: whole(0, 1_000_000) for name in ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id")},
}
_BLIP: Rules = {"projection_dim": WIDTH, "image_text_hidden_size": WIDTH}


class CaptionModel:
    """A :class:`dream3d.retrieval.captioning.Captioner`.

    Raises :class:`PriorError` for files that are missing, damaged or of another kind of model, and for a folder that
    brings code of its own. Pickled weights are not read.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        check_has(folder, FILES, "give a captioning model's folder in the layout of transformers, with safetensors")
        path = folder / FILES[0]
        data = read_json(path)
        kind = check(data.get("model_type"), one_of("blip", "git"), "model_type", path)
        if "auto_map" in data or os.path.lexists(folder / "adapter_config.json"):
            raise PriorError(f"{folder} brings code or an adapter of its own, which is not run; give a plain model")
        self.name = f"{kind.upper()} of {folder.resolve().name}"
        self.device = torch.device(device)
        config = _blip(data, path) if kind == "blip" else _git(data, path)
        self._model = _loaded(folder, BlipForConditionalGeneration if kind == "blip" else GitForCausalLM, config)
        self._model.requires_grad_(False).eval().to(self.device)
        self._side = int(config.vision_config.image_size)
        self._words = int(config.text_config.vocab_size if kind == "blip" else config.vocab_size)
        self._tokenizer_file = folder / FILES[2]
        self._tokenizer  # noqa: B018 - a tokenizer that is none is told now, not after the first picture

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._tokenizer_file, MAX_TOKENS, self._words)

    @torch.no_grad()
    def captions(self, pictures: Sequence[Rgb]) -> list[str]:
        """See :class:`dream3d.retrieval.captioning.Captioner`; each picture is seen as a whole, padded with white."""
        mean, std = (torch.tensor(one, device=self.device)[:, None, None] for one in (CLIP_MEAN, CLIP_STD))
        stacked = np.stack([square(one, self._side) for one in pictures])
        pixels = torch.from_numpy(stacked).to(self.device).permute(0, 3, 1, 2).float() / 255
        written = self._model.generate(
            pixel_values=(pixels - mean) / std, max_new_tokens=MAX_TOKENS, do_sample=False, num_beams=1
        )
        return [str(self._tokenizer.decode(ids, skip_special_tokens=True)) for ids in written.tolist()]


def _blip(data: Mapping[str, Any], path: Path) -> Any:
    text = checked(_part(data, "text_config", path), _TEXT, path)
    vision = checked(_part(data, "vision_config", path), {**CLIP_VISION, **_BLIP}, path)
    return BlipConfig(text_config=text, vision_config=vision, **checked(data, _BLIP, path))


def _git(data: Mapping[str, Any], path: Path) -> Any:
    vision = checked(_part(data, "vision_config", path), CLIP_VISION, path)
    return GitConfig(vision_config=vision, **checked(data, _TEXT, path))


def _part(data: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    part = data.get(name)
    if not isinstance(part, dict):
        raise PriorError(f"{path} has no table {name!r}; it does not describe a captioning model")
    return part


def _loaded(folder: Path, kind: Any, config: Any) -> Any:
    """The model with the weights of a folder, in float32; every tensor that it needs is there."""
    weights = folder / FILES[1]
    skeleton: Any = build_on_meta(lambda: kind(config), folder / FILES[0])
    needed = sum(parameter.numel() for parameter in skeleton.parameters())
    if weights.stat().st_size > MAX_NUMBER_BYTES * needed + 2**24:
        raise PriorError(f"{weights} is larger than its configuration's {needed} numbers; copy the complete folder")
    read_header(weights)
    try:
        with _without_bars():
            model, facts = kind.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # the library raises anything for files that do not fit
        raise PriorError(f"{folder} cannot be loaded ({type(error).__name__}: {first_line(error)})") from error
    odd = sorted(map(str, facts.get("missing_keys") or ())) or sorted(map(str, facts.get("mismatched_keys") or ()))
    if odd:
        raise PriorError(f"{weights} does not belong to its configuration ({odd[0]}); copy the complete folder")
    return model


@contextmanager
def _without_bars() -> Iterator[None]:
    """While this is open, transformers draws no bars and tells nothing of the tensors that it leaves out."""
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
