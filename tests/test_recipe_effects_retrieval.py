"""Every field of the recipe of an image adapter's training has an effect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from recipe_effects import Runs, Table, becomes, changes, falls, places, rises
from test_training_retrieval import recipe_in
from tiny_shards import tiny_object
from torch import Tensor

from dream3d.dataset.shards import object_members, shard_name, write_tar
from dream3d.prior.image_adapter.config import parse_config
from dream3d.prior.schema import read_json
from dream3d.training.guided_data import GuidedBatch
from dream3d.training.recipe import TrainingRecipe
from dream3d.training.tasks import joint, multiview, retrieval


@dataclass(frozen=True)
class Trace:
    """What a short training did."""

    folder: Path
    """Of the adapter."""
    batches: list[GuidedBatch]
    """What the first steps would see, were there ten."""

    @property
    def pictures(self) -> Tensor:
        """Of the first batch."""
        return self.batches[0].pictures


def train(recipe: TrainingRecipe, out: Path) -> Trace:
    if recipe.task == "multiview":
        return Trace(multiview.make_trainer(recipe, out).run().result / "image_adapter", [])
    trainer = (joint if recipe.task == "joint" else retrieval).make_trainer(recipe, out)
    batches = [trainer.task.draw(step) for step in range(10)]
    return Trace(trainer.run().result / "image_adapter", batches)


def size(run: Trace) -> int:
    return (run.folder / "model.safetensors").stat().st_size


def weight_sum(run: Trace) -> float:
    path = run.folder / "config.json"
    return parse_config(read_json(path), path).weight_sum


def blank(run: Trace) -> int:
    return sum(int(batch.blank.sum()) for batch in run.batches)


def without_caption(run: Trace) -> int:
    return sum(batch.targets.captions.count("") for batch in run.batches)


def by_text_alone(run: Trace) -> int:
    return sum(batch.mode.startswith("text") for batch in run.batches)


TABLE: Table[Trace] = {
    "task": becomes(lambda run: run.folder.exists(), "multiview", False),
    "retrieval.modes": becomes(lambda run: {batch.mode for batch in run.batches}, "2d", {"2d"}),
    "retrieval.pictures": rises(lambda run: run.pictures.shape[1], 3),
    "retrieval.text_weight": becomes(weight_sum, 0.25, 1.25),
    "retrieval.dropout": rises(blank, 0.9),
    "retrieval.text_dropout": rises(without_caption, 0.9, {"retrieval.dropout": 0.0}),
    "retrieval.text_alone": rises(by_text_alone, 1.0, {"task": "joint"}),
    "retrieval.other_instance": changes(lambda run: run.pictures, 1.0),
    "retrieval.augment": changes(lambda run: run.pictures, 0.0),
    "retrieval.dim": rises(size, 24),
    "retrieval.depth": rises(size, 2),
    "retrieval.heads": rises(size, 3),
    "retrieval.head_dim": rises(size, 8),
    "retrieval.queries": rises(size, 5),
    "retrieval.compact": falls(size, True, {"retrieval.dim": 128}),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainingRecipe:
    folder = tmp_path_factory.mktemp("data")
    recipe = recipe_in(folder, steps=2, retrieval={"other_instance": 0.0})
    chairs = [tiny_object(f"o{seed}", "red chair", seed=seed) for seed in range(2)]
    write_tar(folder / "data" / shard_name("train", 0), [m for one in chairs for m in object_members(one)])
    return recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs[TrainingRecipe, Trace]]:
    folder = tmp_path_factory.mktemp("training")
    AcceleratorState._reset_state(True)
    yield Runs(lambda recipe: train(recipe, folder / str(len(list(folder.iterdir())))))
    AcceleratorState._reset_state(True)


def test_every_field_has_an_entry() -> None:
    own = [place for place in places(TrainingRecipe) if place == "task" or place.startswith("retrieval.")]
    assert sorted(TABLE) == sorted(own)


@pytest.mark.parametrize("place", TABLE)
def test_a_field_has_its_effect(base: TrainingRecipe, runs: Runs[TrainingRecipe, Trace], place: str) -> None:
    torch.manual_seed(0)
    runs.check(base, place, TABLE[place])
