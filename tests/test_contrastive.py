"""Training of the contrastive encoder: the loss by hand, false negatives, exact resume, and that it learns."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colored_shapes import shape_views, write_shapes
from safetensors.torch import load_file
from tiny_prior import edit_json, write_tiny_prior
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.dataset.compositing import over, premultiplied
from dream3d.errors import DatasetError, TrainingError, UsageError
from dream3d.evaluation.retrieval import recall_at
from dream3d.prior.image_encoder import EncoderConfig, ImageEncoder, Towers, load_image_encoder, load_text
from dream3d.training.contrastive_data import (
    Captioned,
    PairSampler,
    augment,
    blurred,
    describes,
    matching,
    read_captioned,
)
from dream3d.training.events import StepEvent
from dream3d.training.loop import Trainer
from dream3d.training.objective import contrastive_loss
from dream3d.training.tasks import contrastive
from dream3d.training.tasks.contrastive import ContrastiveRecipe, ContrastiveTask

CONFIG = EncoderConfig(image_size=16, channels=(16, 32, 32), dim=16, text_width=12)
KINDS = [("red", "table"), ("green", "chair")]
RNG = np.random.default_rng(5)
COLORS = frozenset({"red", "green"})
BACKGROUND = (0.2, 0.4, 0.6)
"""The tiny prior's."""


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Captioned:
    return read_captioned([write_shapes(tmp_path_factory.mktemp("shards"), KINDS)], "train", 16)


def test_the_loss_of_two_pairs_is_that_computed_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    none = torch.zeros(2, 2, dtype=torch.bool)
    # logits 2 * [[1, 0.6], [0, 0.8]]: rows softplus(-0.8), softplus(-1.6); columns softplus(-2), softplus(-0.4)
    softplus = [math.log1p(math.exp(-value)) for value in (0.8, 1.6, 2.0, 0.4)]
    loss = contrastive_loss(images, texts, torch.tensor(2.0), none)
    assert float(loss) == pytest.approx(sum(softplus) / 4, abs=1e-6)


def test_a_false_negative_is_left_out() -> None:
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    scale = torch.tensor(5.0)
    none = torch.zeros(2, 2, dtype=torch.bool)
    assert float(contrastive_loss(images, images, scale, none)) == pytest.approx(math.log(2))
    assert float(contrastive_loss(images, images, scale, ~none)) == 0
    one = torch.tensor([[True, True], [False, True]])  # text 1 describes image 0: row 0 and column 1 are freed
    assert float(contrastive_loss(images, images, scale, one)) == pytest.approx(math.log(2) / 2)


def test_a_caption_describes_its_concept_but_not_in_another_color() -> None:
    red = shape_views("red", "chair", "a", RNG).record
    green = shape_views("green", "chair", "b", RNG).record
    table = shape_views("red", "table", "c", RNG).record
    assert describes("a chair", red, green, COLORS)
    assert describes("an old chair", red, green, COLORS)
    assert not describes("a red chair", red, green, COLORS)
    assert not describes("a red chair", red, table, COLORS)
    assert matching(["a red chair", "a chair"], [red, green], COLORS).tolist() == [[True, True], [False, True]]


def test_an_object_of_unknown_colors_refutes_no_caption_of_its_concept() -> None:
    red = shape_views("red", "chair", "a", RNG).record
    unknown = type(red)(**{**vars(red), "colors": (), "captions": ("a chair",)})
    assert describes("a red chair", red, unknown, COLORS)


def test_batches_take_every_object_once_a_round_and_are_reproducible(data: Captioned) -> None:
    def drawn(seed: int) -> list[tuple[str, ...]]:
        sampler = PairSampler(data, 3, BACKGROUND, seed)
        return [sampler.draw().captions for _ in range(4)]

    words = [caption for captions in drawn(1)[:2] for caption in captions]
    assert sum("table" in caption for caption in words) == 3
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_augmented_images_keep_their_color_and_their_range(data: Captioned) -> None:
    rgba = data.rgba[0].float() / 255
    images = augment(rgba.repeat(8, 1, 1, 1), BACKGROUND, torch.Generator().manual_seed(0))
    assert images.shape == (32, 3, 16, 16)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    middle = images[:, :, 7:9, 7:9].mean((2, 3))
    assert bool((middle[:, 0] > 2 * middle[:, 1:].amax(1)).all())


def test_images_lie_over_the_background_by_their_alpha() -> None:
    rgba = torch.tensor([0.25, 0.0, 0.5, 0.5]).view(1, 4, 1, 1)
    assert over(rgba, torch.tensor([1.0, 0.5, 0.5])).flatten().tolist() == [0.75, 0.25, 0.75]


