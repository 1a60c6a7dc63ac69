"""Pictures and captions for the contrastive encoder: in memory, drawn at random, and disturbed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.dataset.compositing import over, premultiplied
from dream3d.dataset.records import ObjectRecord, Split
from dream3d.dataset.shards import read_objects, shards
from dream3d.errors import DatasetError

BACKGROUND = (0.42, 0.56, 0.78)
"""sRGB colour behind the objects in the prior's training pictures, and behind half of the encoder's."""
SCALES = (0.75, 1.15)
SHIFT = 0.12
"""Largest, as a share of the picture's side."""
BRIGHTNESS = (0.85, 1.15)
TINT = 0.04
"""Largest change of one channel: a red thing stays red."""
NOISE = 0.05
"""Largest standard deviation of the noise, of a range of colours of 1."""


@dataclass(frozen=True)
class Captioned:
    """Objects with their pictures at the encoder's size."""

    records: tuple[ObjectRecord, ...]
    rgba: tuple[Tensor, ...]
    """For each object (V, 4, S, S) uint8 with premultiplied alpha."""


def read_captioned(folders: Sequence[Path], split: Split, size: int) -> Captioned:
    """All objects of one split of data set folders, at ``size`` pixels a side.

    An object in several shards appears several times. Raises :class:`DatasetError` for damaged shards; a split
    without shards gives no objects.
    """
    records, pictures = [], []
    for path in (path for folder in folders for path in shards(folder, split)):
        for views in read_objects(path):
            records.append(views.record)
            pictures.append(premultiplied(views, size))
    return Captioned(tuple(records), tuple(pictures))


def words(text: str) -> set[str]:
    """The words of a caption, in small letters."""
    return set(re.findall(r"[a-z0-9']+", text.lower()))


def color_words(records: Iterable[ObjectRecord]) -> frozenset[str]:
    """Every colour that some record names."""
    return frozenset(color.lower() for record in records for color in record.colors)


def caption_fits(caption: str, owner: ObjectRecord, other: ObjectRecord, colors: frozenset[str]) -> bool:
    """Whether a caption of ``owner`` may be said of ``other``, so that ``other`` is no negative for it.

    It may if the other has that caption too, or is the same concept and the caption names no colour (of ``colors``)
    that the other is known to lack. A red chair and a blue chair are told apart, two chairs are not.
    """
    if caption in other.captions:
        return True
    if owner.name.lower() != other.name.lower():
        return False
    return not other.colors or (words(caption) & colors) <= {color.lower() for color in other.colors}


def fitting(captions: Sequence[str], owners: Sequence[ObjectRecord], colors: frozenset[str]) -> Tensor:
    """(N, N) bool: row i, column j is whether caption j (of owner j) may be said of object i."""
    return torch.tensor(
        [
            [caption_fits(text, owner, other, colors) for text, owner in zip(captions, owners, strict=True)]
            for other in owners
        ]
    )


@dataclass(frozen=True)
class Batch:
    """What one step learns from."""

    pictures: Tensor
    """(N, 3, S, S) in [0, 1]."""
    captions: tuple[str, ...]
    fits: Tensor
    """(N, N) bool, see :func:`fitting`."""


def batches(data: Captioned, count: int, generator: torch.Generator) -> Iterator[Batch]:
    """Endless batches of ``count`` objects, each with one random view and one of its captions.

    Objects come in shuffled rounds. Raises :class:`DatasetError` if there are fewer than two objects.
    """
    if len(data.records) < 2:
        raise DatasetError(f"{len(data.records)} objects to train the encoder from; it needs at least two")
    colors = color_words(data.records)
    order: list[int] = []
    while True:
        while len(order) < count:
            order += torch.randperm(len(data.records), generator=generator).tolist()
        chosen, order = order[:count], order[count:]
        owners = [data.records[i] for i in chosen]
        captions = tuple(owner.captions[_draw(len(owner.captions), generator)] for owner in owners)
        rgba = torch.stack([data.rgba[i][_draw(len(data.rgba[i]), generator)] for i in chosen])
        yield Batch(disturbed(rgba.float() / 255, generator), captions, fitting(captions, owners, colors))


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


def disturbed(rgba: Tensor, generator: torch.Generator) -> Tensor:
    """Premultiplied (N, 4, S, S) in [0, 1] to (N, 3, S, S) in [0, 1]: moved, on some colour, tinted, soft and noisy.

    Nothing is mirrored, since left and right are part of what a view shows, and no colour changes its name.
    """
    count = len(rgba)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    transform = torch.zeros(count, 2, 3)
    transform[:, 0, 0] = transform[:, 1, 1] = 1 / uniform(*SCALES)
    transform[:, :, 2] = uniform(-2 * SHIFT, 2 * SHIFT, 2)  # a picture is two units wide there
    grid = F.affine_grid(transform, list(rgba.shape), align_corners=False)
    moved = F.grid_sample(rgba, grid, align_corners=False)  # transparent outside
    agreed = torch.rand(count, 1, generator=generator) < 0.5
    pictures = over(moved, torch.where(agreed, torch.tensor(BACKGROUND), uniform(0, 1, 3)))
    pictures = pictures * uniform(*BRIGHTNESS, 1, 1, 1) * uniform(1 - TINT, 1 + TINT, 3, 1, 1)
    pictures = torch.lerp(pictures, blurred(pictures), uniform(0, 1, 1, 1, 1))
    noise = torch.randn(pictures.shape, generator=generator) * uniform(0, NOISE, 1, 1, 1)
    return (pictures + noise).clamp(0, 1)


def blurred(pictures: Tensor) -> Tensor:
    """(N, C, S, S) under the binomial filter 1 4 6 4 1, edges repeated."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    flat = pictures.flatten(0, 1)[:, None]
    flat = F.conv2d(F.pad(flat, (2, 2, 0, 0), mode="replicate"), taps.view(1, 1, 1, 5))
    flat = F.conv2d(F.pad(flat, (0, 0, 2, 2), mode="replicate"), taps.view(1, 1, 5, 1))
    return flat.view(pictures.shape)
