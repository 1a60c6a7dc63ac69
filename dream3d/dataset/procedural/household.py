"""Things of the house, and toys."""

from __future__ import annotations

import numpy as np

from dream3d.dataset.captions.templates import with_article
from dream3d.dataset.procedural.shapes import box, cylinder, ellipsoid, lathe, torus, tube
from dream3d.dataset.procedural.sketch import PAINT, Design, Sketch, pick


def mug(rng: np.random.Generator) -> Design:
    """A hollow cylinder with a handle on its left, filled with coffee."""
    sketch, glaze = Sketch(rng), pick(rng, PAINT)
    wide, high = rng.uniform(0.38, 0.5), rng.uniform(0.8, 1.0)
    sketch.add(glaze, lathe([(0, 0), (wide, 0), (wide, high), (0.86 * wide, high), (0.86 * wide, 0.8 * high)], 26))
    sketch.add("brown", cylinder(0.88 * wide, 0.02).at(0, 0.84 * high, 0))
    near, far = 0.9 * wide, wide + 0.28
    way = [(near, 0.78 * high, 0), (far, 0.74 * high, 0), (far, 0.3 * high, 0), (near, 0.22 * high, 0)]
    sketch.add(glaze, tube(way, 0.075))
    return Design(sketch, "mug", glaze, ("with a handle",), ("ceramic",), (with_article(f"{glaze} cup"),))


def teapot(rng: np.random.Generator) -> Design:
    """Round body, lid with knob, spout to the right, handle to the left."""
    sketch, glaze = Sketch(rng), pick(rng, PAINT, ("black",))
    knob = pick(rng, ("black", "white", "yellow"), (glaze,))
    tall = rng.uniform(0.42, 0.52)
    sketch.add(glaze, ellipsoid(0.6, tall, 0.6).at(0, tall, 0), cylinder(0.32, 0.08).at(0, -0.03, 0))
    sketch.add(knob, lathe([(0, 0), (0.3, 0), (0.24, 0.07), (0, 0.12)]).at(0, 1.92 * tall, 0))
    sketch.add(knob, ellipsoid(0.11).at(0, 2 * tall + 0.16, 0))
    spout = [(-0.45, 0.7 * tall, 0), (-0.75, 0.95 * tall, 0), (-0.95, 1.75 * tall, 0)]
    sketch.add(glaze, tube(spout, (0.17, 0.11, 0.085)))
    way = [(0.48, 1.5 * tall, 0), (0.85, 1.65 * tall, 0), (0.95, 0.95 * tall, 0), (0.5, 0.5 * tall, 0)]
    sketch.add(knob, tube(way, 0.07))
    return Design(sketch, "teapot", glaze, (f"with a {knob} lid", f"with a {knob} handle"), ("ceramic",))


def robot(rng: np.random.Generator) -> Design:
    """Box head and body, tube arms and legs, an aerial."""
    sketch, metal = Sketch(rng), pick(rng, ("grey", "red", "yellow", "white", "green", "orange"))
    joints = pick(rng, ("black", "grey", "blue", "purple"), (metal,))
    eyes = pick(rng, ("yellow", "red", "green"), (metal,))
    wide = rng.uniform(0.6, 0.75)
    sketch.add(metal, box(wide, 0.7, 0.45, 1.1).at(0, 0.62, 0), box(0.5, 0.42, 0.42).at(0, 1.44, 0))
    sketch.add(joints, cylinder(0.13, 0.14).at(0, 1.3, 0), cylinder(0.04, 0.25).at(0, 1.85, 0))
    sketch.add(eyes, ellipsoid(0.09).at(0, 2.14, 0))
    sketch.pair(eyes, ellipsoid(0.09, 0.09, 0.06).at(0.12, 1.7, 0.21))
    sketch.add("black", box(0.28, 0.07, 0.05).at(0, 1.51, 0.21), box(0.34, 0.3, 0.05).at(0, 0.85, 0.24))
    lift = rng.uniform(-0.35, 0.45)
    hand = (wide / 2 + 0.3, 0.75 + lift, 0.15)
    arm = tube([(wide / 2, 1.18, 0), (wide / 2 + 0.22, 1.05, 0), hand], 0.08)
    sketch.pair(joints, arm, tube([(0.18, 0.7, 0), (0.18, 0.15, 0)], 0.1))
    sketch.pair(metal, ellipsoid(0.13).at(*hand), box(0.26, 0.16, 0.4).at(0.19, 0, 0.05))
    sketch.pair("red" if metal != "red" else "yellow", ellipsoid(0.05).at(0.09, 1.0, 0.26))
    features = (f"with {eyes} eyes",) if eyes in sketch.colours() else ()
    return Design(sketch, "robot", metal, features, ("metal",), ("a toy robot",))


