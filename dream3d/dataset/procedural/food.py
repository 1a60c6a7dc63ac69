"""Things to eat."""

from __future__ import annotations

import numpy as np

from dream3d.dataset.captions.templates import with_article
from dream3d.dataset.procedural.shapes import box, cylinder, ellipsoid, lathe, torus, tube
from dream3d.dataset.procedural.sketch import Design, Sketch, pick


def apple(rng: np.random.Generator) -> Design:
    """A dented ball with stem and leaf."""
    sketch, skin = Sketch(rng), pick(rng, ("red", "green", "yellow"))
    angle = np.linspace(-np.pi / 2, np.pi / 2, 14)
    dent = 1 - 0.28 * np.abs(np.sin(angle)) ** 6
    tall = rng.uniform(0.5, 0.6)
    wide = 0.58 * np.cos(angle) * (1 + 0.1 * np.sin(angle))
    sketch.add(skin, lathe(np.stack([wide, tall * np.sin(angle) * dent], 1), 24))
    sketch.add("brown", tube([(0, 0.3, 0), (0.06, 0.62, 0)], (0.05, 0.06), 8))
    leaf = "green" if skin != "green" else "brown"
    sketch.add(leaf, ellipsoid(0.24, 0.04, 0.11).turned("z", 25).at(0.26, 0.62, 0))
    return Design(sketch, "apple", skin, (f"with a {leaf} leaf",) if leaf in sketch.colours() else ())


def banana(rng: np.random.Generator) -> Design:
    """A bent tube with dark ends."""
    sketch, skin = Sketch(rng), pick(rng, ("yellow", "yellow", "green"))
    bend = rng.uniform(0.28, 0.45)
    way = np.array([(-0.8, bend, 0), (-0.45, 0.05, 0), (0, -0.1, 0), (0.45, 0.05, 0), (0.8, bend, 0)])
    sketch.add(skin, tube(way, (0.1, 0.19, 0.21, 0.19, 0.09), 8))
    sketch.add("brown", tube([way[4], way[4] + [0.12, 0.16, 0]], (0.075, 0.065), 8))
    sketch.add("brown", ellipsoid(0.09).at(*(way[0] + [-0.06, 0.06, 0])))
    return Design(sketch, "banana", skin)


def pear(rng: np.random.Generator) -> Design:
    """A bottle-shaped body with stem."""
    sketch, skin = Sketch(rng), pick(rng, ("green", "yellow"))
    belly, tall = rng.uniform(0.45, 0.54), rng.uniform(0.55, 0.7)
    round_part = [(0, 0), (0.22, 0.02), (0.8 * belly, 0.15), (belly, 0.4), (0.85 * belly, 0.65)]
    neck = [(0.24, tall + 0.35), (0.19, tall + 0.5), (0.12, tall + 0.58), (0, tall + 0.6)]
    sketch.add(skin, lathe([*round_part, *neck], 24))
    sketch.add("brown", tube([(0, tall + 0.55, 0), (0.06, tall + 0.82, 0)], (0.05, 0.06), 8))
    return Design(sketch, "pear", skin, ("with a stem",))


def carrot(rng: np.random.Generator) -> Design:
    """An orange cone, point down, with green leaves."""
    sketch, long = Sketch(rng), rng.uniform(1.1, 1.5)
    wide = rng.uniform(0.24, 0.32)
    top = [(wide, 0.9 * long), (0.8 * wide, long), (0, 1.02 * long)]
    sketch.add("orange", lathe([(0, 0), (0.05, 0.02), (0.7 * wide, 0.55 * long), *top], 24))
    for i in range(5):
        leaf = ellipsoid(0.08, 0.32, 0.08).at(0, 0.3, 0).turned("z", 26 if i else 0).turned("y", 90 * i + 20)
        sketch.add("green", leaf.at(0, 0.98 * long, 0))
    return Design(sketch, "carrot", "orange", ("with green leaves",))


