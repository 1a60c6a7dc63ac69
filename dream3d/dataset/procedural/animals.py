"""Animals: tubes and ellipsoids; legs, ears and horns are thicker than life, so that small images show them."""

# ruff: noqa: RUF005 - "head + [0, 0.2, 0]" adds an offset to a point here; nothing is concatenated

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dream3d.dataset.procedural.shapes import cylinder, ellipsoid, lathe, prism, tube
from dream3d.dataset.procedural.sketch import Design, Sketch, pick


@dataclass(frozen=True)
class Build:
    """Proportions of a four-legged animal, in its own unit."""

    length: float
    """Of the trunk, chest to rump."""
    girth: float
    """Radius of the trunk."""
    leg: float
    """From the ground to the belly."""
    leg_radius: float
    neck: tuple[float, float]
    """How far the head's centre lies in front of and above the chest."""
    neck_radius: float
    head: tuple[float, float, float]
    """Half axes."""
    muzzle: tuple[float, float]
    """Length in front of the head and radius."""


def _beast(sketch: Sketch, coat: str, build: Build, feet: str, nose: str) -> tuple[np.ndarray, np.ndarray]:
    """Adds trunk, legs, neck, head and eyes; returns the centre of the head and the place of the tail, (3,) each."""
    rng, b = sketch.rng, build
    back, half = b.leg + b.girth, b.length / 2
    chest, rump = np.array([0, back, half - b.girth * 0.6]), np.array([0, back, -half + b.girth * 0.6])
    middle = np.array([0, back - 0.04 * b.girth, 0])
    sketch.add(coat, tube([rump, middle, chest], np.array([0.98, 0.95, 1.0]) * b.girth, 14))
    head = chest + np.array([0, b.neck[1], b.neck[0]])
    root = chest + np.array([0, 0.25 * b.girth, 0.1 * b.girth])
    sketch.add(coat, tube([root, (root + head) / 2, head], np.array([1.15, 1.0, 0.9]) * b.neck_radius, 12))
    (hx, hy, hz), (long, thick) = b.head, b.muzzle
    tip = head + np.array([0, -0.35 * hy, hz * 0.5 + long])
    sketch.add(coat, ellipsoid(hx, hy, hz).at(*head))
    sketch.add(coat, tube([head + np.array([0, -0.2 * hy, 0.2 * hz]), tip], np.array([1.2, 1.0]) * thick, 12))
    sketch.add(nose, ellipsoid(thick * 0.75, thick * 0.6, thick * 0.5).at(*(tip + [0, 0.3 * thick, thick * 0.75])))
    sketch.pair("black", ellipsoid(0.22 * hx).at(*(head + [hx * 0.78, hy * 0.4, hz * 0.52])))
    step = rng.uniform(-0.12, 0.12) * b.leg
    for z, swing in ((chest[2], step), (rump[2], -step)):
        hip = np.array([0.58 * b.girth, back - 0.3 * b.girth, z])
        for side in (1, -1):
            r, foot = b.leg_radius, np.array([0.62 * b.girth, b.leg_radius, z + side * swing])
            leg = tube([hip, (hip + foot) / 2, foot], np.array([1.35, 1.0, 0.95]) * r, 10)
            paw = ellipsoid(1.12 * r, 0.9 * r, 1.35 * r).at(*(foot + [0, 0, 0.2 * r]))
            for word, solid in ((coat, leg), (feet, paw)):
                sketch.add(word, solid if side > 0 else solid.mirrored())
    return head, rump + np.array([0, 0.3 * b.girth, -0.85 * b.girth])


