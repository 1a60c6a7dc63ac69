"""A decoder beside a linear codec: files, what it adds, its training and its recipe."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from recipe_effects import Runs, Table, changes, places, rises
from safetensors.torch import load_file, save_file
from tiny_prior import edit_json
from tiny_shards import assert_resumes, tiny_recipe
from torch import Tensor
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.errors import DatasetError, PriorError, UsageError
from dream3d.prior.codec import load_codec
from dream3d.prior.decoder import DecodedPatchPCA, decoder_network, save_decoder
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.folder import STOCK_WEIGHTS
from dream3d.prior.layout import files_of
from dream3d.training.data import Batch
from dream3d.training.objective import error_of_x0, image_errors
from dream3d.training.recipe import TrainingRecipe
from dream3d.training.start import find_start
from dream3d.training.tasks.decoder import DecoderTask, make_trainer

SIZES: dict[str, Any] = {
    "block_out_channels": (4, 8), "pixel_shuffle": 2, "layers_per_block": 1, "norm_num_groups": 2,
}  # fmt: skip


def recipe_in(folder: Path, **changes: Any) -> TrainingRecipe:
    decoder = {**SIZES, **changes.pop("decoder", {})}
    return tiny_recipe(folder, task="decoder", decoder=decoder, **changes)


def write_decoder(prior: Path) -> None:
    """A decoder with random weights."""
    torch.manual_seed(0)
    network = decoder_network(SIZES, 4, 4)
    save_decoder(SIZES, network.state_dict(), prior / "decoder")


# The codec.


def test_a_decoder_adds_to_what_the_linear_codec_draws(tmp_path: Path) -> None:
    recipe_in(tmp_path)
    linear = load_codec(tmp_path / "prior")
    write_decoder(tmp_path / "prior")
    codec = load_codec(tmp_path / "prior")
    assert isinstance(codec, DecodedPatchPCA)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(codec.encode(images), linear.encode(images))
    latents = torch.randn(2, 4, 4, 4)
    added = codec.network(latents)
    assert added.shape == (2, 12, 8, 8)  # four pixels of three channels at each of 8 x 8 places
    difference = codec.decode(latents) - linear.decode(latents)
    assert difference.shape == (2, 3, 16, 16)
    for row, column in np.ndindex(2, 2):  # by hand: which channel a pixel comes from
        torch.testing.assert_close(difference[:, :, row::2, column::2], added[:, row * 2 + column :: 4])


def test_the_decoder_counts_as_a_file_of_the_prior(tmp_path: Path) -> None:
    recipe_in(tmp_path)
    prior = tmp_path / "prior"
    before = DiffusionPrior(prior).digest
    write_decoder(prior)
    assert "decoder/config.json" in files_of(prior)
    assert f"decoder/{STOCK_WEIGHTS}" in files_of(prior)
    assert DiffusionPrior(prior).digest != before
    find_start(str(prior)).freeze(tmp_path / "frozen")
    assert (tmp_path / "frozen/decoder" / STOCK_WEIGHTS).read_bytes() == (
        prior / "decoder" / STOCK_WEIGHTS
    ).read_bytes()
    (prior / "decoder" / STOCK_WEIGHTS).unlink()
    with pytest.raises(PriorError, match="lacks decoder/"):
        DiffusionPrior(prior)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pixel_shuffle": 4}, "2 levels and pixel_shuffle 4 enlarge 8 times, not 4"),
        ({"block_out_channels": [4]}, "enlarge 2 times"),
        ({"block_out_channels": [4, 10]}, "has shape"),
        ({"norm_num_groups": 3}, "does not describe a network"),
        ({"layers_per_block": 0}, "layers_per_block"),
        ({"pixel_shuffle": None}, "pixel_shuffle"),
        ({"layers_per_block": 2}, "lacks the tensor"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    recipe_in(tmp_path)
    write_decoder(tmp_path / "prior")
    edit_json(tmp_path / "prior/decoder/config.json", **change)
    with pytest.raises(PriorError, match=said):
        load_codec(tmp_path / "prior")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    recipe_in(tmp_path)
    write_decoder(tmp_path / "prior")
    path = tmp_path / "prior/decoder" / STOCK_WEIGHTS
    tensors = load_file(path)
    tensors["conv_in.bias"][0] = value
    save_file(tensors, path)
    with pytest.raises(PriorError, match="not finite"):
        load_codec(tmp_path / "prior")


# The loss, by hand.


def test_an_error_of_the_output_is_an_error_of_the_clean_image() -> None:
    """x0 = alpha x_t - sigma v: at a variance of .64 an error of 1 in v is one of -.6; in the noise, of -.6 / .8."""
    error, variance = torch.ones(1, 1, 1, 1), torch.tensor([0.64])
    assert error_of_x0(error, variance, "v_prediction").item() == pytest.approx(-0.6)
    assert error_of_x0(error, variance, "epsilon").item() == pytest.approx(-0.75)


def test_errors_of_images_by_hand() -> None:
    truth, images = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    pixels, edges = image_errors(images, truth)
    assert pixels.item() == 0.25
    assert edges.item() == 0.5  # one of two differences in each direction is 1
    shifted, still = image_errors(truth + 0.3, truth)
    assert shifted.item() == pytest.approx(0.3)
    assert still.item() == 0.0


# Training.


def test_before_the_first_step_nothing_is_added(tmp_path: Path) -> None:
    task = make_trainer(recipe_in(tmp_path), tmp_path / "run").task
    latents = torch.randn(1, 4, 4, 4)
    torch.testing.assert_close(task.codec.decode(latents), task.linear.decode(latents))
    errors = task.heldout_errors()
    assert list(errors) == [0, 100, 300, 500]
    assert all(linear == pytest.approx(decoder) for linear, decoder in errors.values())


def test_without_noise_and_predictions_the_loss_is_what_the_codec_loses(tmp_path: Path) -> None:
    task = make_trainer(recipe_in(tmp_path, decoder={"predicted": 0.0, "noise": 0.0}), tmp_path / "run").task
    batch = task.draw(0)
    loss = task.loss(batch)
    lost = (task.linear.decode(task.linear.encode(batch.images)) - batch.images).abs().mean()
    assert loss.terms["pixels"].item() == pytest.approx(lost.item(), rel=1e-5)


def test_training_draws_better_than_the_linear_codec(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, steps=80, optimizer={"rate": 1e-2, "ema": 0.9}, every={"checkpoint": 0, "heldout": 40})
    trainer = make_trainer(recipe, tmp_path / "run")
    network = {name: value.clone() for name, value in trainer.task.unet.state_dict().items()}
    trainer.run()
    assert all(torch.equal(network[name], value) for name, value in trainer.task.unet.state_dict().items())
    for linear, decoder in trainer.task.heldout_errors().values():
        assert decoder < 0.8 * linear
    rows = [line.split(",") for line in (tmp_path / "run/heldout.csv").read_text().splitlines()]
    assert rows[0] == ["step", "timestep", "linear", "decoder"]
    assert [row[1] for row in rows[1:]] == ["0", "100", "300", "500"]


def test_the_result_is_the_start_with_a_decoder(tmp_path: Path) -> None:
    result = make_trainer(recipe_in(tmp_path), tmp_path / "run").run().result
    for name in ("prior.json", "codec/codec.safetensors", f"unet/{STOCK_WEIGHTS}"):
        assert (result / name).read_bytes() == (tmp_path / "prior" / name).read_bytes()
    assert isinstance(DiffusionPrior(result).codec, DecodedPatchPCA)
    # It goes on from there: eight bits are all that is lost.
    task = make_trainer(recipe_in(tmp_path, start=str(result)), tmp_path / "second").task
    latents = torch.randn(1, 4, 4, 4)
    torch.testing.assert_close(task.codec.decode(latents), load_codec(result).decode(latents))
    other = make_trainer(recipe_in(tmp_path, start=str(result), decoder={"norm_num_groups": 4}), tmp_path / "third")
    torch.testing.assert_close(other.task.codec.decode(latents), load_codec(result).decode(latents), atol=1, rtol=1)


def test_a_stopped_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    assert_resumes(make_trainer, recipe_in(tmp_path), tmp_path)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="enlarge 8 times, not 4"):
        make_trainer(recipe_in(tmp_path, decoder={"pixel_shuffle": 4}), tmp_path / "run")
    with pytest.raises(UsageError, match=r'task = "decoder" goes on with a prior that is there; leave \[network\] out'):
        recipe_in(tmp_path, network={"layers_per_block": 1})
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DatasetError, match=r"holds no train-00000\.tar"):
        make_trainer(recipe_in(tmp_path), tmp_path / "run")


def test_the_command_trains_a_decoder(tmp_path: Path) -> None:
    recipe_in(tmp_path)
    text = f"""
    task = "decoder"
    start = "{tmp_path}/prior"
    steps = 2
    [data]
    views = "{tmp_path}/data"
    [batch]
    objects = 1
    views = 2
    [decoder]
    block_out_channels = [4, 8]
    pixel_shuffle = 2
    norm_num_groups = 2
    """
    (tmp_path / "recipe.toml").write_text(text)
    command = ["train", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run/prior/decoder" / STOCK_WEIGHTS).is_file()


# Every field of its recipe has an effect.


@dataclass(frozen=True)
class Trace:
    """What a short training did."""

    weights: bytes
    """The decoder's file."""
    losses: list[dict[str, float]]
    latents: Tensor
    """Decoded in the first step."""


