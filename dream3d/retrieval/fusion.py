"""Several rankings to one, and the threshold below which a picture is not used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RANK_OFFSET = 60
"""Cormack, Clarke and Buettcher 2009: what keeps a first place from outweighing two second ones."""
THRESHOLD = 0.75
"""Similarity of prompt and caption from which a picture is taken for one of the prompt; see docs/corpus.md."""
WEIGHTS = {"words": 1.0, "captions": 1.0, "pictures": 0.1}
"""Of the rankings: full text search, vectors of captions, vectors of pictures; the last one is mostly wrong so far."""


def reciprocal_rank(
    rankings: Mapping[str, Sequence[str]], weights: Mapping[str, float] | None = None, offset: int = RANK_OFFSET
) -> list[tuple[str, float]]:
    """Reciprocal rank fusion: (key, score) best first, where score is the sum of weight / (offset + rank), rank from 1.

    ``rankings`` are keys, best first, by the name of the ranking; a ranking without a weight has weight 1. Of equal
    scores, the key that an earlier ranking has first comes first. Raises ValueError for a key twice in one ranking.
    """
    scores: dict[str, float] = {}
    for name, keys in rankings.items():
        if len(set(keys)) != len(keys):
            raise ValueError(f"the ranking {name!r} has a key twice")
        weight = (weights or {}).get(name, 1.0)
        for rank, key in enumerate(keys, start=1):
            scores[key] = scores.get(key, 0.0) + weight / (offset + rank)
    return sorted(scores.items(), key=lambda item: -item[1])  # the sort is stable


def places(rankings: Mapping[str, Sequence[str]], key: str) -> tuple[tuple[str, int], ...]:
    """Where each ranking has a key, from 1 on, by its name."""
    return tuple((name, keys.index(key) + 1) for name, keys in rankings.items() if key in keys)


def passing(similarities: Sequence[float], threshold: float) -> list[int]:
    """The indices whose similarity is at least the threshold, in their order."""
    return [index for index, similarity in enumerate(similarities) if similarity >= threshold]