def dog(rng: np.random.Generator) -> Design:
    """Hanging ears, a long muzzle, a raised tail and a collar."""
    sketch, coat = Sketch(rng), pick(rng, ("brown", "black", "white", "beige", "grey"))
    ears = pick(rng, ("brown", "black"), (coat,))
    collar = pick(rng, ("red", "blue", "yellow", "green"))
    build = Build(1.15, 0.25, rng.uniform(0.38, 0.5), 0.085, (0.26, 0.42), 0.16, (0.22, 0.21, 0.23), (0.22, 0.11))
    head, tail = _beast(sketch, coat, build, coat, "black")
    sketch.pair(ears, ellipsoid(0.06, 0.2, 0.11).turned("z", 14).at(head[0] + 0.23, head[1] - 0.02, head[2] - 0.02))
    sketch.add(coat, tube([tail, tail + [0, 0.18, -0.18], tail + [0, 0.42, -0.2]], (0.07, 0.06, 0.045)))
    ring = lathe([(0.15, 0), (0.21, 0.0), (0.21, 0.1), (0.15, 0.1)])
    sketch.add(collar, ring.turned("x", 30).at(0, head[1] - 0.27, head[2] - 0.16))
    sketch.add(coat, ellipsoid(0.03).at(*tail))
    return Design(sketch, "dog", coat, (f"with {ears} ears",), ("fur",))


def cat(rng: np.random.Generator) -> Design:
    """Pointed ears, a round head, a short muzzle and a long curled tail."""
    sketch, coat = Sketch(rng), pick(rng, ("orange", "black", "white", "grey"))
    build = Build(1.0, 0.21, rng.uniform(0.32, 0.4), 0.07, (0.16, 0.33), 0.14, (0.25, 0.22, 0.2), (0.04, 0.085))
    head, tail = _beast(sketch, coat, build, "white" if coat != "white" else "orange", "pink")
    sketch.pair(coat, cylinder(0.12, 0.24, 0.0, 4).flat().turned("z", -14).at(head[0] + 0.14, head[1] + 0.13, head[2]))
    sketch.pair("green" if coat == "black" else "yellow", ellipsoid(0.06).at(0.1, head[1] + 0.07, head[2] + 0.155))
    sketch.pair("black", ellipsoid(0.03, 0.05, 0.03).at(0.1, head[1] + 0.07, head[2] + 0.2))
    bend = rng.uniform(0.05, 0.25)
    way = [tail, tail + [0, 0.1, -0.3], tail + [0.5 * bend, 0.42, -0.36], tail + [bend, 0.6, -0.22]]
    sketch.add(coat, tube(way, (0.065, 0.065, 0.06, 0.055)))
    return Design(sketch, "cat", coat, ("with pointed ears", "with a long tail"), ("fur",))


def horse(rng: np.random.Generator) -> Design:
    """Long legs and neck, mane and hanging tail."""
    sketch, coat = Sketch(rng), pick(rng, ("brown", "black", "white", "beige", "grey"))
    mane = pick(rng, ("black", "white", "brown"), (coat,))
    build = Build(1.3, 0.27, rng.uniform(0.68, 0.8), 0.085, (0.36, 0.6), 0.16, (0.14, 0.17, 0.2), (0.3, 0.115))
    head, tail = _beast(sketch, coat, build, mane, "black")
    base = head - np.array([0, 0.55, 0.5])
    crest = [head + [0, 0.2, 0.02], (head + base) / 2 + [0, 0.14, -0.14], base + [0, 0.12, -0.06]]
    sketch.add(mane, tube(crest, (0.07, 0.1, 0.07)))
    sketch.pair(coat, cylinder(0.06, 0.17, 0.01, 8).at(0.08, head[1] + 0.13, head[2] - 0.04))
    sketch.add(mane, tube([tail, tail + [0, -0.15, -0.16], tail + [0, -0.65, -0.2]], (0.07, 0.1, 0.07)))
    return Design(sketch, "horse", coat, (f"with a {mane} mane",), ("fur",))


