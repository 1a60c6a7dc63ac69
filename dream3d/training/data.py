"""Shards in memory, and what a training step draws from them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream3d.dataset.cameras import pass_cameras
from dream3d.dataset.records import Pass, Split
from dream3d.dataset.shards import CaptionedImage, ObjectViews, read_images, read_objects, shards
from dream3d.errors import DatasetError
from dream3d.prior.text import PromptEncoder, with_suffix

Background = tuple[float, float, float] | Literal["grey"]


@dataclass(frozen=True)
class Batch:
    """What one step shows the network, before the codec."""

    images: Tensor
    """(N, 3, S, S) in [-1, 1]; views of one object are consecutive."""
    captions: list[str]
    """One for each object (3D mode) or image (image mode)."""
    cameras: Tensor | None
    """(objects, views, 16), or None in image mode."""
    noise_seed: int = 0
    """Of the timesteps and the noise that the images get."""

    @property
    def views(self) -> int:
        """Images to a caption."""
        return 1 if self.cameras is None else self.cameras.shape[1]


def load_objects(folder: Path, split: Split, concepts: Sequence[str], side: int) -> list[ObjectViews]:
    """The objects of one split, only those called one of ``concepts`` if there are any.

    Raises DatasetError for views that are not ``side`` pixels wide, and for no training objects at all.
    """
    found = [o for path in shards(folder, split) for o in read_objects(path)]
    chosen = [o for o in found if not concepts or o.record.name in concepts]
    for views in chosen:
        if views.rgba.shape[2:4] != (side, side):
            height, width = views.rgba.shape[2:4]
            raise DatasetError(f"{views.record.key}: views of {width} x {height} pixels; the prior takes {side}")
    if not chosen and split == "train":
        names = ", ".join(sorted({o.record.name for o in found})[:20])
        raise DatasetError(
            f"no object in {folder} is called one of data.concepts; there are {names}"
            if found
            else f"{folder} holds no train-00000.tar; make the shards first, or correct data.views"
        )
    return chosen


def share_weights(counts: Sequence[int], shares: Sequence[float]) -> list[float]:
    """Weights of objects that lie in folders of ``counts`` objects, one folder after the other.

    Each folder is drawn in proportion to its share, and the objects of a folder equally often.
    """
    return [share / count for count, share in zip(counts, shares, strict=True) for _ in range(count)]


def load_images(folder: Path, side: int) -> list[CaptionedImage]:
    """The captioned images of a folder; DatasetError if there are none, or not of ``side`` pixels."""
    found = [image for path in shards(folder, "images") for image in read_images(path) if image.captions]
    if not found:
        raise DatasetError(f"{folder} holds no images in images-00000.tar; make the shards, or correct data.images")
    for image in found:
        if image.rgb.shape[:2] != (side, side):
            height, width = image.rgb.shape[:2]
            raise DatasetError(f"{image.key}: an image of {width} x {height} pixels; the prior takes {side}")
    return found


def spaced_views(first: int, count: int, azimuths: int) -> list[int]:
    """Indices of ``count`` views evenly spaced over an orbit of ``azimuths``, from ``first`` on and around.

    Four of a multiple of four are mutually orthogonal: i, i + n/4, i + n/2, i + 3n/4 (docs/method.md, Training).
    """
    if count > azimuths:
        raise DatasetError(f"batch.views is {count}, and an orbit has {azimuths} views")
    return [(first + k * azimuths // count) % azimuths for k in range(count)]


def conditioning(orbit: Pass, views: Sequence[int]) -> Tensor:
    """(views, 16) float32: what the network is told of the cameras of some views of an orbit."""
    # At the distance that conditioning divides by: to divide by another one rounds differently.
    return pass_cameras(replace(orbit, distance=1.0), views).conditioning()


def over_background(rgba: NDArray[np.uint8], color: NDArray[np.floating]) -> NDArray[np.float32]:
    """(..., 4) straight alpha over an sRGB colour (3,) in [0, 1] -> (..., 3) in [-1, 1]."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    rgb = rgba[..., :3].astype(np.float32) / 255 * alpha + (1 - alpha) * color.astype(np.float32)
    return (rgb * 2 - 1).astype(np.float32)


@dataclass(frozen=True)
class DrawnViews:
    """Views of one object."""

    item: ObjectViews
    number: int
    """Of the orbit."""
    picked: list[int]
    """Views of the orbit."""
    pixels: NDArray[np.float32]
    """(views, S, S, 3) in [-1, 1]."""
    cameras: Tensor
    """(views, 16)."""
    caption: str


def batch_of_objects(drawn: Sequence[DrawnViews], captions: Sequence[str], noise_seed: int) -> Batch:
    """A batch of views, a caption for each object."""
    images = _to_images(np.concatenate([one.pixels for one in drawn]))
    return Batch(images, list(captions), torch.stack([one.cameras for one in drawn]), noise_seed)


def batch_of_images(chosen: Sequence[CaptionedImage], captions: Sequence[str], noise_seed: int) -> Batch:
    """A batch of images without cameras, a caption for each."""
    pixels = np.stack([image.rgb for image in chosen]).astype(np.float32) / 127.5 - 1
    return Batch(_to_images(pixels), list(captions), None, noise_seed)


