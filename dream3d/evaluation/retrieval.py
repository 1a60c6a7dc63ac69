"""Whether the right answer is among the first k."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor


def ranks(similarity: Tensor, right: Sequence[Collection[int]]) -> Tensor:
    """(N,) int64: the place, from 0 on, of the best right column of each row of (N, M) similarities.

    ``right`` holds the right columns of each row. Other right columns do not count against it; a wrong column of the
    same similarity does, so that an encoder for which all is alike gets no points. Raises ValueError for rows without
    right column, columns out of range and similarities that are not finite.
    """
    if similarity.dim() != 2 or len(similarity) != len(right):
        raise ValueError(f"similarities of shape {tuple(similarity.shape)} for {len(right)} rows of right columns")
    if not bool(torch.isfinite(similarity).all()):
        raise ValueError("similarities that are not finite have no order")
    is_right = torch.zeros(similarity.shape, dtype=torch.bool)
    for row, columns in enumerate(right):
        if not columns or not all(0 <= column < similarity.shape[1] for column in columns):
            raise ValueError(f"row {row}: right columns {sorted(columns)} of {similarity.shape[1]}")
        is_right[row, list(columns)] = True
    similarity = similarity.cpu()
    best = similarity.masked_fill(~is_right, float("-inf")).amax(1, keepdim=True)
    return ((similarity >= best) & ~is_right).sum(1)


def recall_at(similarity: Tensor, right: Sequence[Collection[int]], k: int) -> float:
    """Share of rows, 0..1, with a right column among the first ``k``; raises like :func:`ranks`, and for k < 1."""
    if k < 1:
        raise ValueError(f"recall at {k}; k is at least 1")
    return float((ranks(similarity, right) < k).double().mean())
