"""Vehicles; all drive, sail or fly towards +z, but the rocket, which stands."""

from __future__ import annotations

import numpy as np

from dream3d.dataset.captions.templates import with_article
from dream3d.dataset.procedural.shapes import Solid, box, cylinder, ellipsoid, lathe, prism, torus, tube
from dream3d.dataset.procedural.sketch import PAINT, Design, Sketch, pick


def _axle(
    sketch: Sketch, x: float, z: float, radius: float, width: float = 0.16, hub: float = 0.5, colour: str = "black"
) -> None:
    """A pair of wheels that stand on y = 0, their middles at ``x``, with grey hubs of ``hub`` times their radius."""
    for word, size, depth in ((colour, radius, width), ("grey", hub * radius, width + 0.04)):
        sketch.pair(word, cylinder(size, depth).turned("z", -90).at(x - width / 2, radius, z))


def _lamps(sketch: Sketch, x: float, y: float, front: float, back: float) -> None:
    sketch.pair("yellow", ellipsoid(0.09, 0.09, 0.05).at(x, y, front))
    sketch.pair("red", ellipsoid(0.09, 0.07, 0.05).at(x, y, back))


def _paint(rng: np.random.Generator) -> str:
    return pick(rng, PAINT, ("black",))  # black wheels and windows would melt into a black body


def car(rng: np.random.Generator) -> Design:
    """Low body, glazed cabin, four wheels, lamps."""
    sketch, paint = Sketch(rng), _paint(rng)
    long, cabin = rng.uniform(1.9, 2.2), rng.uniform(0.38, 0.48)
    sketch.add(paint, box(0.95, 0.38, long, 0.94, 0.97).at(0, 0.2, 0))
    back = rng.uniform(-0.3, -0.1)
    sketch.add("black", box(0.86, cabin, 1.15, 0.78, 0.62).at(0, 0.57, back))
    sketch.add(paint, box(0.7, 0.06, 0.74).at(0, 0.56 + cabin, back))
    ends = [(back + a, back + b) for a, b in ((0.56, 0.35), (0, 0), (-0.56, -0.35))]
    sketch.pair(paint, *(tube([(0.42, 0.56, a), (0.34, 0.58 + cabin, b)], 0.035, 6) for a, b in ends))
    for z in (0.31 * long, -0.31 * long):
        _axle(sketch, 0.44, z, 0.24)
    _lamps(sketch, 0.32, 0.42, 0.49 * long, -0.49 * long)
    return Design(sketch, "car", paint, ("with black wheels",), ("metal",))


def truck(rng: np.random.Generator) -> Design:
    """A cab and a tall box behind it, of another colour, on six wheels."""
    sketch, paint = Sketch(rng), _paint(rng)
    cargo = pick(rng, ("white", "beige", "orange", "green", "blue", "red"), (paint,))
    long = rng.uniform(1.5, 1.9)
    sketch.add("grey", box(0.8, 0.12, long + 0.9).at(0, 0.25, 0.0))
    front = (long + 0.9) / 2
    sketch.add(paint, box(0.98, 0.85, 0.72, 0.95, 0.85).at(0, 0.3, front - 0.3))
    sketch.add("black", box(0.84, 0.34, 0.75, 0.95, 0.85).at(0, 0.68, front - 0.28))
    sketch.add(cargo, box(1.05, rng.uniform(0.95, 1.2), long).at(0, 0.36, front - 0.75 - long / 2))
    for z in (front - 0.3, -front + 0.25, -front + 0.72):
        _axle(sketch, 0.46, z, 0.24)
    _lamps(sketch, 0.32, 0.42, front + 0.06, -front)
    return Design(sketch, "truck", paint, (f"with {with_article(cargo)} box",), ("metal",), ("a lorry",))