def snowman(rng: np.random.Generator) -> Design:
    """Three snowballs, carrot nose, hat and scarf."""
    sketch, scarf = Sketch(rng), pick(rng, ("red", "green", "blue", "purple", "yellow"))
    big = rng.uniform(0.5, 0.6)
    middle, top = big + 0.55, big + 1.15
    for radius, y in ((big, big * 0.9), (0.42, middle + 0.1), (0.31, top + 0.08)):
        sketch.add("white", ellipsoid(radius).at(0, y, 0))
    sketch.add("orange", cylinder(0.08, 0.36, 0.01).turned("x", 90).at(0, top + 0.06, 0.28))
    arm = tube([(0.36, middle + 0.15, 0), (0.85, middle + 0.45, 0)], 0.045, 8)
    sketch.pair("black", ellipsoid(0.05).at(0.12, top + 0.17, 0.27), arm)
    sketch.add("black", *(ellipsoid(0.055).at(0, middle + y, 0.41) for y in (-0.06, 0.1, 0.25)))
    sketch.add(scarf, torus(0.28, 0.09).at(0, top - 0.16, 0), box(0.15, 0.4, 0.08).at(0.16, top - 0.58, 0.36))
    tall = rng.uniform(0.3, 0.45)
    sketch.add("black", cylinder(0.4, 0.06).at(0, top + 0.3, 0), cylinder(0.25, tall).at(0, top + 0.34, 0))
    return Design(sketch, "snowman", "white", (f"with a {scarf} scarf", "with a black hat"), ("snow",))


def lamp(rng: np.random.Generator) -> Design:
    """A table lamp with a cloth shade."""
    sketch, shade = Sketch(rng), pick(rng, PAINT, ("black",))
    foot = pick(rng, ("black", "brown", "grey", "white"), (shade,))
    high = rng.uniform(0.7, 0.95)
    sketch.add(foot, lathe([(0, 0), (0.36, 0), (0.34, 0.08), (0.1, 0.16), (0.08, high + 0.2), (0, high + 0.2)]))
    wide = rng.uniform(0.48, 0.62)
    sketch.add(shade, cylinder(wide, rng.uniform(0.5, 0.65), 0.55 * wide, 24).at(0, high, 0))
    return Design(sketch, "table lamp", shade, (f"with a {foot} foot",), ("cloth",), ("a lamp",))


def chair(rng: np.random.Generator) -> Design:
    """Four legs, a seat and a back with bars or a board."""
    sketch, wood = Sketch(rng), pick(rng, (*PAINT, "brown", "brown"))
    high, wide, back = rng.uniform(0.5, 0.65), rng.uniform(0.6, 0.75), rng.uniform(0.6, 0.8)
    x, z = wide / 2 - 0.06, 0.28
    sketch.add(wood, box(wide, 0.1, 0.68).at(0, high, 0))
    leg = box(0.1, high, 0.1)
    sketch.pair(wood, leg.at(x, 0, z), leg.at(x, 0, -z), box(0.1, back, 0.1).at(x, high, -z))
    if rng.random() < 0.5:
        sketch.add(wood, box(wide, 0.6 * back, 0.08).at(0, high + 0.45 * back, -z))
    else:
        sketch.add(wood, *(box(wide, 0.14, 0.08).at(0, high + t * back, -z) for t in (0.35, 0.85)))
    return Design(sketch, "chair", wood, ("with four legs",), ("wood",), (f"a wooden chair in {wood}",))


def table(rng: np.random.Generator) -> Design:
    """A round or square top on one or four legs."""
    sketch, top = Sketch(rng), pick(rng, (*PAINT, "brown", "brown"))
    high, wide, square = rng.uniform(0.65, 0.8), rng.uniform(0.6, 0.75), rng.random() < 0.5
    form = "square" if square else "round"
    board = box(2 * wide, 0.1, 2 * wide) if square else cylinder(wide, 0.1, sides=28)
    sketch.add(top, board.at(0, high, 0))
    reach = wide * (0.85 if square else 0.55)
    sketch.add(top, *(box(0.11, high, 0.11).at(x, 0, z) for x in (-reach, reach) for z in (-reach, reach)))
    return Design(sketch, "table", top, ("with four legs",), ("wood",), (f"a {form} table", f"a {form} {top} table"))


FAMILIES = (mug, teapot, robot, snowman, lamp, chair, table)
