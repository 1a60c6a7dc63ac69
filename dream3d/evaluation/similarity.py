"""Cosines of the vectors that an encoder gives pictures and texts, as CLIP's and DINO's are compared."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def text_image_similarity(images: Tensor, text: Tensor) -> float:
    """Mean cosine, -1 to 1, of vectors of pictures (V, D) with that of their text (D,): CLIP's score."""
    return float((_unit(images) @ _unit(text)).mean())


def image_image_similarity(images: Tensor, references: Tensor) -> float:
    """Mean cosine, -1 to 1, of every pair of vectors of pictures (V, D) and of reference pictures (R, D).

    MV-RAG's measure for things that text encoders do not know (section 5). Raises ValueError without references.
    """
    if not len(images) or not len(references):
        raise ValueError(f"{len(images)} pictures and {len(references)} references have no similarity")
    return float((_unit(images) @ _unit(references).t()).mean())


def view_agreement(images: Tensor) -> float:
    """Mean cosine, -1 to 1, of every two different views (V, D) of one object: 1 for one view repeated.

    It is as high for a picture that never changes as for one good object. Raises ValueError for fewer than two views.
    """
    count = len(images)
    if count < 2:
        raise ValueError(f"{count} view agrees with nothing; two at least")
    cosines = _unit(images) @ _unit(images).t()
    return float((cosines.sum() - cosines.trace()) / (count * (count - 1)))


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.double(), dim=-1)
