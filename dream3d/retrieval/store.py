"""What a search needs of a corpus, wherever it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dream3d.retrieval.encoder import Vectors


@dataclass(frozen=True)
class Row:
    """A picture of a corpus, as a search sees it."""

    key: str
    image: bytes
    caption: str
    source: str
    author: str
    licence: str
    look: bytes
    """See :func:`dream3d.retrieval.dedupe.look`."""
    guessed_by: str = ""
    """What the caption was guessed by; empty for one that somebody gave."""


class Store(Protocol):
    """Rankings are keys, best first; all methods may raise :class:`dream3d.errors.DatasetError` for a damaged store."""

    def __len__(self) -> int:
        """Rows."""
        ...

    def by_words(self, terms: Sequence[str], count: int) -> list[str]:
        """By BM25 over the captions; only those with one of the terms."""
        ...

    def by_caption(self, vector: Vectors, count: int) -> list[str]:
        """By the captions' vectors."""
        ...

    def by_picture(self, vector: Vectors, count: int) -> list[str]:
        """By the pictures' vectors; those without one are left out."""
        ...

    def similarities(self, keys: Sequence[str], vector: Vectors) -> list[float]:
        """Cosine of each row's caption vector and a vector of length 1."""
        ...

    def rows(self, keys: Sequence[str]) -> list[Row]:
        """The rows of these keys, in this order; those that are not there are left out."""
        ...


@dataclass(frozen=True)
class VectorTable:
    """The vectors of a corpus that fits in memory, in the order of its keys."""

    keys: tuple[str, ...]
    captions: Vectors
    pictures: Vectors
    places: dict[str, int]

    @classmethod
    def of(cls, keys: Sequence[str], captions: NDArray[np.generic], pictures: NDArray[np.generic]) -> VectorTable:
        """Vectors of any precision; they are compared in float32."""
        places = {key: place for place, key in enumerate(keys)}
        return cls(tuple(keys), np.asarray(captions, np.float32), np.asarray(pictures, np.float32), places)

    def by_caption(self, vector: Vectors, count: int) -> list[str]:
        """See :class:`Store`."""
        return self._best(self.captions @ vector, count)

    def by_picture(self, vector: Vectors, count: int) -> list[str]:
        """See :class:`Store`."""
        return self._best(self.pictures @ vector, count)

    def similarities(self, keys: Sequence[str], vector: Vectors) -> list[float]:
        """See :class:`Store`."""
        found = self.captions[[self.places[key] for key in keys]] @ vector
        return [float(value) for value in found]

    def _best(self, scores: NDArray[np.float32], count: int) -> list[str]:
        """Keys of the highest scores above 0; of equals, which many rows of one caption are, the first ones."""
        count = min(count, len(scores))
        if not count:
            return []
        lowest = np.partition(scores, -count)[-count]
        rows = np.flatnonzero(scores >= max(lowest, 1e-6))
        order = rows[np.lexsort((rows, -scores[rows]))][:count]
        return [self.keys[row] for row in order]
