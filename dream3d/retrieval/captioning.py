"""Captions for the pictures of a corpus that have none: guesses, and labelled as such."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dream3d.errors import DatasetError, UsageError
from dream3d.retrieval.encoder import CorpusEncoder, Vectors
from dream3d.retrieval.lance import LanceStore, NewCaption
from dream3d.retrieval.pictures import check_picture
from dream3d.retrieval.readers.skipped import Skipped
from dream3d.retrieval.records import picture
from dream3d.retrieval.terms import terms

AT_ONCE = 32
"""Pictures that are looked at, and written, together; a stopped command loses at most these."""
Rgb = NDArray[np.uint8]
"""(H, W, 3) sRGB."""


class Captioner(Protocol):
    """What guesses."""

    @property
    def name(self) -> str:
        """Kept with every guess."""
        ...

    def captions(self, pictures: Sequence[Rgb]) -> list[str]:
        """A caption for each; "" where there is nothing to say."""
        ...


class NearestName:
    """The name, out of some, that lies nearest to a picture by the image encoder of corpora, be it far all the same.

    Raises UsageError for no names.
    """

    def __init__(self, encoder: CorpusEncoder, names: Sequence[str], of: str) -> None:
        """``of`` says whose encoder it is, for the label."""
        if not names:
            raise UsageError("there are no names to choose from; give some by --names FILE")
        self._encoder, self._names = encoder, list(names)
        self.name = f"nearest of {len(names)} names, image encoder of {of}"
        self._vectors: Vectors = encoder.names_of_pictures(self._names)

    def captions(self, pictures: Sequence[Rgb]) -> list[str]:
        """See :class:`Captioner`."""
        similarity = self._encoder.pictures(pictures) @ self._vectors.T
        return [self._names[index] for index in similarity.argmax(1)]


@dataclass
class Captioned:
    """What became of the pictures of a corpus."""

    written: int = 0
    kept: int = 0
    """That have a caption."""
    skipped: Skipped = field(default_factory=Skipped)


def caption_store(
    store: LanceStore,
    encoder: CorpusEncoder,
    captioner: Captioner,
    *,
    replace: bool = False,
    report: Callable[[Captioned], None] = lambda captioned: None,
) -> Captioned:
    """Guess captions for the pictures of a store without one, or, to ``replace`` them, for all.

    Stopped and called again it goes on with those that still have none. A picture keeps its key, so that adding its
    source again adds nothing. Pictures that cannot be decoded or get no words are skipped and counted.
    """
    captioned = Captioned()
    columns = store.columns(("key", "caption"))
    wanted = [key for key, text in zip(columns["key"], columns["caption"], strict=True) if replace or not text]
    captioned.kept = len(columns["key"]) - len(wanted)
    for start in range(0, len(wanted), AT_ONCE):
        guessed = list(_guessed(store, captioner, wanted[start : start + AT_ONCE], captioned.skipped))
        vectors = encoder.captions([text for _, text in guessed])
        new = [
            NewCaption(key, text, " ".join(terms(text)), captioner.name, vectors[index])
            for index, (key, text) in enumerate(guessed)
        ]
        store.recaption(new, replace=replace)
        captioned.written += len(new)
        report(captioned)
    return captioned


def _guessed(
    store: LanceStore, captioner: Captioner, keys: Sequence[str], skipped: Skipped
) -> Iterator[tuple[str, str]]:
    """Keys with their guesses, one line each, no longer than captions may be."""
    good: list[tuple[str, Rgb]] = []
    for row in store.rows(keys):
        try:
            good.append((row.key, check_picture(row.image).rgb))
        except DatasetError as error:
            skipped.add(row.key, error)
    if not good:
        return
    for (key, _), text in zip(good, captioner.captions([rgb for _, rgb in good]), strict=True):
        said = picture(b"", text).caption
        if said:
            yield key, said
        else:
            skipped.add(key, "no words were found for it")
