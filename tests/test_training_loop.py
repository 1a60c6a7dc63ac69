"""The training loop: what it writes, and that it goes on exactly where it stopped."""

from __future__ import annotations

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_shards import tiny_recipe
from typer.testing import CliRunner

from dream3d.cameras import orbit
from dream3d.cli.app import app
from dream3d.errors import CheckpointError, DatasetError, TrainingError, UsageError
from dream3d.prior.sampling import SamplingRecipe, sample_views
from dream3d.training import state as checkpoint
from dream3d.training.events import StepEvent
from dream3d.training.recipe import TrainingRecipe
from dream3d.training.tasks.base import learning_rate
from dream3d.training.tasks.multiview import MultiviewTask, make_trainer, train
from dream3d.weights.loading import load_prior


class Killed(Exception):
    """Stands for the end of the process."""


def final_tensors(out: Path) -> dict[str, torch.Tensor]:
    path = checkpoint.latest(out / "checkpoints")
    assert path is not None
    return load_file(path)


def read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def kill_at(step: int, recipe: TrainingRecipe, out: Path) -> None:
    def observer(event: StepEvent) -> None:
        if event.step == step:
            raise Killed

    with pytest.raises(Killed):
        train(recipe, out, observer=observer)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRecipe, Path]:
    folder = tmp_path_factory.mktemp("finished")
    recipe = tiny_recipe(folder, every={"heldout": 3, "samples": 4}, sample_prompts=["a chair"])
    train(recipe, folder / "run")
    return recipe, folder / "run"


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_killing_at_any_step_and_resuming_gives_the_weights_of_never_killing(
    finished: tuple[TrainingRecipe, Path], tmp_path: Path, step: int
) -> None:
    recipe, whole = finished
    # When files are written does not change the weights.
    recipe = dataclasses.replace(recipe, every=dataclasses.replace(recipe.every, samples=0, heldout=0))
    kill_at(step, recipe, tmp_path / "run")
    assert train(recipe, tmp_path / "run").step == 6
    assert_same(final_tensors(tmp_path / "run"), final_tensors(whole))
    rows = read_rows(tmp_path / "run/metrics.csv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize(
    "changes",
    [{"products": "on"}, {"products": "winograd"}, {"attention": "temporal"}],
    ids=lambda changes: "".join(changes.values()),
)
def test_other_layers_go_on_exactly_too(tmp_path: Path, changes: dict[str, str]) -> None:
    recipe = tiny_recipe(tmp_path, steps=4, **changes)
    train(recipe, tmp_path / "whole")
    kill_at(3, recipe, tmp_path / "run")
    train(recipe, tmp_path / "run")
    assert_same(final_tensors(tmp_path / "run"), final_tensors(tmp_path / "whole"))


def test_a_run_contains_both_modes_and_logs_each_step(finished: tuple[TrainingRecipe, Path]) -> None:
    rows = read_rows(finished[1] / "metrics.csv")
    assert {row["mode"] for row in rows} == {"3d", "image"}
    assert all(float(row["loss"]) > 0 and float(row["norm"]) > 0 for row in rows)


def test_held_out_losses_are_logged_by_noise_level(finished: tuple[TrainingRecipe, Path]) -> None:
    rows = read_rows(finished[1] / "heldout.csv")
    assert [row["timestep"] for row in rows if row["step"] == "3"] == ["100", "300", "500", "700", "850", "950", "999"]
    assert all(float(row["loss"]) > 0 for row in rows)


def test_the_prior_that_comes_out_samples_views_and_says_what_it_was_made_of(
    finished: tuple[TrainingRecipe, Path],
) -> None:
    out = finished[1]
    prior = load_prior(str(out / "prior"))
    assert prior.name == "tiny-trained"
    assert prior.views == 2
    text = prior.encode_prompt("red chair", "")
    assert sample_views(prior, text, orbit(2), SamplingRecipe(steps=2), seed=0).shape == (2, 3, 16, 16)
    average = {name: value for name, value in final_tensors(out).items() if name.startswith("ema.")}
    for name, value in prior.unet.state_dict().items():
        assert torch.equal(value, average[f"ema.{name}"].half().float()), name
    assert "painter" in (out / "prior/attribution.csv").read_text()
    assert sorted(path.name for path in (out / "samples").iterdir()) == ["step-00000004.png", "step-00000006.png"]


def test_only_the_newest_checkpoints_are_kept(finished: tuple[TrainingRecipe, Path]) -> None:
    names = sorted(path.name for path in (finished[1] / "checkpoints").iterdir())
    assert names == ["step-00000004.safetensors", "step-00000006.safetensors"]


def test_a_changed_recipe_is_refused_with_what_differs(finished: tuple[TrainingRecipe, Path]) -> None:
    recipe, out = finished
    changed = dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, rate=0.5))
    with pytest.raises(TrainingError, match=r"optimizer\.rate was 0\.001 and is 0\.5"):
        make_trainer(changed, out)


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = checkpoint.Checkpoint(3, 1.0, {}, {}, {"unet.a": torch.ones(1)})
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    path = checkpoint.save(tmp_path, state)
    monkeypatch.setattr(checkpoint, "VERSION", 1)
    with pytest.raises(CheckpointError, match="is of version 2"):
        checkpoint.load(path, {})


