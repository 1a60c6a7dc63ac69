"""Skulls: carved out of melted shapes, with hollows painted dark; horned ones face forward, muzzle a little down."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dream3d.dataset.captions.templates import with_article
from dream3d.dataset.procedural.shapes import Solid, ball, blob, box, ellipsoid, round_cone, tube
from dream3d.dataset.procedural.sketch import Design, Sketch, pick

BONE = ("white", "white", "white", "beige")


def _beast_skull(sketch: Sketch, bone: str, muzzle: float, width: float) -> None:
    """A grazing animal's skull without lower jaw: brow at the origin, ``muzzle`` long and ``width`` wide, along +z."""
    w, m = width, muzzle
    fields = [
        ball((0, 0.02, -0.22), (0.8 * w, 0.26, 0.36)),
        round_cone((0, 0.02, -0.05), (0, -0.06, 0.55 * m), 0.72 * w, 0.46 * w),
        round_cone((0, -0.06, 0.5 * m), (0, -0.12, m), 0.46 * w, 0.34 * w),
        round_cone((0.62 * w, 0.05, 0.0), (0.62 * w, 0.02, 0.2), 0.32 * w, 0.26 * w),
        round_cone((-0.62 * w, 0.05, 0.0), (-0.62 * w, 0.02, 0.2), 0.32 * w, 0.26 * w),
    ]
    high = 1.1 * w + 0.03
    solid = blob(fields, (), ((-high, -0.4, -0.68), (high, 0.4, m + 0.3)), 0.034, 0.07)
    sketch.add(bone, solid)
    # Hollows are black bodies that lie flush: smoother than carved ones at this step, and as dark.
    sketch.pair("black", ellipsoid(0.16 * w, 0.095, 0.125).turned("y", -8).at(0.86 * w, 0.06, 0.13))
    sketch.pair("black", ellipsoid(0.12 * w, 0.24 * w, 0.09).at(0.14 * w, -0.02, m + 0.02))
    tooth = box(0.1 * w, 0.1, 0.07, 0.9)
    sketch.pair(bone, *(tooth.at(0.28 * w, -0.1 - 0.34 * w - 0.04, z) for z in np.arange(0.3, 0.72, 0.1) * m))


def _tilted(sketch: Sketch, degrees: float) -> None:
    """Lowers the muzzle of all that is there so far."""
    sketch.parts = [(word, solid.turned("x", degrees)) for word, solid in sketch.parts]


def _antler(rng: np.random.Generator, reach: float, tines: int, thick: float) -> list[Solid]:
    """A left antler from the origin: a beam that sweeps out, back and up, with tines that rise from its front."""
    out, back = reach * rng.uniform(0.7, 0.95), reach * rng.uniform(0.25, 0.45)
    middle = [(0.45 * out, 0.22 * reach, -0.5 * back), (0.95 * out, 0.55 * reach, -back)]
    beam = np.array([(0, 0, 0), *middle, (out * rng.uniform(0.8, 1.1), reach, -0.7 * back)])
    solids = [tube(beam, thick * np.array([1.25, 1.0, 0.85, 0.55]), 9)]
    for t in np.linspace(0.12, 0.82, tines):
        where = np.array([np.interp(t * 3, range(4), beam[:, k]) for k in range(3)])
        length = reach * (0.42 - 0.14 * t) * rng.uniform(0.85, 1.15)
        lean = np.array([0.10 - 0.35 * t, 0.45 + 0.5 * t, 0.8 - 0.55 * t])
        lean /= np.linalg.norm(lean)
        bend = where + 0.55 * length * lean + np.array([0.04 * length, -0.06 * length, 0])
        tip = where + length * (lean + np.array([0, 0.25, 0]))
        solids.append(tube([where, bend, tip], thick * np.array([0.85, 0.7, 0.4]), 8))
    return solids


def _antlered(rng: np.random.Generator, name: str, reach: float, tines: int, muzzle: float) -> Design:
    sketch, bone = Sketch(rng), pick(rng, BONE)
    horn = pick(rng, ("brown", bone))
    width = rng.uniform(0.29, 0.33)
    _beast_skull(sketch, bone, muzzle, width)
    base = (0.5 * width, 0.2, -0.22)
    sketch.pair(bone, tube([(0.45 * width, 0.1, -0.2), base], (0.09, 0.075)))
    _tilted(sketch, (tilt := rng.uniform(30, 52)))
    root = tube([base, (0, 0, 0)], 0.01).turned("x", tilt).vertices[:10].mean(0)
    sketch.pair(horn, *(part.at(*root) for part in _antler(rng, reach, tines, 0.068)))
    features = ("with antlers", "with branching antlers", f"with {horn} antlers")
    animal = with_article(name.removesuffix(" skull"))
    return Design(sketch, name, bone, features, ("bone",), (f"the skull of {animal} with antlers",))