def cow(rng: np.random.Generator) -> Design:
    """Patches, short horns, a pink muzzle and an udder."""
    sketch, coat = Sketch(rng), pick(rng, ("white", "brown", "black"))
    patch = {"white": pick(rng, ("black", "brown")), "brown": "white", "black": "white"}[coat]
    build = Build(1.45, 0.36, rng.uniform(0.42, 0.5), 0.1, (0.34, 0.22), 0.22, (0.2, 0.21, 0.24), (0.16, 0.15))
    head, tail = _beast(sketch, coat, build, "black" if coat != "black" else "grey", "pink")
    horn = head + np.array([(0.12, 0.16, -0.02), (0.28, 0.22, 0), (0.33, 0.38, 0.02)])
    sketch.pair("beige", tube(horn, (0.055, 0.05, 0.03)))
    sketch.pair(coat, ellipsoid(0.15, 0.06, 0.05).at(0.31, head[1] + 0.06, head[2] - 0.06))
    for side in (-1, 1):
        for z in (-0.42, 0.02, 0.36):
            size = rng.uniform(0.13, 0.2)
            place = (side * 0.3, build.leg + 0.36 + rng.uniform(-0.06, 0.14), z + rng.uniform(-0.08, 0.08))
            sketch.add(patch, ellipsoid(0.1, size, 1.2 * size).at(*place))
    sketch.add("pink", ellipsoid(0.14, 0.12, 0.16).at(0, build.leg + 0.0, -0.36))
    sketch.add(coat, tube([tail, tail + [0, -0.2, -0.1], tail + [0, -0.5, -0.08]], (0.05, 0.045, 0.045)))
    sketch.add(patch, ellipsoid(0.08, 0.12, 0.08).at(*(tail + [0, -0.58, -0.08])))
    return Design(sketch, "cow", coat, (f"with {patch} patches", "with horns"), ("fur",))


def elephant(rng: np.random.Generator) -> Design:
    """Trunk, tusks, fan ears and pillars for legs."""
    sketch = Sketch(rng)
    build = Build(1.4, 0.46, rng.uniform(0.4, 0.5), 0.17, (0.3, 0.24), 0.26, (0.3, 0.33, 0.28), (0.02, 0.14))
    head, tail = _beast(sketch, "grey", build, "grey", "grey")
    ear = ellipsoid(0.32, 0.36, 0.06).turned("y", rng.uniform(10, 35))
    sketch.pair("grey", ear.at(0.46, head[1], head[2] - 0.14))
    sketch.pair("pink", ellipsoid(0.23, 0.26, 0.04).turned("y", 20).at(0.47, head[1] - 0.02, head[2] - 0.08))
    lift = rng.uniform(0.0, 0.5)
    trunk = head + np.array([(0, -0.05, 0.24), (0, -0.35, 0.42), (0, -0.68, 0.45), (0, -0.82 + lift, 0.68)])
    sketch.add("grey", tube(trunk, (0.15, 0.12, 0.1, 0.08), 12))
    tusk = head + np.array([(0.16, -0.2, 0.2), (0.2, -0.38, 0.42), (0.18, -0.36, 0.66)])
    sketch.pair("white", tube(tusk, (0.06, 0.055, 0.03)))
    sketch.add("grey", tube([tail, tail + [0, -0.4, -0.12]], (0.045, 0.035)))
    return Design(sketch, "elephant", "grey", ("with a long trunk", "with tusks"), (), ("an elephant with big ears",))


def giraffe(rng: np.random.Generator) -> Design:
    """A very long neck, brown patches, two small horns."""
    sketch, coat = Sketch(rng), pick(rng, ("yellow", "beige", "orange"))
    rise = rng.uniform(1.05, 1.3)
    build = Build(0.95, 0.25, rng.uniform(0.75, 0.9), 0.075, (0.28, rise), 0.13, (0.13, 0.14, 0.17), (0.16, 0.095))
    head, tail = _beast(sketch, coat, build, "brown", "brown")
    for side in (-1, 1):
        for z, y in ((-0.3, 0.3), (-0.05, 0.2), (0.2, 0.32), (-0.2, 0.05), (0.12, 0.02)):
            sketch.add("brown", ellipsoid(0.05, 0.085, 0.1, 8).at(side * 0.22, build.leg + y, z))
        for t in np.linspace(0.15, 0.85, 5):
            centre = (1 - t) * np.array([0, build.leg + 0.31, 0.35]) + t * head
            sketch.add("brown", ellipsoid(0.04, 0.075, 0.065, 8).at(side * 0.11, *centre[1:]))
    sketch.pair("brown", tube([head + [0.06, 0.1, -0.02], head + [0.07, 0.26, -0.04]], (0.04, 0.05), 8))
    sketch.pair(coat, ellipsoid(0.1, 0.05, 0.04).at(0.19, head[1] + 0.06, head[2] - 0.06))
    sketch.add("brown", tube([tail, tail + [0, -0.45, -0.1]], (0.04, 0.055)))
    return Design(sketch, "giraffe", coat, ("with brown patches", "with a long neck"), ("fur",))


