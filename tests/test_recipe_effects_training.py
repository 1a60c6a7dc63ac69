"""Every field of the recipes of training has an effect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from colored_shapes import write_shapes
from recipe_effects import Runs, Table, assert_complete, becomes, changes, falls, places, rises
from safetensors.torch import load_file, save_file
from tiny_prior import write_tiny_prior
from tiny_shards import tiny_image, tiny_object, write_tiny_shards
from torch import Tensor

from dream3d.dataset.shards import ObjectViews, image_members, object_members, shard_name, write_tar
from dream3d.errors import DatasetError
from dream3d.prior.image_encoder import EncoderConfig
from dream3d.training.contrastive_data import read_captioned
from dream3d.training.data import Batch
from dream3d.training.events import StepEvent
from dream3d.training.recipe import (
    BatchRecipe,
    DataRecipe,
    EveryRecipe,
    LossRecipe,
    OptimizerRecipe,
    TrainingRecipe,
)
from dream3d.training.tasks import contrastive, multiview
from dream3d.training.tasks.contrastive import ContrastiveRecipe

BASE = TrainingRecipe(
    name="base",
    start="prior",
    steps=3,
    products="off",
    data=DataRecipe(views="data", images="data", background=(0.2, 0.4, 0.6)),
    batch=BatchRecipe(objects=2, images=3, views=2, image_mode_fraction=0.4, prompt_suffix=""),
    optimizer=OptimizerRecipe(rate=1e-3, warmup=2),
    loss=LossRecipe(),
    every=EveryRecipe(checkpoint=0, samples=0, heldout=0),
)
NETWORK: Mapping[str, Any] = {
    "block_out_channels": [4, 8],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "attention_head_dim": 1,
}


@dataclass(frozen=True)
class Trace:
    """What a short training did."""

    out: Path
    events: list[StepEvent]
    """Of each step; none if the data was refused."""
    batches: list[Batch]
    """What the first steps would see, were there thirty."""
    first: Mapping[str, Tensor]
    """The network before the first step."""
    last: Mapping[str, Tensor]
    """Network, moving average and optimiser after the last step."""

    @property
    def captions(self) -> list[str]:
        """Of all batches."""
        return [caption for batch in self.batches for caption in batch.captions]


def train(recipe: TrainingRecipe, out: Path) -> Trace:
    """A whole training on the CPU."""
    AcceleratorState._reset_state(True)  # a process has one precision otherwise
    events: list[StepEvent] = []
    try:
        trainer = multiview.make_trainer(recipe, out)
    except DatasetError:
        return Trace(out, [], [], {}, {})
    first = {name: value.clone() for name, value in trainer.task.unet.state_dict().items()}
    batches = [trainer.task.draw(step) for step in range(30)]
    trainer.run(events.append)
    (path,) = sorted((out / "checkpoints").iterdir())[-1:]
    return Trace(out, events, batches, first, load_file(path))


def write_data(folder: Path) -> None:
    """Two priors, and shards: of two kinds, and of larger pictures."""
    for name, seed in (("prior", 0), ("another", 1)):
        prior = write_tiny_prior(folder / name)
        weights = load_file(prior / "unet/diffusion_pytorch_model.safetensors")
        noise = torch.Generator().manual_seed(seed)
        moved = {key: value + 0.1 * seed * torch.randn(value.shape, generator=noise) for key, value in weights.items()}
        save_file(moved, prior / "unet/diffusion_pytorch_model.safetensors")
        codec = load_file(prior / "codec/codec.safetensors")
        save_file({**codec, "scale": torch.tensor([1.0, 2.0, 3.0, 4.0])}, prior / "codec/codec.safetensors")
    write_tiny_shards(folder / "data")
    (folder / "more").mkdir()
    tree = tiny_object("o9", "green tree", seed=9)
    write_tar(folder / "more" / shard_name("train", 0), list(object_members(tree)))
    write_tar(folder / "more" / shard_name("images", 0), list(image_members(tiny_image("p9", "a green table", 9))))
    (folder / "large").mkdir()
    large = ObjectViews(tree.record, np.repeat(np.repeat(tree.rgba, 2, 2), 2, 3))
    write_tar(folder / "large" / shard_name("train", 0), list(object_members(large)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs[TrainingRecipe, Trace]]:
    folder = tmp_path_factory.mktemp("training")
    write_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield Runs(lambda recipe: train(recipe, folder / "runs" / str(len(list(folder.glob("runs/*"))))))
    AcceleratorState._reset_state(True)


# What is seen of a run.


def weights(run: Trace) -> Tensor:
    return torch.cat([value.flatten() for name, value in sorted(run.last.items()) if name.startswith("unet.")])


def moved(run: Trace) -> float:
    return sum(float((run.last[f"unet.{name}"] - value).abs().sum()) for name, value in run.first.items())


def behind(run: Trace) -> float:
    """How far the moving average is from the network."""
    return sum(float((run.last[f"ema.{name}"] - run.last[f"unet.{name}"]).abs().sum()) for name in run.first)


def facts(name: str) -> Callable[[Trace], Any]:
    """From the ``prior.json`` that comes out."""
    return lambda run: json.loads((run.out / "prior/prior.json").read_text())[name]


def steps(run: Trace) -> int:
    return len(run.events)


def loss(run: Trace) -> float:
    return run.events[0].loss


def files(pattern: str) -> Callable[[Trace], int]:
    return lambda run: len(list(run.out.glob(pattern)))


def size(mode: str, part: Callable[[Batch], int]) -> Callable[[Trace], int]:
    """Of the batches of a mode."""
    return lambda run: part(next(batch for batch in run.batches if (batch.cameras is None) == (mode == "image")))


def said(caption: str) -> Callable[[Trace], int]:
    return lambda run: run.captions.count(caption)


TREES = {"data.views": ("data", "more")}
SHEETS = {"every.samples": 10, "sample_prompts": ("a chair",)}

TABLE: Table[Trace] = {
    "name": becomes(facts("name"), "another", "another"),
    "start": changes(weights, "another"),
    "steps": rises(steps, 4),
    "seed": changes(weights, 1),
    "image_size": rises(steps, 32, {"batch.image_mode_fraction": 0.0, "data.images": "", "data.views": "large"}),
    "attention": changes(weights, "2d"),
    "precision": changes(weights, "bf16"),
    "products": changes(weights, "on"),
    "sample_prompts": rises(
        lambda run: iio.imread(run.out / "samples/step-00000003.png").shape[0], ("a chair", "a table"), SHEETS
    ),
    "data.views": rises(facts("objects"), ("data", "more")),
    "data.shares": rises(lambda run: run.captions.count("a green tree"), (1.0, 100.0), TREES),
    "data.images": rises(said("a green table"), ("data", "more")),
    "data.background": becomes(facts("background"), (0.0, 0.0, 1.0), [0.0, 0.0, 1.0]),
    "data.concepts": falls(facts("objects"), ("red chair",)),
    "batch.objects": rises(size("3d", lambda batch: len(batch.captions)), 3),
    "batch.images": rises(size("image", lambda batch: len(batch.captions)), 4),
    "batch.views": rises(size("3d", lambda batch: batch.views), 4),
    "batch.image_mode_fraction": rises(lambda run: sum(b.cameras is None for b in run.batches), 0.9),
    "batch.caption_dropout": rises(said(""), 0.9),
    "batch.prompt_suffix": rises(said("a red chair, cut out"), ", cut out"),
    "optimizer.rate": rises(moved, 1e-2),
    "optimizer.warmup": falls(moved, 50),
    "optimizer.cosine": rises(moved, 100),
    "optimizer.weight_decay": falls(lambda run: float(weights(run).norm()), 100.0),
    "optimizer.clip": changes(weights, 1e-3),
    "optimizer.ema": falls(behind, 0.0),
    "loss.tilt": changes(weights, 0.2),
    "loss.weighting": falls(loss, "min_snr"),
    "loss.gamma": falls(loss, 1e-3, {"loss.weighting": "min_snr"}),
    "loss.channel_power": changes(weights, 1.0),
    "every.checkpoint": rises(files("checkpoints/*"), 1),
    "every.samples": rises(files("samples/*"), 2, {"sample_prompts": ("a chair",)}),
    "every.heldout": rises(lambda run: len((run.out / "heldout.csv").read_text().splitlines()), 2),
    "network": falls(lambda run: len(weights(run)), NETWORK),
}


def test_every_field_has_an_entry() -> None:
    elsewhere = {
        place: f"in {file}.py"
        for place in places(TrainingRecipe)
        for prefix, file in (
            ("task", "test_recipe_effects_retrieval"),
            ("retrieval.", "test_recipe_effects_retrieval"),
            ("decoder.", "test_training_decoder"),
        )
        if place.startswith(prefix)
    }
    assert_complete(TABLE, TrainingRecipe, elsewhere)


@pytest.mark.parametrize("place", TABLE)
def test_a_field_has_its_effect(runs: Runs[TrainingRecipe, Trace], place: str) -> None:
    runs.check(BASE, place, TABLE[place])


# The image encoder.


@dataclass(frozen=True)
class Learnt:
    """What a short training of the image encoder gave."""

    weights: Tensor
    """All of them, in a row."""
    rows: list[str]
    """Of the metrics."""


CONTRASTIVE = ContrastiveRecipe(steps=3, batch=4, log_every=1)
CONTRASTIVE_TABLE: Table[Learnt] = {
    "steps": rises(lambda run: len(run.rows), 4),
    "batch": changes(lambda run: run.weights, 3),
    "seed": changes(lambda run: run.weights, 1),
    "learning_rate": changes(lambda run: run.weights, 1e-2),
    "weight_decay": falls(lambda run: float(run.weights.norm()), 100.0),
    "log_every": falls(lambda run: len(run.rows), 2),
}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Runs[ContrastiveRecipe, Learnt]:
    folder = tmp_path_factory.mktemp("encoder")
    config = EncoderConfig(image_size=16, channels=(8, 16), dim=8, text_width=12)
    data = read_captioned([write_shapes(folder / "shards", [("red", "table"), ("green", "chair")])], "train", 16)
    prior = write_tiny_prior(folder / "prior")

    def learn(recipe: ContrastiveRecipe) -> Learnt:
        out = folder / "runs" / str(len(list(folder.glob("runs/*"))))
        trainer = contrastive.make_trainer(recipe, data, prior, out, config)
        rows = (trainer.run().result / "metrics.csv").read_text().splitlines()[1:]
        return Learnt(torch.cat([p.detach().flatten() for p in trainer.task.towers.parameters()]), rows)

    return Runs(learn)


@pytest.mark.parametrize("place", CONTRASTIVE_TABLE)
def test_a_field_of_the_encoders_training_has_its_effect(learnt: Runs[ContrastiveRecipe, Learnt], place: str) -> None:
    learnt.check(CONTRASTIVE, place, CONTRASTIVE_TABLE[place])


def test_every_field_of_the_encoders_training_has_an_entry() -> None:
    assert_complete(CONTRASTIVE_TABLE, ContrastiveRecipe)