def train(recipe: TrainingRecipe, out: Path) -> Trace:
    trainer = make_trainer(recipe, out)
    task: DecoderTask = trainer.task
    seen: list[Tensor] = []
    hook = task.decoder.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0].detach()))
    batch: Batch = task.draw(0)
    losses = [{name: term.item() for name, term in task.loss(batch).terms.items()}]
    hook.remove()
    result = trainer.run().result
    return Trace((result / "decoder" / STOCK_WEIGHTS).read_bytes(), losses, seen[0])


TABLE: Table[Trace] = {
    "decoder.block_out_channels": rises(lambda run: len(run.weights), (8, 16)),
    "decoder.layers_per_block": rises(lambda run: len(run.weights), 2),
    "decoder.norm_num_groups": changes(lambda run: run.weights, 4),
    "decoder.predicted": changes(lambda run: run.latents, 0.0),
    "decoder.strongest": changes(lambda run: run.latents, 0.1),
    "decoder.noise": changes(lambda run: run.latents, 2.0, {"decoder.predicted": 0.5}),
    "decoder.edges": rises(lambda run: run.losses[0]["edges"], 3.0),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainingRecipe:
    return recipe_in(tmp_path_factory.mktemp("data"), steps=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs[TrainingRecipe, Trace]]:
    folder = tmp_path_factory.mktemp("training")
    AcceleratorState._reset_state(True)
    yield Runs(lambda recipe: train(recipe, folder / str(len(list(folder.iterdir())))))
    AcceleratorState._reset_state(True)


def test_every_field_has_an_entry() -> None:
    own = {place for place in places(TrainingRecipe) if place.startswith("decoder.")}
    assert own - set(TABLE) == {"decoder.pixel_shuffle"}  # one value alone fits the codec: see what does not fit


@pytest.mark.parametrize("place", TABLE)
def test_a_field_has_its_effect(base: TrainingRecipe, runs: Runs[TrainingRecipe, Trace], place: str) -> None:
    runs.check(base, place, TABLE[place])