def ice_cream(rng: np.random.Generator) -> Design:
    """A waffle cone with one to three scoops."""
    sketch, count = Sketch(rng), int(rng.integers(1, 4))
    flavours = [pick(rng, ("pink", "white", "brown", "green", "yellow")) for _ in range(count)]
    sketch.add("orange" if rng.random() < 0.3 else "beige", lathe([(0, 0), (0.04, 0), (0.36, 0.95), (0, 0.95)], 20))
    for i, flavour in enumerate(flavours):
        sketch.add(flavour, ellipsoid(0.4 - 0.04 * i).at(0, 1.1 + 0.48 * i, 0))
        sketch.add(flavour, torus(0.36 - 0.04 * i, 0.09).at(0, 0.98 + 0.48 * i, 0))
    words = ("one scoop", "two scoops", "three scoops")[count - 1]
    features, said = [f"with {words}"], [f"an ice cream cone with {words}", "an ice cream"]
    if rng.random() < 0.5:
        sketch.add("red", ellipsoid(0.15).at(0, 1.1 + 0.48 * (count - 1) + 0.42, 0))
        features.append("with a cherry on top")
    if len(set(flavours)) == 1:
        said.append(f"{with_article(flavours[0])} ice cream cone")
    return Design(sketch, "ice cream cone", "", tuple(features), (), tuple(said))


def hamburger(rng: np.random.Generator) -> Design:
    """Bun, lettuce, cheese, meat, sometimes tomato."""
    sketch, wide = Sketch(rng), rng.uniform(0.68, 0.78)
    bun, y = "orange" if rng.random() < 0.4 else "beige", 0.2
    sketch.add(bun, lathe([(0, 0), (0.85 * wide, 0), (wide, 0.12), (0.95 * wide, y), (0, y)], 24))
    layers = ["brown", "yellow", "red", "green"] if rng.random() < 0.6 else ["brown", "yellow", "green"]
    for layer in layers:
        if layer == "yellow":
            sketch.add(layer, box(1.5 * wide, 0.06, 1.5 * wide).turned("y", 45).at(0, y, 0))
            y += 0.06
        else:
            thick = 0.18 if layer == "brown" else 0.1
            disc = [(0, 0), (1.02 * wide, 0), (1.08 * wide, thick / 2), (1.02 * wide, thick), (0, thick)]
            sketch.add(layer, lathe(disc, 24).at(0, y, 0))
            y += thick
    dome = rng.uniform(0.38, 0.48)
    arc = [(wide * np.cos(a), y + dome * np.sin(a)) for a in np.linspace(0, np.pi / 2, 7)]
    sketch.add(bun, lathe([(0, y), *arc], 24))
    for angle in np.arange(8) * 0.785:
        where = (0.6 * wide * np.cos(angle), y + 0.8 * dome, 0.6 * wide * np.sin(angle))
        sketch.add("white", ellipsoid(0.05, 0.035, 0.05, 6).at(*where))
    return Design(sketch, "hamburger", "", ("with cheese", "with lettuce"), (), ("a burger", "a cheeseburger"))


def birthday_cake(rng: np.random.Generator) -> Design:
    """One or two round tiers with icing and burning candles."""
    sketch, cake = Sketch(rng), pick(rng, ("pink", "white", "brown", "yellow", "blue"))
    icing = pick(rng, ("white", "red", "pink", "brown"), (cake,))
    tiers, wide, y = int(rng.integers(1, 3)), rng.uniform(0.7, 0.85), 0.0
    for tier in range(tiers):
        radius = wide * (1 - 0.36 * tier)
        sketch.add(cake, cylinder(radius, 0.45, sides=28).at(0, y, 0))
        sketch.add(icing, torus(radius - 0.02, 0.08, 28).at(0, y + 0.44, 0), torus(radius, 0.07, 28).at(0, y + 0.05, 0))
        y += 0.45
    count = int(rng.integers(3, 7))
    ring = 0.6 * wide * (1 - 0.36 * (tiers - 1))
    for angle in np.arange(count) * 2 * np.pi / count:
        x, z = ring * np.sin(angle), ring * np.cos(angle)
        sketch.add("green", cylinder(0.055, 0.32, sides=10).at(x, y, z))
        sketch.add("orange", ellipsoid(0.06, 0.1, 0.06, 8).at(x, y + 0.4, z))
    return Design(sketch, "birthday cake", cake, ("with candles", f"with {icing} icing"), (), ("a cake with candles",))


FAMILIES = (apple, banana, pear, carrot, ice_cream, hamburger, birthday_cake)