def deer(rng: np.random.Generator) -> Design:
    """Slim, with branching antlers and a white tail."""
    sketch, coat = Sketch(rng), pick(rng, ("brown", "beige", "orange"))
    build = Build(1.1, 0.22, rng.uniform(0.55, 0.65), 0.07, (0.26, 0.46), 0.12, (0.13, 0.14, 0.17), (0.17, 0.08))
    head, tail = _beast(sketch, coat, build, "black", "black")
    horn = "beige" if coat == "brown" else "brown"
    reach = rng.uniform(0.45, 0.62)
    beam = [(0.06, 0.1, -0.03), (0.55 * reach, 0.1 + 0.45 * reach, -0.14), (0.6 * reach, 0.1 + reach, -0.05)]
    sketch.pair(horn, tube(head + np.array(beam), (0.055, 0.048, 0.035)))
    for t in (0.35, 0.65):
        foot = head + np.array([(0.3 + 0.4 * t) * reach, 0.1 + t * reach, -0.1])
        sketch.pair(horn, tube([foot, foot + [0.06, 0.22, 0.2]], (0.042, 0.035), 8))
    sketch.pair(coat, ellipsoid(0.14, 0.06, 0.04).turned("z", 20).at(0.2, head[1] + 0.06, head[2] - 0.06))
    sketch.add("white", ellipsoid(0.08, 0.12, 0.08).at(*tail), ellipsoid(0.12, 0.12, 0.3).at(0, build.leg + 0.1, 0.1))
    return Design(sketch, "deer", coat, ("with antlers",), ("fur",))


def rabbit(rng: np.random.Generator) -> Design:
    """Sits; long ears and a round tail."""
    sketch, coat = Sketch(rng), pick(rng, ("white", "grey", "brown", "beige"))
    tall, lean = rng.uniform(0.28, 0.38), rng.uniform(5, 18)
    sketch.add(coat, ellipsoid(0.36, 0.38, 0.45).at(0, 0.38, -0.1), ellipsoid(0.25, 0.24, 0.26).at(0, 0.86, 0.22))
    ear = ellipsoid(0.09, tall, 0.06).at(0, tall, 0)
    inner = ellipsoid(0.055, 0.8 * tall, 0.05).at(0, tall, 0.03)
    sketch.pair(coat, ear.turned("z", -lean).at(0.1, 0.98, 0.15))
    sketch.pair("pink", inner.turned("z", -lean).at(0.1, 0.98, 0.15), ellipsoid(0.05).at(0, 0.83, 0.48))
    sketch.pair("black", ellipsoid(0.05).at(0.15, 0.93, 0.4))
    leg = tube([(0.14, 0.55, 0.2), (0.13, 0.08, 0.36)], 0.08)
    sketch.pair(coat, ellipsoid(0.12, 0.08, 0.24).at(0.24, 0.08, 0.22), leg)
    sketch.add("white" if coat != "white" else "grey", ellipsoid(0.16).at(0, 0.3, -0.56))
    return Design(sketch, "rabbit", coat, ("with long ears",), ("fur",), (f"a {coat} bunny",))


def bird(rng: np.random.Generator) -> Design:
    """A songbird that stands on two legs, with folded wings."""
    sketch, coat = Sketch(rng), pick(rng, ("red", "blue", "yellow", "green", "brown"))
    wing = pick(rng, ("black", "brown", "white"), (coat,))
    sketch.add(coat, ellipsoid(0.3, 0.32, 0.46).turned("x", -22).at(0, 0.62, 0), ellipsoid(0.22).at(0, 0.98, 0.26))
    sketch.add("orange", cylinder(0.085, 0.26, 0.01, 10).turned("x", 90).at(0, 0.96, 0.42))
    sketch.pair("black", ellipsoid(0.055).at(0.15, 1.04, 0.4))
    sketch.pair(wing, ellipsoid(0.07, 0.2, 0.4).turned("x", -25).at(0.28, 0.66, -0.08))
    tail = rng.uniform(0.3, 0.5)
    sketch.add(wing, ellipsoid(0.15, 0.05, tail).turned("x", -20).at(0, 0.47, -0.4 - 0.5 * tail))
    leg = tube([(0.12, 0.4, 0.02), (0.12, 0.06, 0.04)], 0.04)
    sketch.pair("orange", leg, ellipsoid(0.09, 0.035, 0.15).at(0.12, 0.035, 0.1))
    return Design(sketch, "bird", coat, (f"with {wing} wings",), ("feathers",))


