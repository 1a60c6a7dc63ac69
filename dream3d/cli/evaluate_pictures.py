"""The pictures of an evaluation's prompts from a corpus: those that priors draw by, and those that judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from dream3d.retrieval.references import Reference

PICTURES = 4
"""Of a prompt, that a corpus is asked for; as many again if priors draw by pictures."""
PICTURE_SIDE = 224

SUFFIXES = {"text": "", "pictures": ", by pictures", "one-picture": ", by one picture"}
"""What priors can draw by, and what their columns are called besides."""
Search = Callable[[str], "Sequence[Reference]"]
"""Finds the pictures of a prompt, the best first; none where nothing in the corpus is near enough."""


def search_in(corpus: str | None, count: int) -> Search:
    """Looks for up to ``count`` pictures in a corpus, once for each prompt."""
    from dream3d.retrieval.opening import open_corpus
    from dream3d.retrieval.references import references_of

    opened = open_corpus(corpus)

    @cache
    def find(prompt: str) -> Sequence[Reference]:
        references, _ = references_of(opened.search(prompt, count))
        return references

    return find


def shared_out(found: Sequence[Reference], draws: bool) -> tuple[Sequence[Reference], Sequence[Reference]]:
    """The pictures to draw by, and those to be judged by: every second one each, so that none is both.

    If nothing ``draws`` by them, all are there to be judged by.
    """
    return (found[::2], found[1::2]) if draws else ((), found)


def as_tensor(references: Sequence[Reference]) -> Tensor | None:
    """(R, 3, S, S) in [0, 1], padded with white; None for none."""
    from dream3d.retrieval.references import squares

    return squares(references, PICTURE_SIDE, (1.0, 1.0, 1.0)) if references else None
