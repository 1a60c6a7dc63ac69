"""Images and captions for the contrastive encoder: in memory, drawn at random, and augmented."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.dataset.compositing import over, premultiplied
from dream3d.dataset.records import ObjectRecord, Split
from dream3d.dataset.shards import read_objects, shards
from dream3d.errors import DatasetError

SCALES = (0.75, 1.15)
SHIFT = 0.12
"""Largest, as a share of the image's side."""
BRIGHTNESS = (0.85, 1.15)
TINT = 0.04
"""Largest change of one channel: a red thing stays red."""
NOISE = 0.05
"""Largest standard deviation of the noise, of a range of colours of 1."""

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Captioned:
    """Objects with their images at the encoder's size."""

    folders: tuple[Path, ...]
    records: tuple[ObjectRecord, ...]
    rgba: tuple[Tensor, ...]
    """For each object (V, 4, S, S) uint8 with premultiplied alpha."""

    def digest(self) -> str:
        """SHA-256 of all records and images."""
        digest = hashlib.sha256()
        for record, rgba in zip(self.records, self.rgba, strict=True):
            digest.update(repr(record).encode())
            digest.update(rgba.contiguous().numpy().data)
        return digest.hexdigest()


def read_captioned(folders: Sequence[Path], split: Split, size: int) -> Captioned:
    """All objects of one split of data set folders, at ``size`` pixels a side.

    An object in several shards appears several times. Raises :class:`DatasetError` for damaged shards; a split
    without shards gives no objects.
    """
    records, images = [], []
    for path in (path for folder in folders for path in shards(folder, split)):
        for views in read_objects(path):
            records.append(views.record)
            images.append(premultiplied(views, size))
    return Captioned(tuple(folders), tuple(records), tuple(images))


def words(text: str) -> set[str]:
    """The words of a caption, in small letters."""
    return set(re.findall(r"[a-z0-9']+", text.lower()))


def color_words(records: Iterable[ObjectRecord]) -> frozenset[str]:
    """Every colour that some record names."""
    return frozenset(color.lower() for record in records for color in record.colors)


def describes(caption: str, owner: ObjectRecord, other: ObjectRecord, colors: frozenset[str]) -> bool:
    """Whether a caption of ``owner`` is true of ``other``, which would then be a false negative for it.

    It is if the other has that caption too, or is the same concept and the caption names no colour (of ``colors``)
    that the other is known to lack. A red chair and a blue chair are told apart, two chairs are not.
    """
    if caption in other.captions:
        return True
    if owner.name.lower() != other.name.lower():
        return False
    return not other.colors or (words(caption) & colors) <= {color.lower() for color in other.colors}


def matching(captions: Sequence[str], owners: Sequence[ObjectRecord], colors: frozenset[str]) -> Tensor:
    """(N, N) bool: row i, column j is whether caption j (of owner j) describes object i.

    Off the diagonal these are false negatives.
    """
    return torch.tensor(
        [
            [describes(text, owner, other, colors) for text, owner in zip(captions, owners, strict=True)]
            for other in owners
        ]
    )


@dataclass(frozen=True)
class Pairs:
    """What one step learns from."""

    images: Tensor
    """(N, 3, S, S) in [0, 1]."""
    captions: tuple[str, ...]
    matches: Tensor
    """(N, N) bool, see :func:`matching`."""


class PairSampler:
    """Batches of ``count`` objects in shuffled rounds, each with one random view and one of its captions.

    All randomness comes from one generator. Raises :class:`DatasetError` if there are fewer than two objects.
    """

    def __init__(self, data: Captioned, count: int, background: Color, seed: int) -> None:
        if len(data.records) < 2:
            where = ", ".join(str(folder) for folder in data.folders)
            raise DatasetError(
                f"{where}: {len(data.records)} training objects; the encoder needs shards train-*.tar with at least two"
            )
        self.data, self.count, self.background = data, count, background
        self.colors = color_words(data.records)
        self.generator = torch.Generator().manual_seed(seed)
        self.order: list[int] = []
        """What is left of the rounds that were shuffled."""

    def draw(self) -> Pairs:
        """The next batch."""
        data = self.data
        while len(self.order) < self.count:
            self.order += torch.randperm(len(data.records), generator=self.generator).tolist()
        chosen, self.order = self.order[: self.count], self.order[self.count :]
        owners = [data.records[i] for i in chosen]
        captions = tuple(owner.captions[self._below(len(owner.captions))] for owner in owners)
        rgba = torch.stack([data.rgba[i][self._below(len(data.rgba[i]))] for i in chosen]).float() / 255
        images = augment(rgba, self.background, self.generator)
        return Pairs(images, captions, matching(captions, owners, self.colors))

    def _below(self, count: int) -> int:
        return int(torch.randint(count, (1,), generator=self.generator))

    def state(self) -> dict[str, Tensor]:
        """All that the next batch depends on, besides the data."""
        return {"generator": self.generator.get_state(), "order": torch.tensor(self.order, dtype=torch.int64)}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave; KeyError or RuntimeError for anything else."""
        self.generator.set_state(state["generator"])
        self.order = state["order"].tolist()


def augment(rgba: Tensor, background: Color, generator: torch.Generator) -> Tensor:
    """Premultiplied (N, 4, S, S) in [0, 1] to (N, 3, S, S) in [0, 1]: moved, on some colour, tinted, soft and noisy.

    Half of the images get the prior's ``background``, the others random colours. Nothing is mirrored, since left and
    right are part of what a view shows, and no colour changes its name.
    """
    count = len(rgba)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    transform = torch.zeros(count, 2, 3)
    transform[:, 0, 0] = transform[:, 1, 1] = 1 / uniform(*SCALES)
    transform[:, :, 2] = uniform(-2 * SHIFT, 2 * SHIFT, 2)  # an image is two units wide there
    grid = F.affine_grid(transform, list(rgba.shape), align_corners=False)
    moved = F.grid_sample(rgba, grid, align_corners=False)  # transparent outside
    agreed = torch.rand(count, 1, generator=generator) < 0.5
    images = over(moved, torch.where(agreed, torch.tensor(background), uniform(0, 1, 3)))
    images = images * uniform(*BRIGHTNESS, 1, 1, 1) * uniform(1 - TINT, 1 + TINT, 3, 1, 1)
    images = torch.lerp(images, blurred(images), uniform(0, 1, 1, 1, 1))
    noise = torch.randn(images.shape, generator=generator) * uniform(0, NOISE, 1, 1, 1)
    return (images + noise).clamp(0, 1)


def blurred(images: Tensor) -> Tensor:
    """(N, C, S, S) under the binomial filter 1 4 6 4 1, edges repeated."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    flat = images.flatten(0, 1)[:, None]
    flat = F.conv2d(F.pad(flat, (2, 2, 0, 0), mode="replicate"), taps.view(1, 1, 1, 5))
    flat = F.conv2d(F.pad(flat, (0, 0, 2, 2), mode="replicate"), taps.view(1, 1, 5, 1))
    return flat.view(images.shape)