class Sampler:
    """Random batches. All randomness comes from the generator that each call is given."""

    def __init__(
        self,
        objects: Sequence[ObjectViews],
        images: Sequence[CaptionedImage],
        background: Background,
        *,
        views: int,
        suffix: str,
        dropout: float,
        weights: Sequence[float] | None = None,
    ) -> None:
        """``weights`` say how often each object is drawn, relative to each other; None for equally often."""
        self.probabilities = None if weights is None else np.asarray(weights, np.float64) / sum(weights)
        self.objects, self.images = objects, images
        self.background, self.views, self.suffix, self.dropout = background, views, suffix, dropout

    def of(self, objects: Sequence[ObjectViews]) -> Sampler:
        """The same for other objects, such as held-out ones, with their whole captions and no images."""
        return Sampler(objects, (), self.background, views=self.views, suffix=self.suffix, dropout=0.0)

    def caption(self, options: Sequence[str], suffix: str, rng: np.random.Generator) -> str:
        """One of the captions, with the suffix unless it says "3d"; empty with the probability of dropout."""
        if rng.random() < self.dropout:
            return ""
        return with_suffix(options[int(rng.integers(len(options)))], suffix)

    def choose(self, count: int, rng: np.random.Generator) -> list[ObjectViews]:
        """Random objects, by their weights."""
        return [self.objects[int(i)] for i in rng.choice(len(self.objects), size=count, p=self.probabilities)]

    def draw_views(self, item: ObjectViews, rng: np.random.Generator) -> DrawnViews:
        """One random orbit of an object and one random set of evenly spaced views of it."""
        number = int(rng.integers(len(item.record.passes)))
        azimuths = item.rgba.shape[1]
        picked = spaced_views(int(rng.integers(azimuths)), self.views, azimuths)
        pixels = over_background(item.rgba[number, picked], self._color(rng))
        cameras = conditioning(item.record.passes[number], picked)
        return DrawnViews(item, number, picked, pixels, cameras, self.caption(item.record.captions, self.suffix, rng))

    def draw_objects(self, count: int, rng: np.random.Generator) -> Batch:
        """Random objects with :meth:`draw_views` of each."""
        drawn = [self.draw_views(item, rng) for item in self.choose(count, rng)]
        return batch_of_objects(drawn, [one.caption for one in drawn], int(rng.integers(2**63)))

    def draw_images(self, count: int, rng: np.random.Generator) -> Batch:
        """Random captioned images, without cameras."""
        chosen = [self.images[int(i)] for i in rng.integers(len(self.images), size=count)]
        captions = [self.caption(image.captions, "", rng) for image in chosen]
        return batch_of_images(chosen, captions, int(rng.integers(2**63)))

    def fixed(self, items: Sequence[ObjectViews]) -> Batch:
        """The first views and first captions of some objects, over the background's middle: for measuring."""
        color = np.full(3, 0.5) if self.background == "grey" else np.asarray(self.background)
        picked = [spaced_views(0, self.views, item.rgba.shape[1]) for item in items]
        images = [over_background(o.rgba[0, p], color) for o, p in zip(items, picked, strict=True)]
        cameras = [conditioning(o.record.passes[0], p) for o, p in zip(items, picked, strict=True)]
        captions = [with_suffix(item.record.captions[0], self.suffix) for item in items]
        return Batch(_to_images(np.concatenate(images)), captions, torch.stack(cameras))

    def _color(self, rng: np.random.Generator) -> NDArray[np.floating]:
        return np.full(3, rng.random()) if self.background == "grey" else np.asarray(self.background)


def _to_images(pixels: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


class Captions:
    """Token states of every caption, encoded once and kept in half precision."""

    def __init__(self, encoder: PromptEncoder, captions: Iterable[str]) -> None:
        self.row = {caption: i for i, caption in enumerate(dict.fromkeys(["", *captions]))}
        self.states = encoder.encode(list(self.row), torch.device("cpu")).half()

    def of(self, captions: Sequence[str], views: int) -> Tensor:
        """(len(captions) * views, tokens, width) float32: each caption's states, repeated for its views."""
        return self.states[[self.row[caption] for caption in captions]].float().repeat_interleave(views, 0)


ATTRIBUTION = ("name", "model", "author", "licence", "catalogue")
"""Columns of a prior's ``attribution.csv``; a data set's own has ``key`` and ``source`` for model and catalogue."""


def attribution(objects: Sequence[ObjectViews], images: Sequence[CaptionedImage], inherited: str = "") -> str:
    """CSV of all that is learnt from, each once, after the rows of an ``inherited`` CSV with a header of its own."""
    rows = [tuple(row.get(key) or "" for key in ATTRIBUTION) for row in csv.DictReader(inherited.splitlines())]
    records = [item.record for item in objects]
    rows += sorted({(r.name, r.key, r.author, r.licence, r.source) for r in records})
    rows += sorted({("picture", image.key, image.author, image.licence, "") for image in images})
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([ATTRIBUTION, *dict.fromkeys(rows)])
    return text.getvalue()
