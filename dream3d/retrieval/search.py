"""Search of a corpus: three rankings, one fused order, the threshold, and no picture twice."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from dream3d.bounds import Between, check_setting, check_text
from dream3d.errors import UsageError
from dream3d.retrieval.dedupe import distinct
from dream3d.retrieval.encoder import CorpusEncoder
from dream3d.retrieval.fusion import THRESHOLD, WEIGHTS, passing, places, reciprocal_rank
from dream3d.retrieval.lance import LanceStore
from dream3d.retrieval.memory import MemoryStore
from dream3d.retrieval.records import Found, Retrieved
from dream3d.retrieval.store import Row
from dream3d.retrieval.terms import terms

CANDIDATES = 50
"""Of each ranking, that are fused."""
SPARE = 3
"""Rows that are fetched for each result that is wanted: some may be nearly the same."""
MAX_COUNT = 64
"""Results of one search."""


@dataclass
class Corpus:
    """A store and the encoder that its vectors were made with."""

    store: MemoryStore | LanceStore
    encoder: CorpusEncoder
    name: str
    """For messages: "the built-in corpus", or where it lies."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def search(self, prompt: str, count: int = 4, threshold: float = THRESHOLD) -> Found:
        """At most ``count`` pictures of a prompt, best first; none if no caption is similar enough.

        BM25 over captions, vectors of captions and vectors of pictures are fused by reciprocal rank. What is below the
        ``threshold`` (cosine of prompt and caption, -1..1) is dropped, and of pictures that are nearly the same all but
        the first. Raises UsageError for settings out of range, DatasetError for a damaged store.
        """
        prompt = check_text(prompt, "prompt")
        for name, value, low, high in (("count", count, 1, MAX_COUNT), ("threshold", threshold, -1, 1)):
            kind = int if name == "count" else float
            check_setting(value, kind, name, "{}", Between(low, high))
        if not terms(prompt):
            raise UsageError(f"the prompt {prompt!r} names nothing to look for; name the object")
        with self._lock:  # the encoder keeps words
            meaning = self.encoder.captions([prompt])[0]
            sight = self.encoder.prompt_for_pictures(prompt)
        rankings = {
            "words": self.store.by_words(terms(prompt), CANDIDATES),
            "captions": self.store.by_caption(meaning, CANDIDATES),
            "pictures": self.store.by_picture(sight, CANDIDATES),
        }
        fused = reciprocal_rank(rankings, WEIGHTS)
        keys, scores = [key for key, _ in fused], dict(fused)
        similarities = self.store.similarities(keys, meaning)
        similar = dict(zip(keys, similarities, strict=True))
        good = [keys[index] for index in passing(similarities, threshold)]

        def retrieved(row: Row) -> Retrieved:
            return Retrieved(
                row.image,
                row.caption,
                scores[row.key],
                similar[row.key],
                row.source,
                row.author,
                row.licence,
                row.key,
                places(rankings, row.key),
                row.guessed_by,
            )

        rows = self.store.rows(good[: SPARE * count])
        results = tuple(retrieved(rows[index]) for index in distinct([row.look for row in rows])[:count])
        nearest = sorted(keys, key=lambda key: -similar[key])[:count]
        below = () if results else tuple(retrieved(row) for row in self.store.rows(nearest))
        best = similar[nearest[0]] if nearest else -1.0
        best_caption = next((row.caption for row in (*results, *below) if row.key in nearest[:1]), "")
        return Found(prompt, results, best, threshold, best_caption, below)