def bus(rng: np.random.Generator) -> Design:
    """A long box with a row of windows; sometimes two rows."""
    sketch, paint = Sketch(rng), _paint(rng)
    long, floors = rng.uniform(2.3, 2.8), int(rng.random() < 0.35) + 1
    high = 0.5 + 0.5 * floors
    sketch.add(paint, box(0.95, high, long, 0.96, 0.99).at(0, 0.2, 0))
    for floor in range(floors):
        y = 0.62 + 0.5 * floor
        for i in range(5):
            sketch.add("black", box(0.985, 0.26, 0.72 * long / 5).at(0, y, (i - 2) * 0.9 * long / 5))
        sketch.add("black", box(0.78, 0.3, 0.1).at(0, y - 0.03, long / 2 - 0.035))
    for z in (0.31 * long, -0.31 * long):
        _axle(sketch, 0.42, z, 0.23)
    _lamps(sketch, 0.34, 0.36, long / 2, -long / 2)
    said = (f"a {paint} double-decker bus",) if floors == 2 and paint != "orange" else ()
    return Design(sketch, "bus", paint, ("with black windows",), ("metal",), said)


def airplane(rng: np.random.Generator) -> Design:
    """A jet: tube, swept wings, tail and two engines."""
    sketch, paint = Sketch(rng), pick(rng, ("white", "white", "red", "yellow", "green", "grey"))
    trim = pick(rng, ("red", "blue", "orange", "green"), (paint,))
    sketch.add(paint, tube([(0, 0, -1.1), (0, 0, -0.5), (0, 0, 0.6), (0, 0, 0.95)], (0.08, 0.2, 0.21, 0.15), 14))
    span, sweep = rng.uniform(1.0, 1.2), rng.uniform(0.3, 0.55)
    tip = [(span, 0.35 - sweep - 0.25), (span, 0.15 - sweep - 0.25)]
    sketch.pair(paint, _wing([(0.1, 0.35), *tip, (0.1, -0.3)], 0.08))
    sketch.pair(trim, _wing([(0.05, -0.8), (0.45, -1.02), (0.45, -1.2), (0.05, -1.15)], 0.07).at(0, 0.06, 0))
    fin = prism([(-1.2, 0.1), (-0.75, 0.1), (-1.05, 0.6), (-1.25, 0.6)], 0.08).turned("y", -90)
    sketch.add(trim, fin)
    sketch.pair(trim, cylinder(0.11, 0.34).turned("x", 90).at(0.45, -0.14, 0.0))
    sketch.add("black", ellipsoid(0.15, 0.08, 0.12).at(0, 0.13, 0.93))
    sketch.pair("black", *(ellipsoid(0.03, 0.05, 0.05, 6).at(0.195, 0.05, z) for z in np.arange(-0.5, 0.7, 0.2)))
    return Design(sketch, "airplane", paint, (f"with {with_article(trim)} tail",), ("metal",), ("a plane",))


def _wing(outline: list[tuple[float, float]], thick: float) -> Solid:
    """An outline in (x, z) as a flat plate; its winding may be either."""
    points = np.array(outline)[::-1] * np.array([1.0, -1.0])
    return prism(points if _signed(points) > 0 else points[::-1], thick).turned("x", -90)


def _signed(points: np.ndarray) -> float:
    nxt = np.roll(points, -1, 0)
    return float((points[:, 0] * nxt[:, 1] - points[:, 1] * nxt[:, 0]).sum())


def sailing_boat(rng: np.random.Generator) -> Design:
    """A pointed hull with a mast and two triangular sails."""
    sketch, hull = Sketch(rng), pick(rng, ("red", "brown", "blue", "green", "white"))
    sail = pick(rng, ("white", "yellow", "red", "orange"), (hull,))
    high = rng.uniform(1.5, 1.9)
    rim = [(-0.42, -0.8), (0.42, -0.8), (0.46, 0.1), (0.0, 1.0), (-0.46, 0.1)]
    deck = prism([(x, -z) for x, z in rim][::-1], 0.36).turned("x", -90)
    keel = np.where(deck.vertices[:, 1:2] < 0, [0.6, 1.0, 0.8], 1.0)
    sketch.add(hull, Solid(deck.vertices * keel, deck.faces).at(0, 0.2, 0))
    sketch.add("brown" if hull != "brown" else "beige", tube([(0, 0.3, 0.1), (0, high + 0.3, 0.1)], 0.05, 8))
    main = prism([(-0.85, 0.0), (-0.03, 0.0), (-0.03, high - 0.25)], 0.06).turned("y", -90 - rng.uniform(5, 25))
    jib = prism([(0.06, 0.0), (0.75, 0.0), (0.06, 0.8 * high)], 0.06).turned("y", -90)
    sketch.add(sail, main.at(0, 0.5, 0.1), jib.at(0, 0.5, 0.1))
    said = ("a sailboat", "a boat with sails")
    return Design(sketch, "sailing boat", hull, (f"with {with_article(sail)} sail",), ("wood",), said)


