"""Coloured parts, and what may honestly be said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dream3d.dataset.captions.templates import with_article
from dream3d.dataset.procedural.shapes import Array, Solid, joined

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.82, 0.06, 0.06),
    "orange": (0.95, 0.45, 0.04),
    "yellow": (0.96, 0.83, 0.08),
    "green": (0.10, 0.55, 0.12),
    "blue": (0.05, 0.12, 0.75),
    "purple": (0.45, 0.10, 0.60),
    "pink": (0.96, 0.45, 0.65),
    "brown": (0.42, 0.23, 0.10),
    "white": (0.93, 0.92, 0.89),
    "grey": (0.45, 0.45, 0.46),
    "black": (0.07, 0.07, 0.08),
    "beige": (0.85, 0.72, 0.50),
}
"""Colour words and their sRGB values; none is near (0.42, 0.56, 0.78), which many images have as background."""
PAINT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
"""Colours of things that people paint."""
JITTER = 0.035
"""Greatest change of a channel from one asset to the next; small enough that the word still fits."""
SHARE = 0.03
"""A colour is said to be an asset's own from this share of its surface."""


class Sketch:
    """Collects the coloured parts of one asset; each colour word has one shade in it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.parts: list[tuple[str, Solid]] = []
        self.shades = {word: np.array(rgb) + rng.uniform(-JITTER, JITTER, 3) for word, rgb in PALETTE.items()}

    def add(self, colour: str, *solids: Solid) -> None:
        """Adds solids of one colour; KeyError if the palette has no such word."""
        if colour not in self.shades:
            raise KeyError(colour)
        self.parts += [(colour, solid) for solid in solids]

    def pair(self, colour: str, *solids: Solid) -> None:
        """Adds solids and their mirror images."""
        self.add(colour, *solids, *(solid.mirrored() for solid in solids))

    def colours(self) -> tuple[str, ...]:
        """Words for what covers at least :data:`SHARE` of the surface, the largest first."""
        areas: dict[str, float] = {}
        for word, solid in self.parts:
            areas[word] = areas.get(word, 0.0) + solid.area()
        total = sum(areas.values())
        return tuple(sorted((w for w in areas if areas[w] >= SHARE * total), key=lambda w: -areas[w]))

    def mesh(self) -> tuple[Array, Array, Array, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
        """Vertices, unit normals, sRGB colours (V, 3 each) and faces (F, 3) of all parts, the lowest at y = 0."""
        whole = joined([solid for _, solid in self.parts])
        normals = np.concatenate([solid.normals() for _, solid in self.parts])
        colours = [np.broadcast_to(self.shades[word], solid.vertices.shape) for word, solid in self.parts]
        vertices = whole.vertices - np.array([0.0, whole.vertices[:, 1].min(), 0.0])
        return vertices, normals, np.clip(np.concatenate(colours), 0, 1), whole.faces


@dataclass(frozen=True)
class Design:
    """One procedural asset and its description."""

    sketch: Sketch
    name: str
    """Everyday words: "elk skull"."""
    colour: str
    """The colour that a person would name; empty if nobody would name one."""
    features: tuple[str, ...] = ()
    """What may follow the noun: "with white spots"; true of this very asset."""
    materials: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    """Captions beyond those that :meth:`captions` makes."""
    own_words: bool = False
    """The sentences say it all: it is more than one thing, which "a cube" would not tell."""

    def captions(self) -> tuple[str, ...]:
        """The name alone, with article, with colour, with each feature, and the sentences; no duplicates."""
        if self.own_words:
            return tuple(dict.fromkeys(self.sentences))
        plain, coloured = self.name, f"{self.colour} {self.name}" if self.colour else self.name
        said = [plain, with_article(plain), coloured, with_article(coloured)]
        said += [f"{with_article(coloured)} {feature}" for feature in self.features]
        said += [f"{with_article(plain)} {feature}" for feature in self.features[:1]]
        return tuple(dict.fromkeys([*said, *self.sentences]))


Family = Callable[[np.random.Generator], Design]


def pick(rng: np.random.Generator, words: Sequence[str], but: Sequence[str] = ()) -> str:
    """One of the words that is not in ``but``."""
    left = [word for word in words if word not in but]
    return left[int(rng.integers(len(left)))]