def duck(rng: np.random.Generator) -> Design:
    """Swims or stands: flat bill, boat-shaped body, raised tail."""
    sketch, coat = Sketch(rng), pick(rng, ("yellow", "white", "brown"))
    sketch.add(coat, ellipsoid(0.38, 0.3, 0.58).at(0, 0.42, 0), ellipsoid(0.25).at(0, 0.98, 0.36))
    sketch.add(coat, tube([(0, 0.5, 0.32), (0, 0.95, 0.36)], (0.2, 0.17), 12))
    sketch.add(coat, tube([(0, 0.5, -0.4), (0, 0.72, -0.72)], (0.18, 0.05)))
    sketch.add("orange", ellipsoid(0.14, 0.05, 0.22).at(0, 0.93, 0.68))
    sketch.pair("black", ellipsoid(0.05).at(0.17, 1.06, 0.52))
    sketch.pair(coat, ellipsoid(0.08, 0.18, 0.38).turned("x", -10).at(0.37, 0.5, -0.08))
    if rng.random() < 0.6:
        leg = tube([(0.16, 0.2, 0), (0.16, 0.0, 0)], 0.045)
        sketch.pair("orange", leg, ellipsoid(0.14, 0.04, 0.2).at(0.16, -0.04, 0.1))
    return Design(sketch, "duck", coat, ("with an orange bill",), ("feathers",))


def owl(rng: np.random.Generator) -> Design:
    """Upright, with great eyes and ear tufts."""
    sketch, coat = Sketch(rng), pick(rng, ("brown", "grey", "white"))
    belly = "beige" if coat != "white" else "grey"
    sketch.add(coat, ellipsoid(0.42, 0.58, 0.38).at(0, 0.58, 0), ellipsoid(0.4, 0.33, 0.34).at(0, 1.16, 0.04))
    sketch.add(belly, ellipsoid(0.3, 0.42, 0.2).at(0, 0.55, 0.24))
    sketch.pair("yellow", ellipsoid(0.16, 0.16, 0.08).at(0.17, 1.2, 0.32))
    sketch.pair("black", ellipsoid(0.085, 0.085, 0.06).at(0.17, 1.2, 0.38))
    sketch.add("orange", cylinder(0.07, 0.2, 0.0, 8).turned("x", 150).at(0, 1.12, 0.38))
    sketch.pair(coat, cylinder(0.13, rng.uniform(0.2, 0.34), 0.0, 8).turned("z", -18).at(0.24, 1.36, 0.06))
    sketch.pair(coat, ellipsoid(0.1, 0.42, 0.24).turned("z", 8).at(0.42, 0.62, -0.02))
    sketch.pair("orange", ellipsoid(0.11, 0.06, 0.16).at(0.17, 0.05, 0.22))
    return Design(sketch, "owl", coat, ("with big yellow eyes",), ("feathers",))


def penguin(rng: np.random.Generator) -> Design:
    """Black back, white belly, orange bill and feet."""
    sketch = Sketch(rng)
    fat = rng.uniform(0.36, 0.44)
    sketch.add("black", ellipsoid(fat, 0.62, fat).at(0, 0.64, 0), ellipsoid(0.28, 0.27, 0.28).at(0, 1.3, 0.03))
    sketch.add("white", ellipsoid(0.82 * fat, 0.52, 0.6 * fat).at(0, 0.6, 0.47 * fat))
    sketch.pair("white", ellipsoid(0.13, 0.14, 0.1).at(0.12, 1.3, 0.23))
    sketch.pair("black", ellipsoid(0.055).at(0.12, 1.34, 0.31))
    sketch.add("orange", cylinder(0.09, 0.26, 0.01, 10).turned("x", 95).at(0, 1.22, 0.26))
    spread = rng.uniform(10, 40)
    sketch.pair("black", ellipsoid(0.07, 0.38, 0.15).at(0, -0.33, 0).turned("z", spread).at(fat * 0.85, 1.0, 0))
    sketch.pair("orange", ellipsoid(0.16, 0.06, 0.24).at(0.2, 0.05, 0.16))
    return Design(sketch, "penguin", "black", ("with a white belly",), ("feathers",), ("a black and white penguin",))


