"""Small records and pictures that several tests of the data set share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dream3d.dataset.records import ObjectRecord, Pass
from dream3d.dataset.shards import ObjectViews, object_members, shard_name, write_tar

ORBIT = Pass(elevation_deg=15, fovy_deg=40, distance=3, azimuths_deg=(0, 90, 180, 270))


def record(key: str = "chair", **changes: Any) -> ObjectRecord:
    """A chair of the training split with one pass of four views."""
    fields: dict[str, Any] = {
        "key": key,
        "name": "chair",
        "category": "furniture",
        "captions": ("chair", "a brown chair"),
        "colors": ("brown",),
        "materials": ("wood",),
        "split": "train",
        "licence": "CC0",
        "author": "A. Maker",
        "source": "a catalogue",
        "passes": (ORBIT,),
    }
    return ObjectRecord(**{**fields, **changes})


def views(one: ObjectRecord | None = None, size: int = 16) -> ObjectViews:
    """An object whose views are all different; its alpha is 255 in the left half and 0 in the right."""
    one = one or record()
    rgba = np.zeros((len(one.passes), 4, size, size, 4), np.uint8)
    for number in range(4 * len(one.passes)):
        rgba[number // 4, number % 4, ..., :3] = (10 * number, 200, number)
    rgba[..., : size // 2, 3] = 255
    return ObjectViews(one, rgba)


def write_shard(folder: Path, objects: list[ObjectViews], number: int = 0) -> Path:
    """A shard of these objects, of the split of the first."""
    path = folder / shard_name(objects[0].record.split, number)
    write_tar(path, (member for one in objects for member in object_members(one)))
    return path
