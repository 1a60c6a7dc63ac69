"""Multi-view shards of coloured shapes, drawn with numpy: an object is a square or a disc of one colour."""

from pathlib import Path

import numpy as np

from dream3d.dataset.records import ObjectRecord, Pass, Split
from dream3d.dataset.shards import ObjectViews, object_members, shard_name, write_tar

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220)}
SIDE = 16


def shape_views(color: str, name: str, key: str, rng: np.random.Generator, split: Split = "train") -> ObjectViews:
    """One pass of four views at a random size; "table" is a square, "chair" a disc."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    views = []
    for _ in range(4):
        radius = rng.uniform(4, 7)
        inside = np.maximum(abs(x), abs(y)) < radius if name == "table" else x**2 + y**2 < radius**2
        pixels = np.zeros((SIDE, SIDE, 4), np.uint8)
        pixels[inside] = (*COLORS[color], 255)
        views.append(pixels)
    captions = (f"a {color} {name}", f"a {name}")
    orbit = Pass(15.0, 40.0, 3.0, (0.0, 90.0, 180.0, 270.0))
    record = ObjectRecord(key, name, "", captions, (color,), (), split, "CC0-1.0", "", "", (orbit,))
    return ObjectViews(record, np.array([views]))


def write_shapes(folder: Path, kinds: list[tuple[str, str]], copies: int = 3) -> Path:
    """Shards train and heldout with ``copies`` objects of each kind (colour, name); returns the folder."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    splits: tuple[Split, ...] = ("train", "heldout")
    for split in splits:
        made = [
            shape_views(color, name, f"{color}-{name}-{copy}", rng, split)
            for copy in range(copies)
            for color, name in kinds
        ]
        write_tar(folder / shard_name(split, 0), [member for views in made for member in object_members(views)])
    return folder
