"""Training of an image adapter: batches of both modes, what moves, what is written, and exact resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_adapter import write_tiny_adapter, write_tiny_encoder
from tiny_shards import assert_resumes, tiny_image, tiny_object, tiny_recipe
from torch import Tensor
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.dataset.shards import image_members, shard_name, write_tar
from dream3d.errors import DatasetError, PriorError, UsageError
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.training.augment import homography, jitter, rotation, simulated, warp, zoom
from dream3d.training.data import Sampler
from dream3d.training.guided_data import GuidedSampler
from dream3d.training.recipe import TrainingRecipe
from dream3d.training.retrieval_recipe import RetrievalRecipe
from dream3d.training.tasks.retrieval import RetrievalTask, make_trainer

SIZES = {"dim": 16, "depth": 1, "heads": 2, "head_dim": 4, "queries": 3}


def recipe_in(folder: Path, **changes: Any) -> TrainingRecipe:
    retrieval = {"pictures": 2, **SIZES, **changes.pop("retrieval", {})}
    recipe = tiny_recipe(folder, **{"task": "retrieval", "retrieval": retrieval, **changes})
    if not (folder / "prior/image_encoder").exists():
        write_tiny_encoder(folder / "prior")
        pictures = [tiny_image(f"q{n}", "a chair" if n < 3 else "a vase", n) for n in range(6)]
        write_tar(folder / "data" / shard_name("images", 0), [m for one in pictures for m in image_members(one)])
    return recipe


@pytest.fixture
def task(tmp_path: Path) -> RetrievalTask:
    return make_trainer(recipe_in(tmp_path), tmp_path / "run").task


# Pictures out of renders, by hand.


def corner(value: float = 1.0) -> Tensor:
    """(1, 1, 2, 2) with one pixel, the upper left."""
    image = torch.zeros(1, 1, 2, 2)
    image[0, 0, 0, 0] = value
    return image


def test_a_quarter_turn_moves_the_corner() -> None:
    turned = warp(corner(), rotation(torch.tensor([90.0])))
    torch.testing.assert_close(turned[0, 0], torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    torch.testing.assert_close(warp(corner(), rotation(torch.zeros(1))), corner())


def test_corners_that_stay_are_no_perspective() -> None:
    corners = torch.tensor([[[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]])
    torch.testing.assert_close(homography(corners), torch.eye(3)[None])
    # The unit square's corners to a trapezium; each arrives where it should.
    moved = torch.tensor([[[-0.5, -1.0], [0.5, -1.0], [1.0, 1.0], [-1.0, 1.0]]])
    points = torch.cat([corners[0], torch.ones(4, 1)], 1) @ homography(moved)[0].t()
    torch.testing.assert_close(points[:, :2] / points[:, 2:], moved[0])


def test_a_zoom_by_two_shows_the_middle() -> None:
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 1:3, 1:3] = 1
    assert warp(image, zoom(torch.tensor([2.0]), torch.zeros(1, 2)))[0, 0, 1:3, 1:3].min() == 1
    shifted = warp(image, zoom(torch.ones(1), torch.tensor([[0.25, 0.0]])))  # a pixel to the right
    torch.testing.assert_close(shifted[0, 0, 1], torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_colours_change_as_said() -> None:
    one, half, none = torch.ones(1), torch.full((1,), 0.5), torch.zeros(1)
    picture = torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(jitter(picture, one, one, one), picture)
    torch.testing.assert_close(jitter(picture, half, one, one), picture / 2)
    luma = 0.299 * 0.8 + 0.587 * 0.4 + 0.114 * 0.2
    torch.testing.assert_close(jitter(picture, one, one, none), torch.full((1, 3, 2, 2), luma))
    # Half the contrast of a plain picture: half-way to its own grey.
    torch.testing.assert_close(jitter(picture, one, half, one), (picture + luma) / 2)


def test_without_strength_only_the_ground_changes() -> None:
    rgba = torch.zeros(5, 4, 8, 8)
    rgba[:, :, 2:6, 2:6] = torch.tensor([0.2, 0.4, 0.6, 1.0])[:, None, None]
    drawn = simulated(rgba, 0.0, torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn[:, :, 3:5, 3:5], rgba[:, :3, 3:5, 3:5])
    assert len({tuple(ground.tolist()) for ground in drawn[:, :, 0, 0]}) > 1
    again = simulated(rgba, 1.0, torch.Generator().manual_seed(1))
    assert not torch.allclose(again, drawn)
    assert torch.equal(again, simulated(rgba, 1.0, torch.Generator().manual_seed(1)))


# Batches.


def sampler(recipe: RetrievalRecipe, **changes: Any) -> GuidedSampler:
    objects = [tiny_object("o1", "red chair", seed=1), tiny_object("o2", "red chair", seed=2)]
    images = changes.get("images", [tiny_image(f"p{n}", "a vase", n) for n in range(4)])
    inner = Sampler(objects, images, (0.2, 0.4, 0.6), views=2, suffix=", 3d asset", dropout=0.0)
    return GuidedSampler(inner, recipe, 16)


def test_a_batch_of_objects_has_other_renders_of_them() -> None:
    """Without augmentation the colour in the middle tells which object a picture shows."""
    guided = sampler(RetrievalRecipe(pictures=3, augment=0.0, other_instance=0.0, dropout=0.0))
    batch = guided.draw_objects(4, np.random.default_rng(0))
    assert batch.mode == "3d"
    assert batch.pictures.shape == (4, 3, 3, 16, 16)
    assert batch.targets.images.shape == (8, 3, 16, 16)
    assert all(caption.endswith(", 3d asset") for caption in batch.targets.captions)
    middle = (batch.targets.images[::2, :, 8, 8] + 1) / 2
    for group, colour in zip(batch.pictures, middle, strict=True):
        torch.testing.assert_close(group[:, :, 8, 8], colour.expand(3, 3), atol=0.02, rtol=0)


def test_another_instance_of_the_name_may_be_shown() -> None:
    guided = sampler(RetrievalRecipe(pictures=2, augment=0.0, other_instance=1.0, dropout=0.0))
    batch = guided.draw_objects(4, np.random.default_rng(0))
    middle = (batch.targets.images[::2, :, 8, 8] + 1) / 2
    assert all((group[:, :, 8, 8] - one).abs().max() > 0.02 for group, one in zip(batch.pictures, middle, strict=True))


def test_a_batch_of_images_holds_out_one_of_the_concept() -> None:
    guided = sampler(RetrievalRecipe(pictures=3, dropout=0.0))
    batch = guided.draw_images(5, np.random.default_rng(0))
    assert (batch.mode, batch.targets.cameras) == ("2d", None)
    assert batch.targets.captions == ["a vase"] * 5  # without suffix
    for target, shown in zip((batch.targets.images + 1) / 2, batch.pictures, strict=True):
        assert all((target - one).abs().max() > 0.1 for one in shown)
        assert len({float(one.sum()) for one in shown}) == 3


def test_what_is_blank_has_no_caption() -> None:
    batch = sampler(RetrievalRecipe(dropout=1.0)).draw_objects(2, np.random.default_rng(0))
    assert batch.blank.all()
    assert batch.targets.captions == ["", ""]


def test_a_caption_may_be_left_out_beside_pictures() -> None:
    """The pictures stay: what has no pictures is blank, and that is drawn by itself."""
    recipe = RetrievalRecipe(dropout=0.0, text_dropout=1.0)
    for batch in (
        sampler(recipe).draw_objects(3, np.random.default_rng(0)),
        sampler(recipe).draw_images(3, np.random.default_rng(0)),
    ):
        assert batch.targets.captions == [""] * 3
        assert not batch.blank.any()


def test_images_without_a_second_of_their_concept_are_refused() -> None:
    single = [tiny_image(f"p{n}", f"thing {n}", n) for n in range(3)]
    with pytest.raises(DatasetError, match=r"none of the 3 captions in data.images has two pictures"):
        sampler(RetrievalRecipe(), images=single)
    sampler(RetrievalRecipe(modes="3d"), images=single)


# Training.


def test_modes_take_turns(task: RetrievalTask) -> None:
    assert [task.draw(step).mode for step in range(4)] == ["3d", "2d", "3d", "2d"]
    for modes in ("3d", "2d"):
        task.recipe = dataclasses.replace(
            task.recipe, retrieval=dataclasses.replace(task.recipe.retrieval, modes=modes)
        )
        assert {task.draw(step).mode for step in range(3)} == {modes}


def test_only_resampler_and_projections_train(tmp_path: Path) -> None:
    trainer = make_trainer(recipe_in(tmp_path, batch={"caption_dropout": 0.0}), tmp_path / "run")
    task = trainer.task
    network = {name: value.clone() for name, value in task.unet.state_dict().items()}
    before = {name: value.detach().clone() for name, value in task.trained.parameters.items()}
    trainer.run()
    assert all(torch.equal(network[name], value) for name, value in task.unet.state_dict().items())
    assert not any(value.requires_grad for value in task.unet.parameters())
    still = [name for name, value in task.trained.parameters.items() if torch.equal(before[name], value)]
    assert still == []
    assert all(name.startswith(("resampler.", "layers.")) for name in before)


def test_the_result_is_the_start_with_an_adapter(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, retrieval={"text_weight": 0.25})
    result = make_trainer(recipe, tmp_path / "run").run().result
    for name in ("prior.json", "unet/diffusion_pytorch_model.safetensors", "image_encoder/model.safetensors"):
        assert (result / name).read_bytes() == (tmp_path / "prior" / name).read_bytes()
    prior = DiffusionPrior(result)
    adapter = prior.image_adapter
    assert adapter.module.config.weight_sum == 1.25
    assert adapter.module.config.positions == 16
    assert adapter.licence == "CC0-1.0"
    assert adapter.tokens(torch.rand(2, 3, 16, 16)).shape == (1, 6, 12)
    assert "red chair" in (result / "image_adapter/attribution.csv").read_text()
    assert prior.digest == DiffusionPrior(tmp_path / "prior").digest


def test_a_stopped_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    assert_resumes(make_trainer, recipe_in(tmp_path), tmp_path)


def test_held_out_losses_are_by_text_alone_and_with_pictures(tmp_path: Path) -> None:
    trainer = make_trainer(recipe_in(tmp_path, every={"heldout": 2}), tmp_path / "run")
    before = trainer.task.heldout_losses()
    trainer.run()
    rows = [line.split(",") for line in (tmp_path / "run/heldout.csv").read_text().splitlines()]
    assert rows[0] == ["step", "timestep", "text", "pictures"]
    assert [row[0] for row in rows[1:]] == ["2"] * len(before) + ["4"] * len(before)
    for row, (text, pictures) in zip(rows[1:], list(before.values()) * 2, strict=True):
        assert float(row[2]) == pytest.approx(text, rel=1e-4)  # the start is frozen
        assert float(row[3]) != pytest.approx(pictures, rel=1e-6)


def test_training_goes_on_from_the_starts_adapter(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    write_tiny_adapter(tmp_path / "prior")
    task = make_trainer(recipe, tmp_path / "run").task
    assert task.adapter.config.dim == 12
    kept = DiffusionPrior(tmp_path / "prior").image_adapter.module.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in task.adapter.state_dict().items())
    assert all(value.requires_grad for value in task.adapter.parameters())


def test_faster_layers_give_nearly_the_same_loss(tmp_path: Path) -> None:
    plain = make_trainer(recipe_in(tmp_path), tmp_path / "one").task
    fast = make_trainer(recipe_in(tmp_path, products="on"), tmp_path / "two").task
    assert (plain.per_object, fast.per_object) == (False, True)
    for step in range(2):
        losses = [one.loss(one.draw(step)).total for one in (plain, fast)]
        assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.05)
    losses[1].backward()
    assert all(value.grad is not None for value in fast.trained.parameters.values())


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    recipe_in(tmp_path)
    with pytest.raises(UsageError, match=r'retrieval.modes is "both" and data.images is empty'):
        recipe_in(tmp_path, data={"images": ""})
    with pytest.raises(UsageError, match=r"leave \[network\] out"):
        recipe_in(tmp_path, network={"layers_per_block": 1})
    (tmp_path / "prior/image_encoder/config.json").unlink()
    with pytest.raises(PriorError, match="has no image encoder"):
        make_trainer(recipe_in(tmp_path), tmp_path / "run")


def test_the_command_trains_an_adapter(tmp_path: Path) -> None:
    recipe_in(tmp_path)
    text = f"""
    task = "retrieval"
    start = "{tmp_path}/prior"
    steps = 2
    products = "off"
    [data]
    views = "{tmp_path}/data"
    images = "{tmp_path}/data"
    [batch]
    objects = 1
    images = 2
    views = 2
    [retrieval]
    pictures = 2
    dim = 16
    heads = 2
    head_dim = 4
    """
    (tmp_path / "recipe.toml").write_text(text)
    command = ["train", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path}/run/prior" in result.stdout
    assert (tmp_path / "run/prior/image_adapter/model.safetensors").is_file()
