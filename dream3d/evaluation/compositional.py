"""Colours on objects that were never seen together: whether a prior composes, or only remembers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dream3d.dataset.records import ObjectRecord
from dream3d.evaluation.retrieval import recall_at

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
"""Colour words that hardly overlap; grey is left out, since shading greys everything."""


@dataclass(frozen=True, order=True)
class Pair:
    """A colour and an object's name."""

    color: str
    name: str

    @property
    def prompt(self) -> str:
        """The pair in words: "a red chair", "an orange chair"."""
        article = "an" if self.color[0] in "aeiou" else "a"
        return f"{article} {self.color} {self.name}"


def seen_pairs(records: Iterable[ObjectRecord], colors: Sequence[str] = COLORS) -> set[Pair]:
    """Every pair that training saw: a colour of an object's record or in one of its captions, with its name.

    The name counts as seen under any other name that a caption holds: "a red sofa" of the object "couch" is both.
    """
    records = list(records)
    names = {record.name.lower() for record in records}
    pairs = set()
    for record in records:
        said = " ".join([*record.colors, *record.captions])
        there = [color for color in colors if _holds(said, color)]
        called = {name for name in names if name == record.name.lower() or _holds(" ".join(record.captions), name)}
        pairs |= {Pair(color, name) for color in there for name in called}
    return pairs


def unseen_pairs(
    records: Iterable[ObjectRecord], limit: int, colors: Sequence[str] = COLORS, seed: int = 0
) -> list[Pair]:
    """Up to ``limit`` pairs of a known colour and a known name that no training record or caption holds together.

    Drawn at random but evenly: no name comes twice before every name came once. Colours that no record has at all are
    left out: a prior cannot know them.
    """
    records = list(records)
    seen = seen_pairs(records, colors)
    known = sorted({pair.color for pair in seen})
    rng = np.random.default_rng(seed)
    free = []
    for name in sorted({record.name.lower() for record in records}):
        open_colors = [color for color in known if Pair(color, name) not in seen]
        shuffled = [open_colors[i] for i in rng.permutation(len(open_colors))]
        free += [(turn, float(rng.random()), Pair(color, name)) for turn, color in enumerate(shuffled)]
    return [pair for _, _, pair in sorted(free)[:limit]]


def rivals(pair: Pair, names: Sequence[str], colors: Sequence[str] = COLORS) -> list[Pair]:
    """The pair first, then the same object in other colours, then the same colour on other objects."""
    others = [Pair(color, pair.name) for color in colors if color != pair.color]
    return [pair, *others, *(Pair(pair.color, name) for name in names if name != pair.name)]


@dataclass(frozen=True)
class Composition:
    """Shares, 0..1, of images for which a judge puts the right prompt first."""

    both: float
    """Among all rivals."""
    color: float
    """Among the same object in other colours."""
    name: float
    """Among the same colour on other objects."""


def composition(similarities: Sequence[Tensor], color_count: int) -> Composition:
    """From the similarity (M,) of each image with :func:`rivals`, the first being right; ties are wrong.

    ``color_count`` of the prompts after the first differ in colour, the rest in the object. Raises ValueError for none.
    """
    if not similarities:
        raise ValueError("no images to judge")

    def first(rows: list[Tensor]) -> float:
        return sum(recall_at(row[None], [{0}], 1) for row in rows) / len(rows)

    return Composition(
        both=first(list(similarities)),
        color=first([row[: 1 + color_count] for row in similarities]),
        name=first([torch.cat([row[:1], row[1 + color_count :]]) for row in similarities]),
    )


def _holds(text: str, phrase: str) -> bool:
    return re.search(rf"\b{re.escape(phrase.lower())}\b", text.lower()) is not None
