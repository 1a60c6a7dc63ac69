"""The sizes of an image adapter, from the ``config.json`` of its folder as untrusted data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dream3d.errors import PriorError
from dream3d.prior.schema import ADAPTER, check, checked

EncoderKind = Literal["contrastive", "clip_vision"]
"""Whose features the adapter reads: those of ``dream3d train-encoder``, or of CLIP's vision tower."""
TYPE = "image_adapter"


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes of the resampler and what it reads. The defaults are MV-RAG's. Raises :class:`PriorError` out of range."""

    encoder: EncoderKind = "clip_vision"
    feature_width: int = 1280
    """Numbers in a feature of the image encoder."""
    positions: int = 0
    """Features of a picture that get a learnt place each, for encoders whose features do not know theirs; 0: none."""
    dim: int = 1024
    """Numbers in a token inside the resampler."""
    depth: int = 4
    heads: int = 12
    head_dim: int = 64
    queries: int = 16
    """Tokens of a picture."""
    feedforward: int = 4
    """Width of the feed-forward layers, in ``dim``."""
    token_width: int = 1024
    """Numbers in a token that the network reads: the width of its text."""
    padding: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Colour that makes a picture a square, and that is behind transparent parts, sRGB in [0, 1]."""
    weight_sum: float = 1.5
    """lambda': what the weights of text and pictures add up to (MV-RAG's code; the paper names no value)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", tuple(map(float, self.padding)))
        for key, value in dataclasses.asdict(self).items():
            check(value, ADAPTER[key], key, "image adapter")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``config.json``."""
        return {"type": TYPE, **dataclasses.asdict(self)}


def parse_config(data: Mapping[str, Any], path: Path) -> AdapterConfig:
    """The configuration in a file's table, which may hold more; :class:`PriorError` naming what does not do."""
    if data.get("type") != TYPE:
        raise PriorError(f"{path}: unknown image adapter {data.get('type')!r}; known: {TYPE}")
    return AdapterConfig(**checked(data, ADAPTER, path))