def test_smaller_images_of_an_object_show_no_dark_fringe() -> None:
    views = shape_views("red", "chair", "a", RNG)
    rgba = premultiplied(views, 8).float()
    assert rgba.shape == (4, 4, 8, 8)
    edge = (rgba[:, 3] > 20) & (rgba[:, 3] < 235)
    straight = rgba[:, 0][edge] / rgba[:, 3][edge] * 255
    assert bool(((straight - 220).abs() < 15).all())


def test_the_blur_spreads_a_point_by_the_binomial_weights() -> None:
    point = torch.zeros(1, 1, 5, 5)
    point[..., 2, 2] = 1
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    torch.testing.assert_close(blurred(point)[0, 0], torch.outer(row, row))


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    recipe = ContrastiveRecipe(steps=100)
    assert [recipe.rate_at(step) for step in (0, 4, 5)] == pytest.approx([0.2, 1.0, 1.0])
    assert recipe.rate_at(99) < 0.001


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "'steps' is 0, which should be a whole number from 1 to 10000000"),
        ({"batch": 1}, "'batch' is 1, which should be a whole number from 2"),
        ({"learning_rate": 0.0}, "'learning_rate' is 0.0, which should be a number above 0 and below 1"),
        ({"weight_decay": -1.0}, "'weight_decay' is -1.0"),
        ({"log_every": 0}, "'log_every' is 0, which should be a whole number from 1 to"),
        ({"seed": -1}, "'seed' is -1"),
    ],
)
def test_a_recipe_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ContrastiveRecipe(**changes)


def trainer_of(data: Captioned, prior: Path, out: Path, *, every: int = 0, **changes: int) -> Trainer[ContrastiveTask]:
    recipe = ContrastiveRecipe(**{"steps": 7, "batch": 4, "seed": 3, "log_every": 2, **changes})
    heldout = [("heldout", data)]
    trainer = contrastive.make_trainer(recipe, data, prior, out, CONFIG, heldout)
    trainer.task.checkpoint_every = every
    return trainer


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_encoder_learns_to_tell_red_squares_from_green_discs(prior: Path, data: Captioned, tmp_path: Path) -> None:
    trainer = trainer_of(data, prior, tmp_path, steps=80, batch=6)
    losses: list[float] = []
    trainer.run(lambda event: losses.append(event.loss))
    assert losses[-1] < losses[0]
    encoder = ImageEncoder(trainer.task.towers, load_text(prior))
    rng = np.random.default_rng(99)  # fresh draws
    fresh = [premultiplied(shape_views(color, name, "x", rng), 16) for color, name in KINDS for _ in range(5)]
    images = over(torch.cat(fresh).float() / 255, torch.tensor(BACKGROUND))
    texts = encoder.embed_texts([f"a {color} {name}" for color, name in KINDS])
    similarity = encoder.embed_images(images) @ texts.t()
    assert recall_at(similarity, [{0}] * 20 + [{1}] * 20, 1) == 1


def test_the_same_seed_gives_the_same_weights(prior: Path, data: Captioned, tmp_path: Path) -> None:
    def weights(seed: int, name: str) -> bytes:
        torch.rand(seed + 1)  # whatever was drawn elsewhere changes nothing
        trainer_of(data, prior, tmp_path / name, steps=3, seed=seed).run()
        return files_of(tmp_path / name / "image_encoder")["model.safetensors"]

    assert weights(1, "a") == weights(1, "b")
    assert weights(1, "c") != weights(2, "d")


