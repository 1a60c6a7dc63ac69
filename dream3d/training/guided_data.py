"""Batches of views with pictures of the same thing: what an image adapter learns from (MV-RAG, section 3.4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dream3d.dataset.shards import CaptionedImage, ObjectViews
from dream3d.errors import DatasetError
from dream3d.training.augment import simulated
from dream3d.training.data import Batch, Sampler, batch_of_images, batch_of_objects
from dream3d.training.retrieval_recipe import RetrievalRecipe


@dataclass(frozen=True)
class GuidedBatch:
    """Targets, and pictures that tell of them."""

    targets: Batch
    pictures: Tensor
    """(groups, K, 3, P, P) in [0, 1], P the image encoder's side; a group is an object, or an image in 2D mode.
    K is 0 for targets by the text alone."""
    blank: Tensor
    """(groups,) bool: those without pictures and caption, which guidance leads away from."""

    @property
    def mode(self) -> str:
        """Of the step: "3d" or "2d", "text-3d" or "text-2d" without pictures."""
        mode = "2d" if self.targets.cameras is None else "3d"
        return mode if self.pictures.shape[1] else f"text-{mode}"


def without_pictures(targets: Batch) -> GuidedBatch:
    """Targets by the text alone."""
    groups = len(targets.captions)
    return GuidedBatch(targets, torch.empty(groups, 0, 3, 1, 1), torch.zeros(groups, dtype=torch.bool))


class GuidedSampler:
    """Random batches of both modes. All randomness comes from the generator that each call is given."""

    def __init__(self, sampler: Sampler, recipe: RetrievalRecipe, side: int) -> None:
        """``side`` of the pictures in pixels. DatasetError if images are wanted and no concept has two of them."""
        self.sampler, self.recipe, self.side = sampler, recipe, side
        self.by_name = _by_name(sampler.objects)
        concepts = _by_concept(sampler.images)
        self.concepts = [group for group in concepts.values() if len(group) > 1]
        if recipe.modes != "3d" and not self.concepts:
            raise DatasetError(
                f"none of the {len(concepts)} captions in data.images has two pictures; the 2D mode needs some that do"
            )

    def draw_objects(self, count: int, rng: np.random.Generator) -> GuidedBatch:
        """3D mode: views of objects as targets, and other renders, changed, as what a search might have found."""
        sampler, recipe = self.sampler, self.recipe
        drawn = [sampler.draw_views(item, rng) for item in sampler.choose(count, rng)]
        blank = rng.random(count) < recipe.dropout
        renders = [self._renders(one.item, one.number, one.picked, rng) for one in drawn]
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        pictures = simulated(torch.cat(renders), recipe.augment, generator)
        captions = self._captions([one.caption for one in drawn], blank, rng)
        targets = batch_of_objects(drawn, captions, int(rng.integers(2**63)))
        shape = (count, recipe.pictures, *pictures.shape[1:])
        return GuidedBatch(targets, pictures.view(shape), torch.from_numpy(blank))

    def draw_images(self, count: int, rng: np.random.Generator) -> GuidedBatch:
        """2D mode: a picture of a concept as the target, and others of it; no camera and no suffix."""
        recipe = self.recipe
        images, captions, pictures = [], [], []
        blank = rng.random(count) < recipe.dropout
        for _ in range(count):
            group = self.concepts[int(rng.integers(len(self.concepts)))]
            target, *others = (group[int(i)] for i in rng.permutation(len(group)))
            chosen = [others[i % len(others)] for i in range(recipe.pictures)]
            caption = self.sampler.caption(target.captions, "", rng)
            images.append(target)
            captions.append(caption)
            pictures.append(_square_pictures([one.rgb for one in chosen], self.side))
        captions = self._captions(captions, blank, rng)
        targets = batch_of_images(images, captions, int(rng.integers(2**63)))
        return GuidedBatch(targets, torch.stack(pictures), torch.from_numpy(blank))

    def _captions(self, captions: Sequence[str], blank: NDArray[np.bool_], rng: np.random.Generator) -> list[str]:
        """Captions as they are shown: none where there are no pictures, and none now and then where there are."""
        share = self.recipe.text_dropout
        hidden = blank | (rng.random(len(captions)) < share) if share else blank
        return ["" if one else caption for caption, one in zip(captions, hidden, strict=True)]

    def _renders(self, item: ObjectViews, number: int, picked: Sequence[int], rng: np.random.Generator) -> Tensor:
        """(K, 4, P, P) premultiplied: renders that are no targets, of the object or of another one of its name."""
        others = [one for one in self.by_name[item.record.name.lower()] if one is not item]
        chosen = []
        for _ in range(self.recipe.pictures):
            source = item
            if others and rng.random() < self.recipe.other_instance:
                source = others[int(rng.integers(len(others)))]
            passes, views = source.rgba.shape[:2]
            places = [(one, view) for one in range(passes) for view in range(views)]
            targets = {(number, view) for view in picked} if source is item else set()
            free = [place for place in places if place not in targets] or places  # every render may be a target
            chosen.append(source.rgba[free[int(rng.integers(len(free)))]])
        rgba = torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2).float() / 255
        flat = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
        return F.interpolate(flat, (self.side, self.side), mode="bilinear", antialias=True).clamp(0, 1)


def _by_name(objects: Sequence[ObjectViews]) -> dict[str, list[ObjectViews]]:
    groups = defaultdict(list)
    for one in objects:
        groups[one.record.name.lower()].append(one)
    return dict(groups)


def _by_concept(images: Sequence[CaptionedImage]) -> dict[str, list[CaptionedImage]]:
    """Images by their first caption, which names the concept."""
    groups = defaultdict(list)
    for image in images:
        groups[image.captions[0].lower()].append(image)
    return dict(groups)


def _square_pictures(pictures: Sequence[NDArray[np.uint8]], side: int) -> Tensor:
    """Square (S, S, 3) pictures -> (K, 3, side, side) in [0, 1]."""
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return F.interpolate(pixels, (side, side), mode="bilinear", antialias=True).clamp(0, 1)
