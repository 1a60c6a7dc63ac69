"""One thing, one method: what is learnt, what it then draws, and the figures of that."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.dataset.decoding import read_rgba
from dream3d.evaluation.consistency import cross_view_consistency, differing_pairs
from dream3d.evaluation.similarity import image_image_similarity
from dream3d.files import read_regular
from dream3d.images import Picture
from dream3d.personalise.check import difference
from dream3d.personalise.photos import PhotoSet, read_photos
from dream3d.personalise.recipe import DreamBoothRecipe, recipe_for
from dream3d.personalise.samples import as_tensor, class_views, draw_views, kept
from dream3d.personalise.subject import square_subject
from dream3d.personalise.words import Subject
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.memory import MemoryPlan
from dream3d.retrieval.pictures import MAX_BYTES, MAX_PIXELS
from dream3d.training.personalised import Base
from dream3d.training.tasks.dreambooth import Pictures, make_trainer
from dream3d.weights.loading import lasting_name, load_prior

TOKEN = "sks"
SEEDS = (0, 1)
"""Of the views of a thing."""
Encode = Callable[[Tensor], Tensor]
"""(N, 3, S, S) pictures in [0, 1] -> (N, D) vectors."""


@dataclass(frozen=True)
class Method:
    """A way to personalise; ``base`` is none."""

    name: str
    """``base``, ``full`` or ``lora``."""
    preservation: float = 0.0
    """The weight lambda."""

    @property
    def label(self) -> str:
        """For tables and names of files."""
        return self.name if self.name == "base" else f"{self.name}-{self.preservation:g}"


METHODS = (Method("base"), *(Method(name, weight) for name in ("full", "lora") for weight in (0.0, 1.0)))


@dataclass(frozen=True)
class Plan:
    """What all cells share."""

    prior: str
    """Name or folder."""
    encoders: Mapping[str, Encode]
    prompts: tuple[str, ...]
    """Unrelated ones, that should stay as they are."""
    changes: tuple[str, ...]
    """To the recipe, such as ``steps=50``."""
    out: Path
    keep: bool
    """The personalised priors."""

    def recipe(self, preset: str, method: Method) -> DreamBoothRecipe:
        """The defaults of the prior, without samples on the way, which cost much and change no weight."""
        quiet = {"sample_every": 0, "preservation": method.preservation}
        return recipe_for(preset, method.name, self.changes, **quiet)


@dataclass(frozen=True)
class Model:
    """A thing that is learnt."""

    name: str
    subject: Subject
    photos: PhotoSet
    true: Tensor
    """(T, 3, S, S) held-out pictures of it on the prior's background."""


@dataclass(frozen=True)
class Drawn:
    """What a prior draws, in [0, 1]."""

    thing: Tensor
    """(seeds, V, 3, S, S)."""
    kind: Tensor
    """(1, V, 3, S, S): of its class."""
    others: Tensor
    """(prompts, V, 3, S, S)."""


def read_model(folder: Path, kind: str, side: int, background: tuple[float, float, float]) -> Model:
    """The photos and the held-out pictures of a thing, as a prior with such pictures sees them."""
    files = sorted((folder / "true").iterdir())
    pixels = [read_rgba(read_regular(file, MAX_BYTES), MAX_PIXELS, ("WEBP",)) for file in files]
    true = np.stack([square_subject(one, side, background).rgb for one in pixels])
    photos = read_photos(folder / "photos", side, background)
    return Model(folder.name, Subject(TOKEN, kind), photos, as_tensor(true))


def personalised(plan: Plan, model: Model, method: Method) -> DiffusionPrior:
    """A prior that has learnt a thing; training goes on where it was stopped, and is not repeated.

    SystemExit if a signal ends the training.
    """
    place = plan.out / "priors" / f"{model.name}-{method.label}"
    if not (place / "prior.json").is_file():
        base = Base(lasting_name(plan.prior), load_prior(plan.prior, memory=MemoryPlan(precision="fp32")))
        recipe = plan.recipe(base.prior.settings.recipe, method)
        views: Picture | None = None
        if recipe.keep_sets:
            path = plan.out / "views" / f"{model.name}-kept.png"
            views = class_views(path, base.prior, model.subject.class_phrase, recipe.keep_sets, recipe.seed)
        outcome = make_trainer(recipe, model.subject, Pictures(model.photos, None, views), base, place).run()
        if outcome.stopped_by is not None:  # its checkpoint is written
            raise SystemExit(128 + outcome.stopped_by)
    return load_prior(str(place))


