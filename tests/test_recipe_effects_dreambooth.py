"""Every field of the recipe of personalisation has an effect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import pytest
import torch
from recipe_effects import Runs, Table, assert_complete, becomes, changes, falls, rises
from safetensors.torch import load_file, save_file
from test_dreambooth import RECIPE, SUBJECT
from tiny_photos import write_personal_prior, write_photos
from torch import Tensor, nn

import dream3d.personalise.samples as samples
from dream3d.personalise.photos import read_photos
from dream3d.personalise.recipe import Bits, DreamBoothRecipe
from dream3d.personalise.samples import draw_pictures, draw_views, kept
from dream3d.prior.memory import MemoryPlan
from dream3d.prior.sampling import SamplingRecipe
from dream3d.training.events import StepEvent
from dream3d.training.optimizers import make_adamw
from dream3d.training.personalised import RUN_FOLDER, Base
from dream3d.training.tasks import dreambooth
from dream3d.training.tasks.dreambooth import Batch, Pictures, make_trainer
from dream3d.weights.loading import load_prior

BASE = DreamBoothRecipe(
    steps=4,
    rate=1e-3,
    batch=2,
    keep_sets=1,
    class_pictures=2,
    class_batch=1,
    captions=RECIPE.captions,
    rank=2,
    sample_every=2,
    patience=0,
    checkpoint_every=0,
)


@dataclass(frozen=True)
class Trace:
    """What a short personalisation did."""

    events: list[StepEvent]
    batches: list[Batch]
    """What the first ten steps would see."""
    trained: Tensor
    """All trained weights after the last step, in a row."""
    moved: float
    """Mean absolute change of the network's answers to one question."""
    saves: int
    """Checkpoints on the way and at the end."""
    bits: int
    """Of the optimiser that was made."""
    out: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs[DreamBoothRecipe, Trace]]:
    place = tmp_path_factory.mktemp("effects")
    prior = write_personal_prior(place / "prior")
    codec = load_file(prior / "codec/codec.safetensors")
    save_file({**codec, "scale": torch.tensor([1.0, 2.0, 3.0, 4.0])}, prior / "codec/codec.safetensors")
    photos = read_photos(write_photos(place / "photos", 3), 16, (0.2, 0.4, 0.6))

    scores: Iterator[float] = iter(())
    made = list[int]()

    def make(parameters: Iterable[nn.Parameter], rate: float, weight_decay: float, bits: Bits) -> torch.optim.Optimizer:
        made.append(bits)  # 8 bits need a package: test_training_optimizers.py has what they do
        return make_adamw(parameters, rate, weight_decay)

    def run(recipe: DreamBoothRecipe) -> Trace:
        nonlocal scores
        scores = chain([0.5, 0.6], repeat(0.6))
        out = place / "runs" / str(len(list(place.glob("runs/*"))))
        out.mkdir(parents=True)
        loaded = load_prior(str(prior), memory=MemoryPlan(precision="fp32"))
        count, sets = recipe.class_pictures, recipe.keep_sets
        of_class = (
            kept(out / "class.png", count, 16, lambda: draw_pictures(loaded, "a dog", count, 0)) if count else None
        )
        views = kept(
            out / "views.png", sets * 2, 16, lambda: torch.cat([draw_views(loaded, "a dog", i) for i in range(sets)])
        )
        pictures = Pictures(photos, of_class, views.reshape(sets, 2, 16, 16, 3))
        trainer = make_trainer(recipe, SUBJECT, pictures, Base(str(prior), loaded), out / "new")
        saves, events, save = [], list[StepEvent](), trainer.save
        trainer.save = lambda: saves.append(1) or save()  # type: ignore[method-assign,func-returns-value]
        batches = [trainer.task.draw(step) for step in range(10)]
        trainer.run(events.append)
        trained = torch.cat([value.detach().flatten() for value in trainer.task.trained.parameters.values()])
        question = torch.ones(2, 4, 4, 4), 500, samples.cameras_of(loaded), loaded.encode_prompt("a dog", ""), 2
        before = load_prior(str(prior)).predict(*question)[0]
        moved = float((loaded.predict(*question)[0] - before).abs().mean())
        return Trace(events, batches, trained, moved, len(saves), made[-1], out / "new")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "sampling_for", lambda preset: SamplingRecipe(steps=2))
        patch.setattr(dreambooth, "make_adamw", make)
        patch.setattr(dreambooth, "likeness", lambda *pictures: next(scores))
        yield Runs(run)


def weights(run: Trace) -> Tensor:
    return run.trained


def steps(run: Trace) -> int:
    return len(run.events)


def term(name: str, run: Trace) -> float:
    return run.events[-1].figures[name]


def recorded(run: Trace) -> int:
    return len(json.loads((run.out / "prior.json").read_text())["dreambooth"]["identity"])


LORA = {"method": "lora"}
TABLE: Table[Trace] = {
    "method": falls(lambda run: len(run.trained), "lora"),
    "steps": rises(steps, 6),
    "rate": rises(lambda run: run.moved, 1e-2),
    "warmup": falls(lambda run: run.moved, 1000),
    "weight_decay": falls(lambda run: float(run.trained.norm()), 100.0),
    "batch": rises(lambda run: run.batches[0].photos, 3),
    "preservation": rises(lambda run: term("preservation", run), 100.0),
    "keep_sets": rises(lambda run: len({batch.asked.index for batch in run.batches if batch.asked}), 3),
    "keep_weight": rises(lambda run: term("keep", run), 50.0),
    "class_pictures": rises(lambda run: len({batch.images[-1].numpy().tobytes() for batch in run.batches}), 4),
    "class_batch": rises(lambda run: len(run.batches[0].images), 3),
    "class_weight": changes(weights, 10.0),
    "captions": becomes(
        lambda run: {text for b in run.batches for text in b.captions[:2]}, ("{token} {class}",), {"sks dog"}
    ),
    "tilt": changes(weights, 0.2),
    "channel_power": changes(lambda run: run.events[0].loss, 1.0),
    "clip": changes(weights, 1e-3),
    "rank": rises(lambda run: len(run.trained), 4, LORA),
    "sample_every": rises(lambda run: len(list((run.out / RUN_FOLDER / "samples").iterdir())), 1),
    "patience": falls(steps, 1, {"steps": 8}),
    "rise": falls(steps, 0.9, {"steps": 8, "patience": 1}),
    "checkpoint_every": rises(lambda run: run.saves, 1),
    "seed": changes(weights, 1),
    "optimizer_bits": becomes(lambda run: run.bits, 8, 8),
}


def test_every_field_has_an_entry() -> None:
    assert_complete(TABLE, DreamBoothRecipe)


@pytest.mark.parametrize("place", TABLE)
def test_a_field_has_its_effect(runs: Runs[DreamBoothRecipe, Trace], place: str) -> None:
    runs.check(BASE, place, TABLE[place])


def test_recorded_scores(runs: Runs[DreamBoothRecipe, Trace]) -> None:
    assert recorded(runs(BASE)) == 1
