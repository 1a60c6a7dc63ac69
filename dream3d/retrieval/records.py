"""What a corpus holds, what a search gives, and how both say whose work a picture is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from dream3d.errors import escaped

MAX_CAPTION = 500
"""Characters of a caption that are kept."""
MAX_FIELD = 300
"""Characters of a source, an author or a licence that are kept."""
UNKNOWN = "unknown"
"""What results say where a corpus names no author or licence."""


@dataclass(frozen=True)
class Picture:
    """A picture of a source with what is said of it; its bytes were not looked at yet."""

    image: bytes
    """A file as it was found: PNG, JPEG, WebP, GIF or BMP."""
    caption: str
    source: str = ""
    """Where it comes from: a collection or an address."""
    author: str = ""
    licence: str = ""
    where: str = ""
    """Its place in what was read, for messages."""

    @property
    def key(self) -> str:
        """32 hexadecimal digits of the picture's bytes and its caption: the same pair has the same key everywhere."""
        return hashlib.sha256(self.image + b"\0" + self.caption.encode()).hexdigest()[:32]


def picture(
    image: bytes, caption: str, source: str = "", author: str = "", licence: str = "", where: str = ""
) -> Picture:
    """A :class:`Picture` whose texts are one line each, harmless to a terminal, and no longer than the limits."""
    source, author, licence = (_line(text, MAX_FIELD) for text in (source, author, licence))
    return Picture(image, _line(caption, MAX_CAPTION), source, author, licence, where)


def _line(text: str, limit: int) -> str:
    return escaped(" ".join(text.encode(errors="replace").decode().split()))[:limit].strip()


@dataclass(frozen=True)
class Retrieved:
    """A picture that a search found."""

    image: bytes
    """An image file: PNG, JPEG, WebP, GIF or BMP; decode it as untrusted data."""
    caption: str
    score: float
    """Of the fused ranking (:func:`dream3d.retrieval.fusion.reciprocal_rank`); only the order means something."""
    similarity: float
    """Of prompt and caption, -1..1; what the threshold is compared with."""
    source: str
    author: str
    licence: str
    key: str = ""
    """The row's key in its corpus."""
    ranks: tuple[tuple[str, int], ...] = ()
    """Where each ranking had it, from 1 on, by the ranking's name; those that did not find it are left out."""
    guessed_by: str = ""
    """What the caption was guessed by; empty for one that somebody gave."""

    @property
    def attribution(self) -> dict[str, str]:
        """For an asset's provenance: caption, source, author, licence and key; what is not known says so."""
        named = {"author": self.author or UNKNOWN, "licence": self.licence or UNKNOWN, "source": self.source or UNKNOWN}
        guess = {"caption_guessed_by": self.guessed_by} if self.guessed_by else {}
        return {"caption": self.caption, **guess, **named, "key": self.key}


@dataclass(frozen=True)
class Found:
    """What a search says of a prompt: the pictures that pass the threshold, or why there are none."""

    prompt: str
    results: tuple[Retrieved, ...]
    """Best first; empty if nothing passes: the base prior is to be used then."""
    best: float
    """The highest similarity of prompt and caption among all candidates; -1 if there were none."""
    threshold: float
    best_caption: str = ""
    below: tuple[Retrieved, ...] = field(default=(), repr=False)
    """The best candidates that do not pass, for those who want to see why."""

    @property
    def passes(self) -> bool:
        """Whether there is a picture to use."""
        return bool(self.results)

    @property
    def explanation(self) -> str:
        """One line for people: how many pictures pass, or that none does, with the best score and the threshold."""
        if self.results:
            count = f"{len(self.results)} picture{'s' if len(self.results) > 1 else ''}"
            return f"{count} of '{self.prompt}' (best similarity {self.best:.2f}, threshold {self.threshold:.2f})"
        if not self.best_caption:
            return (
                f"nothing found for '{self.prompt}': no caption shares a word or a meaning with it; no picture is used"
            )
        return (
            f"nothing passes for '{self.prompt}': the best caption, '{self.best_caption}', has similarity "
            f"{self.best:.2f}, below the threshold of {self.threshold:.2f}; no picture is used"
        )

    def cut(self, count: int) -> Found:
        """The same with at most ``count`` results."""
        return replace(self, results=self.results[:count])
