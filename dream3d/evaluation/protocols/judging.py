"""What an image encoder says of drawn views: whether they show the prompt, and its colour on its object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dream3d.evaluation.compositional import COLORS, Composition, Pair, composition, rivals
from dream3d.evaluation.retrieval import recall_at
from dream3d.prior.image_encoder import ImageEncoder

ARTICLES = ("a ", "an ", "the ")


@dataclass(frozen=True)
class Judged:
    """One image encoder's opinion of drawn views."""

    recall_1: float
    """Share, 0..1, of views for which the prompt comes first among all captions."""
    recall_5: float
    """Share within the first five."""
    composition: Composition | None
    """None without pairs."""


def judge(
    encoders: Mapping[str, ImageEncoder],
    drawn: Sequence[tuple[str, Tensor]],
    captions: Sequence[str],
    pairs: Sequence[tuple[Pair, Tensor]],
    names: Sequence[str],
) -> dict[str, Judged]:
    """Every encoder's opinion of the views (V, 3, S, S) drawn for prompts and for pairs of a colour and an object.

    ``captions`` are those among which the prompts are looked for, ``names`` the other objects that a pair is told from.
    """
    return {
        name: Judged(*recalls(encoder, drawn, captions), composed(encoder, pairs, names))
        for name, encoder in encoders.items()
    }


def recalls(encoder: ImageEncoder, drawn: Sequence[tuple[str, Tensor]], captions: Sequence[str]) -> tuple[float, float]:
    """R@1 and R@5, 0..1, of single views, each drawn for its prompt, among captions."""
    similarity = encoder.embed_images(torch.cat([views for _, views in drawn])) @ encoder.embed_texts([*captions]).t()
    prompts = [prompt for prompt, views in drawn for _ in views]
    right = [{j for j, caption in enumerate(captions) if bare(caption) == bare(prompt)} for prompt in prompts]
    return recall_at(similarity, right, 1), recall_at(similarity, right, 5)


def composed(encoder: ImageEncoder, pairs: Sequence[tuple[Pair, Tensor]], names: Sequence[str]) -> Composition | None:
    """How often all views of a pair, as their mean vector, are nearest to it; None without pairs."""
    if not pairs:
        return None
    similarities = []
    for pair, views in pairs:
        texts = encoder.embed_texts([rival.prompt for rival in rivals(pair, names)])
        similarities.append(texts @ encoder.embed_images(views).mean(0))
    return composition(similarities, len(COLORS) - 1)


def bare(caption: str) -> str:
    """A caption in small letters without its article: "A chair" and "chair" are one answer."""
    text = caption.lower().strip()
    return next((text[len(article) :] for article in ARTICLES if text.startswith(article)), text)
