"""Buildings, doors towards +z."""

from __future__ import annotations

import numpy as np

from dream3d.dataset.captions.templates import with_article
from dream3d.dataset.procedural.shapes import Solid, box, cylinder, ellipsoid, lathe, prism, pyramid
from dream3d.dataset.procedural.sketch import Design, Sketch, pick


def _gable(wide: float, high: float, depth: float) -> Solid:
    """A roof whose ridge runs along z, standing on y = 0."""
    return prism([(-wide / 2, 0), (wide / 2, 0), (0, high)], depth)


def house(rng: np.random.Generator) -> Design:
    """Walls, gable roof, door, windows and chimney."""
    sketch, wall = Sketch(rng), pick(rng, ("white", "yellow", "beige", "pink", "red"))
    roof = pick(rng, ("red", "brown", "grey", "green"), (wall,))
    door = pick(rng, ("brown", "green", "blue"), (roof,))
    wide, deep, high = rng.uniform(1.1, 1.5), rng.uniform(1.1, 1.5), rng.uniform(0.75, 1.0)
    sketch.add(wall, box(wide, high, deep), _gable(wide, 0.62, deep).at(0, high, 0))
    sketch.add(roof, _gable(1.22 * wide, 0.66, 1.12 * deep).at(0, high + 0.05, 0))
    sketch.add(wall, _gable(0.96 * wide, 0.5, 1.14 * deep).at(0, high + 0.03, 0))
    sketch.add(door, box(0.27, 0.5, 0.06).at(0, 0, deep / 2))
    for x in (-0.33 * wide, 0.33 * wide):
        for z in (deep / 2, -deep / 2):
            sketch.add("black", box(0.24, 0.28, 0.06).at(x, 0.4 * high, z))
    sketch.pair("black", *(box(0.06, 0.28, 0.26).at(wide / 2, 0.4 * high, z) for z in (-0.27 * deep, 0.27 * deep)))
    sketch.add("brown" if roof != "brown" else "grey", box(0.2, 0.55, 0.2).at(0.3 * wide, high + 0.25, -0.2 * deep))
    return Design(sketch, "house", wall, (f"with a {roof} roof",), ("brick",))


def castle(rng: np.random.Generator) -> Design:
    """Four round towers with pointed roofs, battlements and a gate."""
    sketch, stone = Sketch(rng), pick(rng, ("grey", "beige", "white"))
    roof = pick(rng, ("red", "blue", "purple", "green"))
    half, high = rng.uniform(0.65, 0.8), rng.uniform(1.0, 1.3)
    wall = 0.62 * high
    sketch.add(stone, box(2 * half, wall, 2 * half), box(0.7, 1.3 * high, 0.7))
    for x in (-half, half):
        for z in (-half, half):
            sketch.add(stone, cylinder(0.25, high).at(x, 0, z))
            sketch.add(roof, cylinder(0.34, 0.5, 0.0).at(x, high, z))
    sketch.add(roof, pyramid(0.9, 0.6).at(0, 1.3 * high, 0))
    for t in np.linspace(-0.55, 0.55, 4) * half:
        for side in (-half, half):
            sketch.add(stone, box(0.15, 0.16, 0.12).at(t, wall, side), box(0.12, 0.16, 0.15).at(side, wall, t))
    arch = cylinder(0.18, 0.08).turned("x", 90).at(0, 0.42, half - 0.04)
    sketch.add("brown", box(0.36, 0.42, 0.08).at(0, 0, half), arch)
    return Design(sketch, "castle", stone, (f"with {roof} roofs", "with four towers"), ("stone",))


