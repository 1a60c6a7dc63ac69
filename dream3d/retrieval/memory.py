"""A corpus in memory: the built-in one, which needs no database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dream3d.retrieval.bm25 import BM25
from dream3d.retrieval.encoder import Vectors
from dream3d.retrieval.store import Row, VectorTable
from dream3d.retrieval.terms import terms


@dataclass(frozen=True)
class Entry:
    """What is known of a picture without its bytes."""

    key: str
    caption: str
    source: str
    author: str
    licence: str


class MemoryStore:
    """A :class:`dream3d.retrieval.store.Store` of some thousand rows."""

    def __init__(
        self,
        entries: Sequence[Entry],
        captions: NDArray[np.generic],
        pictures: NDArray[np.generic],
        looks: NDArray[np.uint8],
        image: Callable[[str], bytes],
    ) -> None:
        """Vectors and looks are in the order of the entries; ``image`` gives the picture file of a key."""
        self._entries = {entry.key: entry for entry in entries}
        self._keys = [entry.key for entry in entries]
        self._vectors = VectorTable.of(self._keys, captions, pictures)
        self._looks = looks
        self._image = image
        self._index = BM25([terms(entry.caption) for entry in entries])

    def __len__(self) -> int:
        """Rows."""
        return len(self._keys)

    def by_words(self, terms: Sequence[str], count: int) -> list[str]:
        """See :class:`dream3d.retrieval.store.Store`."""
        return [self._keys[row] for row, _ in self._index.best(terms, count)]

    def by_caption(self, vector: Vectors, count: int) -> list[str]:
        """See :class:`dream3d.retrieval.store.Store`."""
        return self._vectors.by_caption(vector, count)

    def by_picture(self, vector: Vectors, count: int) -> list[str]:
        """See :class:`dream3d.retrieval.store.Store`."""
        return self._vectors.by_picture(vector, count)

    def similarities(self, keys: Sequence[str], vector: Vectors) -> list[float]:
        """See :class:`dream3d.retrieval.store.Store`."""
        return self._vectors.similarities(keys, vector)

    def rows(self, keys: Sequence[str]) -> list[Row]:
        """See :class:`dream3d.retrieval.store.Store`."""
        return [self._row(key) for key in keys if key in self._entries]

    def entries(self) -> list[Entry]:
        """All that it holds, in its order."""
        return list(self._entries.values())

    def _row(self, key: str) -> Row:
        entry, look = self._entries[key], self._looks[self._vectors.places[key]].tobytes()
        return Row(key, self._image(key), entry.caption, entry.source, entry.author, entry.licence, look)