@pytest.fixture(scope="module")
def whole(prior: Path, data: Captioned, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that was never stopped."""
    out = tmp_path_factory.mktemp("whole")
    trainer_of(data, prior, out).run()
    return files_of(out / "image_encoder")


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 7])
def test_killing_at_any_step_and_resuming_gives_the_files_of_never_killing(
    prior: Path, data: Captioned, whole: dict[str, bytes], tmp_path: Path, step: int
) -> None:
    def kill(event: StepEvent) -> None:
        if event.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer_of(data, prior, tmp_path, every=2).run(kill)
    assert [path.name for path in tmp_path.iterdir()] == ["image_encoder-training"]
    resumed = trainer_of(data, prior, tmp_path, every=2)
    assert resumed.step == step - step % 2
    resumed.run()
    assert files_of(tmp_path / "image_encoder") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["image_encoder"]


def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(
    prior: Path, data: Captioned, whole: dict[str, bytes], tmp_path: Path
) -> None:
    def stop(event: StepEvent) -> None:
        if event.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    outcome = trainer_of(data, prior, tmp_path).run(stop)
    assert (outcome.step, outcome.stopped_by) == (5, signal.SIGTERM)
    tensors = load_file(tmp_path / "image_encoder-training/checkpoints/step-00000005.safetensors")
    assert "encoder.log_scale" in tensors
    assert len(tensors["random.order"]) == 4 * 6 - 5 * 4  # four rounds of six objects, five batches of four
    trainer_of(data, prior, tmp_path).run()
    assert files_of(tmp_path / "image_encoder") == whole


def test_other_settings_data_or_text_encoder_are_not_mixed_into_a_run(
    prior: Path, data: Captioned, tmp_path: Path
) -> None:
    trainer_of(data, prior, tmp_path / "out").save()
    with pytest.raises(TrainingError, match="batch was 4 and is 5"):
        trainer_of(data, prior, tmp_path / "out", batch=5)
    fewer = Captioned(data.folders, data.records[:-1], data.rgba[:-1])
    with pytest.raises(TrainingError, match="another recipe: data was"):
        trainer_of(fewer, prior, tmp_path / "out")
    other = write_tiny_prior(tmp_path / "prior")
    edit_json(other / "prior.json", background="white")
    with pytest.raises(TrainingError, match=r"background was \[0.2, 0.4, 0.6\] and is \[1.0, 1.0, 1.0\]"):
        trainer_of(data, other, tmp_path / "out")


def test_files_of_somebody_else_beside_the_checkpoints_stay(prior: Path, data: Captioned, tmp_path: Path) -> None:
    trainer = trainer_of(data, prior, tmp_path, steps=1)
    (tmp_path / "image_encoder-training/notes.txt").write_text("mine")
    trainer.run()
    assert [path.name for path in (tmp_path / "image_encoder-training").iterdir()] == ["notes.txt"]


def test_the_temperature_stays_in_its_range(prior: Path, data: Captioned, tmp_path: Path) -> None:
    trainer = trainer_of(data, prior, tmp_path)
    with torch.no_grad():
        trainer.task.log_scale.fill_(9)
    trainer.train_step()
    assert float(trainer.task.log_scale.detach()) == pytest.approx(math.log(100))


def test_the_gradient_of_the_temperature_is_not_clipped(prior: Path, data: Captioned, tmp_path: Path) -> None:
    task = trainer_of(data, prior, tmp_path).task
    assert len(task.trained.clipped) == len(task.trained.parameters) - 1
    assert all(parameter is not task.log_scale for parameter in task.trained.clipped)


def test_a_loss_that_is_not_finite_ends_the_training(
    prior: Path, data: Captioned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr(contrastive, "contrastive_loss", lambda *_: nan)
    with pytest.raises(TrainingError, match="the loss of step 1 is nan; lower the learning rate"):
        trainer_of(data, prior, tmp_path).run()


def test_an_encoder_for_which_all_is_alike_recalls_nothing(prior: Path, data: Captioned) -> None:
    towers = Towers(CONFIG)
    torch.nn.init.zeros_(towers.text.weight)
    measured = contrastive.heldout_recall(ImageEncoder(towers, load_text(prior)), data, BACKGROUND)
    assert measured["R@1"] == 0
    assert measured["pictures"] == 24
    assert measured["sentences"] == 2


def test_train_encoder_writes_a_folder_that_loads(prior: Path, tmp_path: Path) -> None:
    shards = write_shapes(tmp_path / "shards", KINDS, copies=1)
    command = ["train-encoder", str(shards), "--out", str(tmp_path / "out"), "--prior", str(prior)]
    result = CliRunner().invoke(app, [*command, "--steps", "2", "--batch", "2"])
    assert result.exit_code == 0, result.output
    assert "step 2 of 2" in result.output
    assert "heldout: R@1" in result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["image_encoder"]
    written = tmp_path / "out/image_encoder"
    assert sorted(path.name for path in written.iterdir()) == [
        "config.json",
        "heldout.json",
        "metrics.csv",
        "model.safetensors",
    ]
    assert load_image_encoder(tmp_path / "out", prior).dim == 256
    assert (written / "metrics.csv").read_text().splitlines()[0] == "step,loss,accuracy,scale"
    assert json.loads((written / "heldout.json").read_text())["heldout"]["heldout"]["pictures"] == 8
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "exists" in again.output + again.stderr


def test_too_few_objects_are_an_error_that_names_the_folder(tmp_path: Path) -> None:
    data = read_captioned([tmp_path], "train", 16)
    with pytest.raises(DatasetError, match=f"{tmp_path.name}: 0 training objects.*at least two"):
        PairSampler(data, 4, BACKGROUND, 0)


def test_a_place_that_cannot_hold_the_encoder_is_refused_before_training(tmp_path: Path) -> None:
    contrastive.check_place(tmp_path / "new" / "deep")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        contrastive.check_place(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be written"):
        contrastive.check_place(tmp_path / "file" / "below")
