"""BM25 (Robertson and Zaragoza 2009) over texts that fit in memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

K1 = 1.2
"""How soon more of the same term counts for less; LanceDB's, so that both kinds of corpus rank alike."""
B = 0.75
"""How much a long text counts for less; LanceDB's."""


def idf(texts: int, containing: int) -> float:
    """Weight, never negative, of a term that n of N texts have: log(1 + (N - n + 0.5) / (n + 0.5))."""
    return math.log1p((texts - containing + 0.5) / (containing + 0.5))


class BM25:
    """An index of texts given as lists of terms."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self.size = len(texts)
        lengths = np.array([len(text) for text in texts], np.float64)
        mean = lengths.mean() if self.size and lengths.any() else 1.0
        self._norm = K1 * (1 - B + B * lengths / mean)
        postings: dict[str, list[tuple[int, int]]] = {}
        for row, text in enumerate(texts):
            for term, count in Counter(text).items():
                postings.setdefault(term, []).append((row, count))
        self._postings = {term: np.array(pairs, np.int64) for term, pairs in postings.items()}

    def scores(self, query: Sequence[str]) -> NDArray[np.float64]:
        """(texts,) the score of every text; 0 for those without a term of the query. A repeated term counts once."""
        scores = np.zeros(self.size)
        for term in dict.fromkeys(query):
            pairs = self._postings.get(term)
            if pairs is None:
                continue
            rows, counts = pairs[:, 0], pairs[:, 1].astype(np.float64)
            scores[rows] += idf(self.size, len(rows)) * counts * (K1 + 1) / (counts + self._norm[rows])
        return scores

    def best(self, query: Sequence[str], count: int) -> list[tuple[int, float]]:
        """At most ``count`` (row, score) with a score above 0, best first; of equals the lower row first."""
        scores = self.scores(query)
        rows = np.flatnonzero(scores)
        order = rows[np.lexsort((rows, -scores[rows]))][:count]
        return [(int(row), float(scores[row])) for row in order]