def elk_skull(rng: np.random.Generator) -> Design:
    """Long muzzle and great antlers with four to six tines each."""
    return _antlered(rng, "elk skull", rng.uniform(1.1, 1.4), int(rng.integers(4, 7)), rng.uniform(0.95, 1.15))


def deer_skull(rng: np.random.Generator) -> Design:
    """Shorter muzzle and smaller antlers with two or three tines each."""
    return _antlered(rng, "deer skull", rng.uniform(0.65, 0.85), int(rng.integers(2, 4)), rng.uniform(0.68, 0.82))


def _horned(rng: np.random.Generator, name: str, horn: Callable[[], Solid], feature: str, width: float) -> Design:
    sketch, bone = Sketch(rng), pick(rng, BONE)
    colour = pick(rng, ("brown", "grey", "black", "beige"), (bone,))
    _beast_skull(sketch, bone, rng.uniform(0.72, 0.9), width)
    _tilted(sketch, rng.uniform(25, 45))
    sketch.pair(colour, horn())
    features = (f"with {feature}", f"with {colour} horns")
    animal = with_article(name.removesuffix(" skull"))
    return Design(sketch, name, bone, features, ("bone",), (f"the skull of {animal} with {feature}",))


def ram_skull(rng: np.random.Generator) -> Design:
    """Thick horns that curl once beside the head."""

    def horn() -> Solid:
        angle = np.linspace(0, rng.uniform(5.2, 6.2), 9)
        radius = np.linspace(0.42, 0.30, 9)
        curl = np.stack([0.16 + 0.09 * angle, 0.0 + radius * np.cos(angle), -0.12 - radius * np.sin(angle)], 1)
        return tube(curl, np.linspace(0.17, 0.05, 9), 10).at(0, -0.16, -0.05)

    return _horned(rng, "ram skull", horn, "curled horns", rng.uniform(0.27, 0.31))


def bull_skull(rng: np.random.Generator) -> Design:
    """Wide horns that leave the head sideways and turn up."""

    def horn() -> Solid:
        reach, rise = rng.uniform(0.8, 1.1), rng.uniform(0.3, 0.6)
        way = [(0.1, 0.12, -0.25), (0.45 * reach, 0.12, -0.22), (0.85 * reach, 0.2, -0.12), (reach, 0.2 + rise, -0.05)]
        return tube(way, (0.12, 0.115, 0.09, 0.035), 10)

    return _horned(rng, "bull skull", horn, "wide horns", rng.uniform(0.32, 0.37))


def human_skull(rng: np.random.Generator) -> Design:
    """Round braincase, two eye sockets, a nose hole and a jaw with teeth."""
    sketch, bone = Sketch(rng), pick(rng, BONE)
    w, jaw = rng.uniform(0.5, 0.58), rng.uniform(0.62, 0.74)
    fields = [
        ball((0, 0.25, -0.1), (w, 0.52, 0.66)),
        ball((0, -0.08, 0.28), (0.78 * w, 0.3, 0.26)),
        round_cone((0.3, -jaw, 0.3), (-0.3, -jaw, 0.3), 0.13, 0.13),
        round_cone((0.34, -0.2, 0.02), (0.28, -jaw, 0.28), 0.1, 0.12),
        round_cone((-0.34, -0.2, 0.02), (-0.28, -jaw, 0.28), 0.1, 0.12),
        round_cone((0.2, -0.3, 0.36), (-0.2, -0.3, 0.36), 0.13, 0.13),
    ]
    holes = [ball((s * 0.23, 0.03, 0.56), (0.17, 0.15, 0.22)) for s in (-1, 1)]
    holes += [ball((0, -0.2, 0.6), (0.07, 0.11, 0.2)), ball((0, -0.46, 0.5), (0.3, 0.06, 0.12))]
    sketch.add(bone, blob(fields, holes, ((-0.72, -1.0, -0.85), (0.72, 0.85, 0.7)), 0.05, 0.08))
    sketch.pair("black", ellipsoid(0.175, 0.155, 0.12).at(0.23, 0.03, 0.40))
    sketch.add("black", ellipsoid(0.075, 0.12, 0.12).at(0, -0.2, 0.42), ellipsoid(0.3, 0.12, 0.16).at(0, -0.5, 0.27))
    for x in np.linspace(-0.21, 0.21, 6):
        depth = 0.5 - 1.0 * x * x
        sketch.add("white" if bone != "white" else "beige", box(0.06, 0.11, 0.06).at(x, -0.47, depth))
        sketch.add(bone, box(0.06, 0.1, 0.06).at(x, -0.6, depth - 0.02))
    return Design(sketch, "human skull", bone, ("with dark eye sockets", "with teeth"), ("bone",), ("skull", "a skull"))


FAMILIES = (human_skull, elk_skull, deer_skull, ram_skull, bull_skull)