def rocket(rng: np.random.Generator) -> Design:
    """A pointed body on fins, with a round window."""
    sketch, paint = Sketch(rng), pick(rng, ("white", "red", "grey", "yellow"))
    trim = pick(rng, ("red", "blue", "orange", "black"), (paint,))
    high, wide = rng.uniform(1.4, 1.8), rng.uniform(0.28, 0.36)
    arc = [(wide * np.cos(a), high + 0.7 * np.sin(a)) for a in np.linspace(0, np.pi / 2, 6)]
    sketch.add(paint, lathe([(0, 0.2), (0.75 * wide, 0.2), (wide, 0.7), (wide, high)]))
    sketch.add(trim, lathe([(0, high), *arc]))
    count = int(rng.integers(3, 5))
    fin = prism([(0.8 * wide, 0.25), (wide + 0.35, -0.1), (wide + 0.35, 0.25), (0.9 * wide, 0.85)], 0.09)
    sketch.add(trim, *(fin.turned("y", 360 * i / count - 90) for i in range(count)))
    nozzle = cylinder(0.6 * wide, 0.2, 0.5 * wide).at(0, 0.05, 0)
    sketch.add("black", ellipsoid(0.14, 0.14, 0.05).at(0, 0.75 * high, wide), nozzle)
    sketch.add(trim, torus(0.15, 0.04).turned("x", 90).at(0, 0.75 * high, wide))
    return Design(sketch, "rocket", paint, (f"with {trim} fins",), ("metal",), ("a space rocket",))


def train(rng: np.random.Generator) -> Design:
    """A steam locomotive: boiler, chimney, cab and red wheels."""
    sketch, paint = Sketch(rng), pick(rng, ("black", "green", "blue", "red"))
    wheels = "red" if paint != "red" else "black"
    sketch.add(paint, cylinder(0.34, 1.35).turned("x", 90).at(0, 0.82, -0.45), box(0.85, 1.05, 0.62).at(0, 0.35, -0.7))
    sketch.add("grey", box(1.0, 0.1, 0.8).at(0, 1.4, -0.7), box(0.8, 0.14, 2.0).at(0, 0.36, 0.0))
    sketch.pair("yellow", box(0.04, 0.3, 0.34).at(0.43, 0.98, -0.7))
    chimney = lathe([(0, 0), (0.11, 0), (0.12, 0.3), (0.2, 0.5), (0, 0.5)])
    sketch.add("black" if paint != "black" else "grey", chimney.at(0, 1.1, 0.62))
    sketch.add(paint, ellipsoid(0.17, 0.2, 0.17).at(0, 1.16, 0.1))
    sketch.add("yellow", cylinder(0.13, 0.1).turned("x", 90).at(0, 0.95, 0.88))
    sketch.add("yellow", torus(0.345, 0.03).turned("x", 90).at(0, 0.82, 0.2))
    plough = prism([(-0.42, 0.0), (0.42, 0.0), (0.3, 0.3), (-0.3, 0.3)], 0.2)
    sketch.add(wheels, plough.turned("x", -15).at(0, 0.1, 1.05))
    radius = rng.uniform(0.2, 0.25)
    for z in (-0.72, -0.2, 0.3, 0.75):
        _axle(sketch, 0.39, z, radius, 0.12, 0.4, wheels)
    said = ("a steam locomotive", f"a {paint} steam locomotive")
    return Design(sketch, "train", paint, (f"with {wheels} wheels",), ("metal",), said)


FAMILIES = (car, truck, bus, airplane, sailing_boat, rocket, train)
