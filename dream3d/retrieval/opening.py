"""A corpus by its place, with the encoder that belongs to it."""

from __future__ import annotations

from functools import lru_cache

from dream3d.retrieval.builtin import BUILTIN, open_packed
from dream3d.retrieval.encoder import CorpusEncoder
from dream3d.retrieval.lance import open_store
from dream3d.retrieval.search import Corpus
from dream3d.weights.loading import find_folder

ENCODER = "mini"
"""The prior whose encoders corpora are made with, whatever prior draws: it comes with the package."""
BUILTIN_NAME = "the built-in corpus"


@lru_cache(maxsize=1)
def corpus_encoder() -> CorpusEncoder:
    """The encoder of all corpora, loaded once."""
    return CorpusEncoder(find_folder(ENCODER))


def open_corpus(location: str | None = None) -> Corpus:
    """The corpus of a folder or an address, or the built-in one, which needs neither LanceDB nor a network.

    Raises UsageError if there is none, DatasetError if it cannot be used.
    """
    encoder = corpus_encoder()
    if location is None:
        return Corpus(open_packed(BUILTIN, encoder), encoder, BUILTIN_NAME)
    return Corpus(open_store(location, encoder.fingerprint), encoder, location)