def test_a_checkpoint_from_before_a_setting_existed_followed_its_default(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path).to_dict()
    older = {**recipe, "optimizer": {k: v for k, v in recipe["optimizer"].items() if k != "cosine"}}
    path = checkpoint.save(tmp_path / "c", checkpoint.Checkpoint(3, 1.0, older, {}, {"unet.a": torch.ones(1)}))
    assert checkpoint.load(path, recipe, MultiviewTask.defaults).step == 3
    with pytest.raises(TrainingError, match=r"optimizer\.cosine was 0 and is 9"):
        checkpoint.load(path, {**recipe, "optimizer": {**recipe["optimizer"], "cosine": 9}}, MultiviewTask.defaults)


def test_a_truncated_checkpoint_is_refused_with_its_name(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, checkpoint.Checkpoint(3, 1.0, {}, {}, {"unet.a": torch.ones(100)}))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=r"step-00000003\.safetensors is damaged"):
        checkpoint.load(path, {})


def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, every={"checkpoint": 0})

    def observer(event: StepEvent) -> None:
        if event.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    outcome = train(recipe, tmp_path / "run", observer=observer)
    assert (outcome.step, outcome.stopped_by) == (3, signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    assert make_trainer(recipe, tmp_path / "run").step == 3


@pytest.mark.slow
def test_a_process_killed_for_good_goes_on_to_the_same_weights(
    finished: tuple[TrainingRecipe, Path], tmp_path: Path
) -> None:
    recipe, whole = finished
    recipe_file = tmp_path / "tiny.toml"
    data, batch = recipe.data, recipe.batch
    recipe_file.write_text(
        f'name = "tiny-trained"\nstart = "{recipe.start}"\nsteps = 6\nproducts = "off"\n'
        f'[data]\nviews = "{data.views}"\nimages = "{data.images}"\nbackground = [0.2, 0.4, 0.6]\n'
        f"[batch]\nobjects = 2\nimages = 3\nviews = 2\nimage_mode_fraction = {batch.image_mode_fraction}\n"
        'prompt_suffix = ""\n[optimizer]\nrate = 1e-3\nwarmup = 2\n[every]\ncheckpoint = 1\nsamples = 0\nheldout = 0\n'
    )
    command = ["train", str(recipe_file), "--device", "cpu", "--out", str(tmp_path / "run")]
    process = subprocess.Popen([sys.executable, "-m", "dream3d", *command], stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while checkpoint.latest(tmp_path / "run/checkpoints") is None and time.monotonic() < limit:
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "wrote" in done.stdout
    assert_same(final_tensors(tmp_path / "run"), final_tensors(whole))


def test_the_loss_falls_on_a_toy_set(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        tmp_path,
        steps=120,
        data={"images": ""},
        batch={"objects": 4, "image_mode_fraction": 0.0},
        optimizer={"rate": 1e-2, "warmup": 5},
        every={"checkpoint": 0},
    )
    losses: list[float] = []
    train(recipe, tmp_path / "run", observer=lambda event: losses.append(event.loss))
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])


def test_image_mode_leaves_the_camera_network_without_gradient(tmp_path: Path) -> None:
    for fraction, expected in ((1.0, False), (0.0, True)):
        trainer = make_trainer(
            tiny_recipe(tmp_path, batch={"image_mode_fraction": fraction}), tmp_path / f"run{fraction}"
        )
        event = trainer.train_step()
        assert event.mode == ("3d" if expected else "image")
        gradients = [p.grad is not None for p in trainer.task.unet.class_embedding.parameters()]
        assert gradients == [expected] * 4


def test_the_rate_warms_up_and_falls_to_zero(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, steps=100, optimizer={"rate": 1.0, "warmup": 4})
    assert learning_rate(recipe, 0) == 0.25
    assert learning_rate(recipe, 50) == pytest.approx(0.5)
    assert learning_rate(recipe, 100) == 0
    longer = tiny_recipe(tmp_path, steps=100, optimizer={"rate": 1.0, "warmup": 4, "cosine": 200})
    assert learning_rate(longer, 100) == pytest.approx(0.5)


@pytest.mark.parametrize(("attention", "extra"), [("2d", 0), ("temporal", 5)])
def test_other_attention_trains_and_loads_as_a_prior(tmp_path: Path, attention: str, extra: int) -> None:
    recipe = tiny_recipe(tmp_path, steps=2, attention=attention, batch={"image_mode_fraction": 0.0})
    train(recipe, tmp_path / "run")
    prior = load_prior(str(tmp_path / "run/prior"))
    assert prior.settings.attention == attention
    assert (sum(".processor." in name for name in prior.unet.state_dict()) > 0) == bool(extra)
    views = sample_views(prior, prior.encode_prompt("a tree", ""), orbit(2), SamplingRecipe(steps=2), seed=0)
    assert views.isfinite().all()


def test_a_network_from_scratch_takes_the_sizes_of_codec_and_text(tmp_path: Path) -> None:
    network = {
        "block_out_channels": [4, 8],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "attention_head_dim": 1,
    }
    trainer = make_trainer(tiny_recipe(tmp_path, network=network), tmp_path / "run")
    assert trainer.task.unet.config.cross_attention_dim == 12
    assert trainer.task.unet.config.block_out_channels == [4, 8]
    assert trainer.train_step().loss > 0
    with pytest.raises(UsageError, match=r"unknown recipe key 'network\.depth'"):
        make_trainer(tiny_recipe(tmp_path, network={"depth": 3}), tmp_path / "other")


def test_data_of_another_size_or_without_the_concepts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the prior takes 32"):
        make_trainer(tiny_recipe(tmp_path, image_size=32), tmp_path / "run")
    with pytest.raises(DatasetError, match="there are green tree, red chair"):
        make_trainer(tiny_recipe(tmp_path, data={"concepts": ["boat"]}), tmp_path / "run")
