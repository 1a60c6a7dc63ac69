"""Simple bodies with colour, number and place: what a caption's grammar can be learnt from."""

from __future__ import annotations

import numpy as np

from dream3d.dataset.captions.templates import with_article
from dream3d.dataset.procedural.shapes import Solid, box, cylinder, ellipsoid, pyramid, torus
from dream3d.dataset.procedural.sketch import PAINT, Design, Sketch, pick

NUMBERS = {2: "two", 3: "three", 4: "four"}


BODIES: dict[str, Solid] = {
    "cube": box(1, 1, 1),
    "sphere": ellipsoid(0.5, detail=16).at(0, 0.5, 0),
    "cylinder": cylinder(0.5, 1, sides=28),
    "cone": cylinder(0.5, 1, 0.0, 28),
    "torus": torus(0.36, 0.14, 28).turned("x", 90).at(0, 0.5, 0),
    "pyramid": pyramid(1, 1),
}
"""Bodies of height and width 1 that stand on y = 0."""


def solid_body(rng: np.random.Generator) -> Design:
    """One body; its proportions vary a little."""
    sketch, word, paint = Sketch(rng), pick(rng, tuple(BODIES)), pick(rng, PAINT)
    sketch.add(paint, BODIES[word].turned("y", rng.uniform(-30, 30)).scaled(1, rng.uniform(0.9, 1.1), 1))
    return Design(sketch, word, paint)


def counted(rng: np.random.Generator) -> Design:
    """Two to four equal bodies in a row or an arc."""
    sketch, word, paint = Sketch(rng), pick(rng, tuple(BODIES)), pick(rng, PAINT)
    count = int(rng.integers(2, 5))
    for i in range(count):
        x = 1.25 * (i - (count - 1) / 2)
        sketch.add(paint, BODIES[word].at(x, 0, rng.uniform(-0.3, 0.3)))
    number, plural = NUMBERS[count], "tori" if word == "torus" else f"{word}s"
    many = f"{number} {plural}"
    return Design(sketch, many, paint, sentences=(many, f"{number} {paint} {plural}"), own_words=True)


def _two(rng: np.random.Generator) -> tuple[tuple[str, str], tuple[str, str]]:
    """Two (colour, body) that differ in both."""
    first = pick(rng, PAINT), pick(rng, tuple(BODIES))
    return first, (pick(rng, PAINT, (first[0],)), pick(rng, tuple(BODIES), (first[1],)))


def stacked(rng: np.random.Generator) -> Design:
    """Stacked objects: "a red cube on a blue cylinder"."""
    upper, lower = _two(rng)
    while lower[1] not in ("cube", "cylinder"):  # nothing rests on a point
        upper, lower = _two(rng)
    return on_top(rng, upper, lower)


def on_top(rng: np.random.Generator, upper: tuple[str, str], lower: tuple[str, str]) -> Design:
    """``upper`` on ``lower``, both (colour, body)."""
    sketch = Sketch(rng)
    sketch.add(lower[0], BODIES[lower[1]])
    size = rng.uniform(0.65, 0.95)
    sketch.add(upper[0], BODIES[upper[1]].scaled(size, size, size).at(0, 1, 0))
    return _related(sketch, upper, lower, ("on", "on top of"), ("under", "below"))


def beside(rng: np.random.Generator) -> Design:
    """One body next to another: "a yellow cone next to a red sphere"."""
    first, second = _two(rng)
    sketch, apart = Sketch(rng), rng.uniform(1.15, 1.4) / 2
    sketch.add(first[0], BODIES[first[1]].at(-apart, 0, 0))
    sketch.add(second[0], BODIES[second[1]].at(apart, 0, 0))
    return _related(sketch, first, second, ("next to", "beside"), ("next to", "beside"))


def _related(
    sketch: Sketch, first: tuple[str, str], second: tuple[str, str], there: tuple[str, str], back: tuple[str, str]
) -> Design:
    a, b = with_article(" ".join(first)), with_article(" ".join(second))
    said = [f"{a} {word} {b}" for word in there] + [f"{b} {word} {a}" for word in back]
    plain = f"{with_article(first[1])} {there[0]} {with_article(second[1])}"
    name = f"{first[1]} and {second[1]}"
    return Design(sketch, name, "", sentences=(*said, f"{a} and {b}", plain), own_words=True)


FAMILIES = (solid_body, counted, stacked, beside)