def church(rng: np.random.Generator) -> Design:
    """A nave with a gable roof behind a tower with spire and cross."""
    sketch, wall = Sketch(rng), pick(rng, ("white", "beige", "grey"))
    roof = pick(rng, ("red", "brown", "black", "green"))
    tower, high = rng.uniform(1.2, 1.5), rng.uniform(0.6, 0.75)
    sketch.add(wall, box(0.85, high, 1.4).at(0, 0, -0.5), box(0.52, tower, 0.52).at(0, 0, 0.35))
    sketch.add(roof, _gable(1.0, 0.5, 1.45).at(0, high, -0.5), pyramid(0.6, rng.uniform(0.6, 0.9)).at(0, tower, 0.35))
    top = tower + 0.75
    sketch.add("yellow", box(0.09, 0.5, 0.09).at(0, top - 0.05, 0.35), box(0.32, 0.09, 0.09).at(0, top + 0.22, 0.35))
    sketch.add("brown", box(0.26, 0.42, 0.06).at(0, 0, 0.61))
    sketch.add("black", box(0.18, 0.24, 0.06).at(0, 0.8 * tower, 0.6), box(0.56, 0.24, 0.18).at(0, 0.8 * tower, 0.35))
    sketch.pair("black", *(box(0.05, 0.32, 0.16).at(0.425, 0.2, z) for z in (-0.2, -0.6, -1.0)))
    return Design(sketch, "church", wall, (f"with a {roof} roof", "with a tower"), ("stone",))


def lighthouse(rng: np.random.Generator) -> Design:
    """A striped tower with a lamp room."""
    sketch, stripe = Sketch(rng), pick(rng, ("red", "black", "blue", "orange", "green"))
    bands, high, foot = int(rng.integers(2, 4)) * 2 + 1, rng.uniform(1.6, 2.0), rng.uniform(0.38, 0.46)
    radii = np.linspace(foot, 0.25, bands + 1)
    for i in range(bands):
        colour = stripe if i % 2 == 0 else "white"
        sketch.add(colour, cylinder(radii[i], high / bands, radii[i + 1]).at(0, i * high / bands, 0))
    sketch.add("grey", cylinder(0.38, 0.1).at(0, high, 0), cylinder(1.5 * foot, 0.14, 1.35 * foot).at(0, -0.12, 0))
    sketch.add("yellow", cylinder(0.2, 0.32).at(0, high + 0.1, 0))
    sketch.add(stripe, cylinder(0.32, 0.3, 0.0).at(0, high + 0.4, 0))
    sketch.add("black", box(0.22, 0.36, 0.1).at(0, 0.02, foot - 0.03))
    said = (f"{with_article(stripe)} and white lighthouse", f"a white lighthouse with {stripe} stripes")
    return Design(sketch, "lighthouse", "", ("with a yellow lamp",), ("stone",), said)


def windmill(rng: np.random.Generator) -> Design:
    """A tapered tower with a cap and four sails in front."""
    sketch, wall = Sketch(rng), pick(rng, ("white", "brown", "beige", "red"))
    cap = pick(rng, ("red", "brown", "black", "green"), (wall,))
    sail = "white" if wall != "white" else "brown"
    high, reach = rng.uniform(1.3, 1.6), rng.uniform(0.85, 1.0)
    sketch.add(wall, lathe([(0, 0), (0.5, 0), (0.32, high), (0, high)], 8).flat())
    sketch.add(cap, ellipsoid(0.37, 0.34, 0.37).at(0, high, 0))
    turn = rng.uniform(0, 90)
    for i in range(4):
        blade = [box(0.07, reach, 0.05), box(0.24, 0.78 * reach, 0.04).at(0.1, 0.2 * reach, 0)]
        sketch.add(sail, *(part.turned("z", turn + 90 * i).at(0, high, 0.46) for part in blade))
    sketch.add("black", ellipsoid(0.1, 0.1, 0.12).at(0, high, 0.48), box(0.24, 0.42, 0.08).at(0, 0, 0.45))
    sketch.pair("black", box(0.1, 0.22, 0.2).at(0.36, 0.5 * high, 0))
    return Design(sketch, "windmill", wall, (f"with {sail} sails", f"with a {cap} cap"), ("stone",))


FAMILIES = (house, castle, church, lighthouse, windmill)
