"""Trees, and what else grows."""

# ruff: noqa: RUF005 - "head + [0, 0.2, 0]" adds an offset to a point here; nothing is concatenated

from __future__ import annotations

import numpy as np

from dream3d.dataset.captions.templates import with_article
from dream3d.dataset.procedural.shapes import cylinder, ellipsoid, lathe, tube
from dream3d.dataset.procedural.sketch import Design, Sketch, pick


def pine_tree(rng: np.random.Generator) -> Design:
    """A stack of green cones on a brown trunk."""
    sketch, layers = Sketch(rng), int(rng.integers(3, 6))
    wide, high = rng.uniform(0.5, 0.75), rng.uniform(1.5, 2.0)
    sketch.add("brown", cylinder(0.12, 0.5))
    for i in range(layers):
        t = i / layers
        sketch.add("green", cylinder(wide * (1 - 0.75 * t), 1.5 * high / layers, 0.02, 16).at(0, 0.35 + high * t, 0))
    return Design(sketch, "pine tree", "green", ("with a brown trunk",), ("wood",), ("a fir tree",))


def oak_tree(rng: np.random.Generator) -> Design:
    """A round crown of several balls on a thick trunk with branches."""
    sketch = Sketch(rng)
    leaves = pick(rng, ("green", "green", "green", "orange", "red", "yellow"))
    sketch.add("brown", tube([(0, 0, 0), (0, 0.5, 0), (0, 1.0, 0)], (0.2, 0.14, 0.13)))
    sketch.pair("brown", tube([(0, 0.7, 0), (0.35, 1.1, 0.05)], (0.1, 0.07)))
    sketch.add(leaves, ellipsoid(0.55, 0.5, 0.55).at(0, 1.5, 0))
    for angle in np.arange(0, 2 * np.pi, 2 * np.pi / 6) + rng.uniform(0, 1):
        size = rng.uniform(0.34, 0.46)
        place = (0.5 * np.cos(angle), rng.uniform(1.2, 1.5), 0.5 * np.sin(angle))
        sketch.add(leaves, ellipsoid(size, 0.85 * size, size, 9).at(*place))
    autumn = () if leaves == "green" else (f"a tree with {leaves} autumn leaves",)
    said = ("a leafy tree", f"a tree with {leaves} leaves", *autumn)
    return Design(sketch, "tree", leaves, ("with a brown trunk",), ("wood",), said)


def palm_tree(rng: np.random.Generator) -> Design:
    """A bent trunk and arched fronds."""
    sketch, lean = Sketch(rng), rng.uniform(-0.35, 0.35)
    top = np.array([lean, 1.6, 0])
    sketch.add("brown", tube([(0, 0, 0), (0.25 * lean, 0.8, 0), tuple(top)], (0.14, 0.105, 0.095)))
    count, reach = int(rng.integers(7, 10)), rng.uniform(0.75, 0.95)
    for angle in np.arange(count) * 360 / count + rng.uniform(0, 40):
        way = [(0, 0, 0), (0, 0.22, 0.4 * reach), (0, 0.1, 0.8 * reach), (0, -0.3, reach)]
        frond = tube(way, (0.09, 0.17, 0.15, 0.05), 8, flatten=1.0).scaled(1, 0.75, 1)
        sketch.add("green", frond.turned("y", float(angle)).at(*top))
    for a in (0.5, 2.6, 4.7):
        sketch.add("orange", ellipsoid(0.1).at(*(top + [0.13 * np.cos(a), -0.12, 0.13 * np.sin(a)])))
    return Design(sketch, "palm tree", "green", ("with a brown trunk",), ("wood",), ("a palm with green fronds",))