def fish(rng: np.random.Generator) -> Design:
    """Oval body, tail fin, back fin; seen best from the side."""
    sketch, coat = Sketch(rng), pick(rng, ("orange", "red", "blue", "yellow", "green", "purple"))
    fin = pick(rng, ("yellow", "orange", "red", "white", "blue"), (coat,))
    high, long = rng.uniform(0.3, 0.45), rng.uniform(0.6, 0.75)
    sketch.add(coat, ellipsoid(0.2, high, long).at(0, 0.5, 0))
    sketch.add(coat, tube([(0, 0.5, -0.4), (0, 0.5, -long - 0.1)], (0.16, 0.08)))
    tail = [(0, 0), (0.36, 0.38), (0.5, 0.34), (0.36, 0), (0.5, -0.34), (0.36, -0.38)]
    sketch.add(fin, prism(tail[::-1], 0.08).turned("y", 90).at(0, 0.5, -long))
    back = prism([(-0.32, 0), (0.3, 0), (0.1, 0.26), (-0.3, 0.3)], 0.07).turned("y", -90)
    sketch.add(fin, back.at(0, 0.5 + 0.85 * high, -0.05))
    sketch.pair(fin, ellipsoid(0.04, 0.1, 0.2).turned("y", -30).at(0.24, 0.4, 0.05))
    sketch.pair("white", ellipsoid(0.09).at(0.14, 0.58, 0.72 * long))
    sketch.pair("black", ellipsoid(0.6 * 0.09).at(1.1 * 0.14, 0.58, 0.72 * long + 0.55 * 0.09))
    if rng.random() < 0.5:
        sketch.add(fin, *(ellipsoid(0.212, high * 0.98, 0.07).at(0, 0.5, z * long) for z in (0.3, -0.3)))
    return Design(sketch, "fish", coat, (f"with {fin} fins",))


def turtle(rng: np.random.Generator) -> Design:
    """A domed shell, four short legs and a raised head."""
    sketch, skin = Sketch(rng), pick(rng, ("green", "beige"))
    shell = pick(rng, ("brown", "green"), (skin,))
    dome = rng.uniform(0.38, 0.5)
    arc = [(0.62 * np.cos(a), 0.2 + dome * np.sin(a)) for a in np.linspace(0, np.pi / 2, 7)]
    sketch.add(shell, lathe([(0, 0.1), (0.6, 0.12), (0.66, 0.2), *arc], 24).scaled(0.92, 1, 1.12))
    patch = ellipsoid(0.15, 0.05, 0.13).turned("x", 40).at(0, 0.2 + 0.72 * dome, 0.44)
    sketch.add("yellow", *(patch.turned("y", angle) for angle in range(0, 360, 60)))
    sketch.add(skin, tube([(0, 0.2, 0.55), (0, 0.34, 0.85), (0, 0.46, 0.95)], (0.13, 0.12, 0.16), 12))
    sketch.pair("black", ellipsoid(0.05).at(0.11, 0.53, 1.05))
    sketch.pair(skin, *(tube([(0.4, 0.16, z), (0.62, 0.08, 1.35 * z)], (0.14, 0.12)) for z in (0.42, -0.42)))
    sketch.add(skin, tube([(0, 0.15, -0.6), (0, 0.1, -0.88)], (0.08, 0.04)))
    return Design(sketch, "turtle", skin, (f"with a {shell} shell",))


FAMILIES = (dog, cat, horse, cow, elephant, giraffe, deer, rabbit, bird, duck, owl, penguin, fish, turtle)
