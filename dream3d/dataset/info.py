"""What a folder of shards holds: counts, captions, licences, leaks, damage, and a contact sheet of its objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dream3d.dataset.captions.concepts import Leak, leak_in, leaks
from dream3d.dataset.compositing import composite
from dream3d.dataset.records import SPLITS, ObjectRecord
from dream3d.dataset.shards import ObjectViews, read_images, read_objects, shards
from dream3d.errors import DatasetError
from dream3d.files import write_atomically

T = TypeVar("T")

SHEET_BACKGROUND = (107, 143, 199)
"""sRGB behind the objects on the contact sheet; neither white nor black things vanish on it."""
SHEET_SIDE = 64
"""Pixels along a side of one view on the contact sheet; larger views are averaged down."""
SHEET_VIEWS = 4
"""Views of one object on the contact sheet, evenly spaced over its first pass."""
MOST_TILES = 300
CAPTION_HEIGHT = 12


@dataclass(frozen=True)
class FolderSummary:
    """What was counted in a folder of shards."""

    records: tuple[ObjectRecord, ...]
    """Of all sound objects, in the order of their shards."""
    images: int
    """Captioned images without a camera."""
    image_licences: Counter[str]
    sides: Counter[int]
    """Pixels along a side of the images, and how many objects and captioned images have it."""
    damaged: tuple[str, ...]
    """One line for each shard that could not be read to its end."""
    leaks: tuple[Leak, ...]
    tiles: tuple[NDArray[np.uint8], ...] = field(repr=False)
    """Tiles of the contact sheet, each (h, w, 3); empty if none was asked for."""


def summarise(folder: Path, concepts: Sequence[str] = (), *, sheet: bool = False) -> FolderSummary:
    """Read every shard of a folder once, damaged ones up to the damage.

    ``concepts`` are those that no object outside the split ``unseen`` may name; ``sheet`` asks for tiles too (the
    first 300 objects). Raises :class:`DatasetError` if the folder holds no shard.
    """
    files = [path for split in SPLITS for path in shards(folder, split)]
    image_files = shards(folder, "images")
    if not files and not image_files:
        raise DatasetError(f"{folder} holds no shards (train-00000.tar, images-00000.tar); 'dataset render' makes them")
    damaged, in_images = list[str](), list[Leak | None]()
    records, tiles = list[ObjectRecord](), list[NDArray[np.uint8]]()
    sides, licences = Counter[int](), Counter[str]()
    for views in _sound(read_objects, files, damaged):
        records.append(views.record)
        sides[views.rgba.shape[2]] += 1
        if sheet and len(tiles) < MOST_TILES:
            tiles.append(tile(views))
    for image in _sound(read_images, image_files, damaged):
        licences[image.licence or "not stated"] += 1
        sides[image.rgb.shape[0]] += 1
        in_images.append(leak_in(image.key, image.captions, concepts))
    twice = [key for key, count in Counter(record.key for record in records).items() if count > 1]
    damaged += [f"key {key} is there more than once" for key in twice]
    found = (*leaks(records, concepts), *(leak for leak in in_images if leak is not None))
    return FolderSummary(tuple(records), licences.total(), licences, sides, tuple(damaged), found, tuple(tiles))


def report(summary: FolderSummary) -> Iterator[str]:
    """The summary in lines of text: a title, then what was counted, most frequent first."""
    records = summary.records
    yield f"objects    {len(records)}" + _listed(Counter(str(record.split) for record in records))
    yield f"views      {sum(len(p.azimuths_deg) for r in records for p in r.passes)}" + _listed(
        Counter(f"{len(r.passes)} x {len(r.passes[0].azimuths_deg)}" for r in records)
    )
    yield f"images     {summary.images}"
    yield "size       " + ", ".join(f"{side} x {side} pixels: {n}" for side, n in summary.sides.most_common())
    captions = [caption for record in records for caption in record.captions]
    each = f", {len(captions) / len(records):.1f} for an object" if records else ""
    yield f"captions   {len(captions)}, {len(set(captions))} different{each}"
    for title, counts in (
        ("names", Counter(r.name for r in records)),
        ("categories", Counter(r.category or "none" for r in records)),
        ("licences", Counter(r.licence or "not stated" for r in records) + summary.image_licences),
        ("colours", Counter(r.colors[0] for r in records if r.colors)),
    ):
        yield f"{title:<11}{len(counts)}{_listed(counts)}"


def write_sheet(path: Path, tiles: Sequence[NDArray[np.uint8]], columns: int = 5) -> None:
    """Write tiles of one size (h, w, 3) as a PNG, row by row. Raises :class:`DatasetError` if there are none."""
    if not tiles:
        raise DatasetError("there are no sound objects to show on a sheet")
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    page = np.full((-(-len(tiles) // columns) * height, columns * width, 3), 255, np.uint8)
    for index, one in enumerate(tiles):
        row, column = divmod(index, columns)
        page[row * height :, column * width :][:height, :width] = one
    write_atomically(path, lambda temporary: Image.fromarray(page).save(temporary, "PNG"))


def tile(views: ObjectViews) -> NDArray[np.uint8]:
    """Several azimuths of an object's first pass beside each other, its first caption underneath, (h, w, 3)."""
    count = views.rgba.shape[1]
    chosen = [views.rgba[0, i * count // SHEET_VIEWS] for i in range(SHEET_VIEWS)]
    images = [Image.fromarray(composite(view, SHEET_BACKGROUND)) for view in chosen]
    size = (SHEET_SIDE, SHEET_SIDE)
    strip = np.concatenate([np.asarray(image.resize(size, Image.Resampling.BOX)) for image in images], 1)
    label = Image.new("RGB", (strip.shape[1], CAPTION_HEIGHT), "white")
    # The default font knows Latin letters only.
    text = f"{views.record.key}: {views.record.captions[0]}".encode("latin-1", "replace").decode("latin-1")
    ImageDraw.Draw(label).text((1, 0), text, fill=0)
    return np.concatenate([strip, np.asarray(label)])


def _sound(read: Callable[[Path], Iterator[T]], files: Iterable[Path], damaged: list[str]) -> Iterator[T]:
    """What can be read of files; what is wrong with the others goes to ``damaged``."""
    for path in files:
        try:
            yield from read(path)
        except DatasetError as error:
            damaged.append(str(error))


def _listed(counts: Counter[str], most: int = 12) -> str:
    if not counts:
        return ""
    shown = ", ".join(f"{name} {count}" for name, count in counts.most_common(most))
    return f": {shown}" + (f", and {len(counts) - most} more" if len(counts) > most else "")