def mushroom(rng: np.random.Generator) -> Design:
    """A domed cap, mostly spotted, on a white stalk."""
    sketch, cap = Sketch(rng), pick(rng, ("red", "brown", "orange", "purple", "yellow"))
    wide, dome, stalk = rng.uniform(0.55, 0.75), rng.uniform(0.35, 0.55), rng.uniform(0.5, 0.75)
    sketch.add("white", lathe([(0, 0), (0.22, 0), (0.2, 0.15), (0.15, stalk), (0, stalk + 0.05)]))
    arc = [(wide * np.cos(a), dome * np.sin(a)) for a in np.linspace(0, np.pi / 2, 8)]
    sketch.add(cap, lathe([(0.12, 0.03), (wide, 0), *arc[1:]], 24).at(0, stalk, 0))
    sketch.add("beige", lathe([(0, -0.03), (0.92 * wide, 0), (0, 0.02)], 24).at(0, stalk, 0))
    features: tuple[str, ...] = ("with a white stalk",)
    if rng.random() < 0.75:
        features = ("with white spots", *features)
        for ring, count in ((0.5, 7), (1.0, 4)):
            for angle in np.arange(count) * 2 * np.pi / count + ring:
                r, y = wide * np.cos(ring), stalk + dome * np.sin(ring)
                sketch.add("white", ellipsoid(0.1, 0.09, 0.1, 8).at(r * np.cos(angle), y, r * np.sin(angle)))
    return Design(sketch, "mushroom", cap, features)


def cactus(rng: np.random.Generator) -> Design:
    """A column with two raised arms, sometimes in a pot."""
    sketch, high = Sketch(rng), rng.uniform(1.3, 1.7)
    sketch.add("green", tube([(0, 0, 0), (0, high, 0)], 0.24, 14))
    for side in (-1, 1):
        y, reach, rise = rng.uniform(0.4, 0.8), rng.uniform(0.5, 0.6), rng.uniform(0.3, 0.55)
        way = [(0, y, 0), (side * reach * 0.8, y, 0), (side * reach, y + 0.15, 0), (side * reach, y + rise, 0)]
        sketch.add("green", tube(way, (0.14, 0.14, 0.14, 0.13), 12))
    features: tuple[str, ...] = ("with two arms",)
    if rng.random() < 0.5:
        pot = pick(rng, ("orange", "red", "brown", "white"))
        sketch.add(pot, lathe([(0, -0.55), (0.3, -0.55), (0.42, 0), (0.42, 0.02), (0.5, 0.02), (0.5, 0.15), (0, 0.15)]))
        features = (f"in {with_article(pot)} pot", *features)
    if rng.random() < 0.4:
        sketch.add("pink", ellipsoid(0.16, 0.12, 0.16).at(0, high + 0.26, 0))
    return Design(sketch, "cactus", "green", features)


def flower(rng: np.random.Generator) -> Design:
    """One great blossom on a stem with leaves, in a pot."""
    sketch, petal = Sketch(rng), pick(rng, ("red", "yellow", "pink", "purple", "white", "orange"))
    pot = pick(rng, ("brown", "orange", "blue", "white"), (petal,))
    heart = "yellow" if petal != "yellow" else "brown"
    sketch.add(pot, lathe([(0, 0), (0.26, 0), (0.38, 0.5), (0.45, 0.5), (0.45, 0.62), (0, 0.62)]))
    high, count = rng.uniform(1.3, 1.6), int(rng.integers(6, 9))
    sketch.add("green", tube([(0, 0.5, 0), (0.05, 0.95, 0), (0, high, 0.05)], 0.06))
    sketch.pair("green", ellipsoid(0.26, 0.06, 0.12).turned("z", 35).at(0.24, 0.92, 0))
    tilt = rng.uniform(45, 65)
    blossom = [ellipsoid(0.15, 0.07, 0.25, 9).at(0, 0, 0.31).turned("y", 360 * i / count) for i in range(count)]
    sketch.add(petal, *(leaf.turned("x", tilt).at(0, high, 0.1) for leaf in blossom))
    sketch.add(heart, ellipsoid(0.17, 0.1, 0.17).turned("x", tilt).at(0, high + 0.03, 0.14))
    said = ("a flower in a pot", "a potted flower")
    return Design(sketch, "flower", petal, (f"in {with_article(pot)} pot",), (), said)


FAMILIES = (pine_tree, oak_tree, palm_tree, mushroom, cactus, flower)