def forget(plan: Plan, model: Model, method: Method) -> None:
    """Remove a personalised prior unless it is to be kept."""
    if not plan.keep:
        shutil.rmtree(plan.out / "priors" / f"{model.name}-{method.label}", ignore_errors=True)


def draw(plan: Plan, base: DiffusionPrior, model: Model, method: Method) -> Drawn:
    """Views of a thing, of its class and of unrelated prompts, from the same noise by every method.

    Nothing is learnt where all views are kept.
    """
    whose, prior = f"{model.name}-{method.label}", base
    # A base draws unrelated prompts alike, whatever the thing.
    names = [whose, f"{whose}-class", f"{'base' if method.name == 'base' else whose}-others"]
    asked = [
        [(model.subject.phrase, seed) for seed in SEEDS],
        [(model.subject.class_phrase, SEEDS[0])],
        [(prompt, SEEDS[0]) for prompt in plan.prompts],
    ]
    if method.name != "base" and not all((plan.out / "views" / f"{name}.png").is_file() for name in names):
        prior = personalised(plan, model, method)
    return Drawn(*(sets_of(plan, prior, name, some) for name, some in zip(names, asked, strict=True)))


def sets_of(plan: Plan, prior: DiffusionPrior, name: str, asked: Sequence[tuple[str, int]]) -> Tensor:
    """(asked, V, 3, S, S) views of prompts by seeds, which are kept in ``views/NAME.png``."""

    def drawn() -> Tensor:
        return torch.cat([draw_views(prior, prompt, seed) for prompt, seed in asked])

    strip = as_tensor(kept(plan.out / "views" / f"{name}.png", len(asked) * prior.views, prior.image_size, drawn))
    return strip.unflatten(0, (len(asked), prior.views))


@functools.cache
def vectors_of(encode: Encode, true: Tensor) -> Tensor:
    """Of held-out pictures, which every cell compares with: computed once."""
    return encode(true)


def figures_of(
    plan: Plan, cameras: Cameras, models: Sequence[Model], model: Model, drawn: Drawn, base: Drawn
) -> dict[str, float]:
    """All figures of a cell, by names such as ``similarity/ENCODER/THING``.

    Similarities are mean cosines with the held-out pictures of every thing. ``others_change`` and ``class_change`` are
    mean differences of coarse colours to what the base draws from the same noise; ``others/ENCODER`` is the mean cosine
    with it, view by view.
    """
    figures = dict[str, float]()
    for name, encode in plan.encoders.items():
        thing, kind = (encode(views.flatten(0, 1)) for views in (drawn.thing, drawn.kind))
        for one in models:
            figures[f"similarity/{name}/{one.name}"] = image_image_similarity(thing, vectors_of(encode, one.true))
            if one is model:
                figures[f"class_similarity/{name}"] = image_image_similarity(kind, vectors_of(encode, one.true))
        pair = [encode(views.flatten(0, 1)) for views in (drawn.others, base.others)]
        figures[f"others/{name}"] = float(F.cosine_similarity(pair[0], pair[1]).mean())
    for part, sets in (("thing", drawn.thing), ("others", drawn.others)):
        figures[f"consistency_{part}"] = float(np.mean([cross_view_consistency(views, cameras) for views in sets]))
    figures["sides_differ"] = float(np.mean([differing_pairs(views) for views in drawn.thing]))
    figures["others_change"] = difference(base.others, drawn.others)
    figures["class_change"] = difference(base.kind, drawn.kind)
    figures["two_seeds"] = difference(drawn.thing[:1], drawn.thing[1:2])
    return {name: round(value, 5) for name, value in figures.items()}
