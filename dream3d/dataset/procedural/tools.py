"""Tools and other things for the hand, upright and broad side to the front."""

from __future__ import annotations

import numpy as np

from dream3d.dataset.captions.templates import with_article
from dream3d.dataset.procedural.shapes import Solid, box, cylinder, ellipsoid, lathe, prism, torus, tube
from dream3d.dataset.procedural.sketch import PAINT, Design, Sketch, pick


def hammer(rng: np.random.Generator) -> Design:
    """A metal head with face and peen on a handle."""
    sketch, handle = Sketch(rng), pick(rng, ("brown", "red", "yellow", "beige", "blue"))
    long = rng.uniform(1.2, 1.6)
    sketch.add(handle, tube([(0, 0.1, 0), (0, 0.6, 0), (0, long, 0)], (0.1, 0.085, 0.075)))
    face = cylinder(0.17, 0.3).turned("z", -90).at(0.12, long + 0.07, 0)
    sketch.add("grey", box(0.34, 0.26, 0.26).at(0, long - 0.06, 0), face)
    peen = prism([(-0.1, -0.13), (-0.1, 0.13), (-0.55, 0.02), (-0.55, -0.06)], 0.22)
    sketch.add("grey", peen.at(0, long + 0.07, 0))
    return _with_handle(sketch, "hammer", handle)


def _with_handle(sketch: Sketch, name: str, colour: str) -> Design:
    feature = f"with {with_article(colour)} handle"
    return Design(sketch, name, "", (feature,), ("metal",), (f"a grey {name} {feature}",))


def axe(rng: np.random.Generator) -> Design:
    """A fan-shaped blade on a long handle."""
    sketch, handle = Sketch(rng), pick(rng, ("brown", "red", "beige", "yellow"))
    long, fan = rng.uniform(1.5, 1.9), rng.uniform(0.32, 0.44)
    sketch.add(handle, tube([(0, 0.05, 0), (0.03, 0.7, 0), (0, long, 0)], (0.085, 0.07, 0.075)))
    edge = [(0.55 + 0.08 * np.cos(a), fan * np.sin(a)) for a in np.linspace(-np.pi / 2, np.pi / 2, 6)]
    sketch.add("grey", prism([(0, -0.14), (0.2, -0.16), *edge, (0.2, 0.16), (0, 0.14)], 0.13).at(0, long - 0.15, 0))
    sketch.add("grey", box(0.24, 0.28, 0.2).at(-0.04, long - 0.29, 0))
    return _with_handle(sketch, "axe", handle)


def sword(rng: np.random.Generator) -> Design:
    """A broad blade, point up, with crossguard and pommel."""
    sketch, grip = Sketch(rng), pick(rng, ("brown", "black", "red", "blue"))
    long, wide = rng.uniform(1.5, 1.9), rng.uniform(0.11, 0.15)
    blade = prism([(-wide, 0), (wide, 0), (0.8 * wide, 0.86 * long), (0, long), (-0.8 * wide, 0.86 * long)], 0.09)
    sketch.add("grey", blade.at(0, 0.5, 0))
    sketch.add("yellow", box(rng.uniform(0.65, 0.85), 0.12, 0.16).at(0, 0.42, 0), ellipsoid(0.12).at(0, 0.0, 0))
    sketch.add(grip, cylinder(0.075, 0.42).at(0, 0.02, 0))
    return Design(sketch, "sword", "grey", (f"with a {grip} grip",), ("metal",), ("a steel sword",))


def umbrella(rng: np.random.Generator) -> Design:
    """Open, in panels of one or two colours, with a hooked handle."""
    sketch, cloth = Sketch(rng), pick(rng, PAINT, ("black", "white"))
    other = pick(rng, ("white", "yellow", "black"), (cloth,)) if rng.random() < 0.5 else cloth
    wide, dome = rng.uniform(0.85, 1.0), rng.uniform(0.4, 0.55)
    arc = [(wide * np.cos(a), dome * np.sin(a)) for a in np.linspace(0, np.pi / 2, 6)]
    shell = lathe([(0, dome - 0.07), *((0.93 * r, y - 0.05) for r, y in arc[-2::-1]), *arc], 24)
    panel = (np.arctan2(*shell.corners().mean(1)[:, [0, 2]].T) // (np.pi / 4)).astype(int) % 2
    for index, word in enumerate((cloth, other)):
        sketch.add(word, Solid(shell.vertices, shell.faces[panel == index]).at(0, 1.2, 0))
    hook = [(0, 1.2 + dome + 0.1, 0), (0, 0.5, 0), (0, 0.15, 0), (0.1, 0.0, 0), (0.22, 0.03, 0), (0.25, 0.16, 0)]
    sketch.add("brown", tube(hook, 0.05, 8))
    colour, said = (cloth, ()) if other == cloth else ("", (f"{with_article(cloth)} and {other} umbrella",))
    return Design(sketch, "umbrella", colour, ("with a brown handle",), ("cloth",), ("an open umbrella", *said))


def key(rng: np.random.Generator) -> Design:
    """An old door key: ring, shaft and two bits."""
    sketch, metal = Sketch(rng), pick(rng, ("yellow", "grey", "black", "brown"))
    ring, long = rng.uniform(0.28, 0.36), rng.uniform(1.1, 1.4)
    sketch.add(metal, torus(ring, 0.1).turned("x", 90).at(0, long + ring, 0), cylinder(0.09, long))
    sketch.add(metal, cylinder(0.14, 0.1).at(0, long - 0.14, 0))
    for y in (0.06, rng.uniform(0.28, 0.36)):
        sketch.add(metal, box(rng.uniform(0.28, 0.4), 0.14, 0.12).at(0.2, y, 0))
    return Design(sketch, "key", metal, (), ("metal",), ("an old door key",))


def chess_pawn(rng: np.random.Generator) -> Design:
    """A turned pawn."""
    sketch, wood = Sketch(rng), pick(rng, ("white", "black", "brown", "red", "beige"))
    high, foot = rng.uniform(0.8, 1.0), rng.uniform(0.38, 0.48)
    base = [(0, 0), (foot, 0), (foot, 0.14), (0.8 * foot, 0.2), (0.5 * foot, 0.3)]
    collar = [(0.14, high), (0.27, high), (0.27, high + 0.08), (0, high + 0.08)]
    sketch.add(wood, lathe([*base, *collar], 24), ellipsoid(rng.uniform(0.24, 0.3)).at(0, high + 0.28, 0))
    return Design(sketch, "chess pawn", wood, (), ("wood",), ("a pawn", f"a {wood} chess piece"))


FAMILIES = (hammer, axe, sword, umbrella, key, chess_pawn)
