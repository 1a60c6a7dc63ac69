"""Held-out concepts: things that no training object or caption may name, so that novelty can be measured."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dream3d.dataset.records import ObjectRecord
from dream3d.errors import UsageError
from dream3d.files import read_regular

MAX_BYTES = 2**20
IRREGULAR = {
    "knives": "knife",
    "shelves": "shelf",
    "leaves": "leaf",
    "scarves": "scarf",
    "mice": "mouse",
    "men": "man",
    "women": "woman",
    "children": "child",
    "feet": "foot",
}


@dataclass(frozen=True)
class Leak:
    """A text of a training object that names a held-out concept."""

    key: str
    concept: str
    text: str


def read_concepts(path: Path) -> tuple[str, ...]:
    """The concepts of a file: one a line, ``#`` begins a comment, blank lines count for nothing; in small letters.

    Raises :class:`UsageError` if the file cannot be read or holds no concept.
    """
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a list of concepts ({error}); give a UTF-8 text file") from error
    names = (" ".join(line.partition("#")[0].lower().split()) for line in text.splitlines())
    concepts = tuple(dict.fromkeys(name for name in names if _words(name)))
    if not concepts:
        raise UsageError(f"{path} names no concept; write one a line")
    return concepts


def mentions(text: str, concepts: Iterable[str]) -> str | None:
    """The first of the concepts that the text names, or None.

    Whole words count, in any number and case: "bar stools" and "STOOL" name "stool", "toolbox" does not name "tool".
    """
    words = [_forms(word) for word in _words(text)]
    for concept in concepts:
        wanted = _concept_forms(concept)
        for start in range(len(words) - len(wanted) + 1):
            if wanted and all(word & want for word, want in zip(words[start:], wanted, strict=False)):
                return concept
    return None


def leaks(records: Iterable[ObjectRecord], concepts: Sequence[str]) -> list[Leak]:
    """Where objects that are not of the split ``unseen`` name a held-out concept: one finding per object.

    The name, the category and every caption are searched.
    """
    known = [record for record in records if record.split != "unseen"]
    found = (leak_in(r.key, (r.name, r.category, *r.captions), concepts) for r in known)
    return [leak for leak in found if leak is not None]


def leak_in(key: str, texts: Iterable[str], concepts: Sequence[str]) -> Leak | None:
    """The first of the texts said of ``key`` that names a held-out concept, or None."""
    for text in texts:
        concept = mentions(text, concepts)
        if concept is not None:
            return Leak(key, concept, text)
    return None


@lru_cache(maxsize=4096)
def _concept_forms(concept: str) -> tuple[set[str], ...]:
    return tuple(_forms(word) for word in _words(concept))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower().replace("'", ""))


def _forms(word: str) -> set[str]:
    """The word and what it may be the plural of; two words are one noun if these sets meet."""
    forms = {word, IRREGULAR.get(word, word)}
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
        if word.endswith("es"):
            forms.add(word[:-2])
        if word.endswith("ies"):
            forms.add(word[:-3] + "y")
    return forms
