"""Training of a network together with its image adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_retrieval import recipe_in as adapter_recipe_in
from tiny_shards import assert_resumes

from dream3d.errors import PriorError, UsageError
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.training.recipe import TrainingRecipe
from dream3d.training.tasks.joint import make_trainer
from dream3d.training.tasks.retrieval import make_trainer as make_adapter_trainer


def recipe_in(folder: Path, **changes: Any) -> TrainingRecipe:
    return adapter_recipe_in(folder, task="joint", **changes)


def test_steps_are_of_four_kinds(tmp_path: Path) -> None:
    task = make_trainer(recipe_in(tmp_path), tmp_path / "run").task
    modes = [task.draw(step).mode for step in range(200)]
    assert set(modes) == {"3d", "2d", "text-3d", "text-2d"}
    assert sum(mode.startswith("text") for mode in modes) == pytest.approx(100, abs=25)
    assert sum(mode.endswith("2d") for mode in modes) == pytest.approx(80, abs=25)
    again = task.draw(3)
    assert again.mode == modes[3]
    assert torch.equal(again.targets.images, task.draw(3).targets.images)


@pytest.mark.parametrize(("share", "expected"), [(1.0, {"text-3d"}), (0.0, {"3d"})])
def test_the_shares_are_the_recipes(tmp_path: Path, share: float, expected: set[str]) -> None:
    recipe = recipe_in(
        tmp_path,
        retrieval={"text_alone": share, "modes": "3d"},
        batch={"image_mode_fraction": 0.0},
        data={"images": ""},
    )
    task = make_trainer(recipe, tmp_path / "run").task
    assert {task.draw(step).mode for step in range(10)} == expected


def test_both_learn(tmp_path: Path) -> None:
    trainer = make_trainer(recipe_in(tmp_path, batch={"caption_dropout": 0.0}, steps=8), tmp_path / "run")
    parameters = trainer.task.trained.parameters
    before = {name: value.detach().clone() for name, value in parameters.items()}
    assert {name.split(".")[0] for name in before} == {"unet", "adapter"}
    trainer.run()
    assert [name for name, value in parameters.items() if torch.equal(before[name], value)] == []


def test_a_step_by_the_text_alone_is_the_priors_own(tmp_path: Path) -> None:
    """The adapter has no part in it, and the network has a gradient."""
    recipe = recipe_in(tmp_path, retrieval={"text_alone": 1.0})
    task = make_trainer(recipe, tmp_path / "run").task
    task.loss(task.draw(0)).total.backward()
    assert all(value.grad is None for value in task.adapter.parameters())
    assert any(value.grad is not None for value in task.unet.parameters())


def test_the_result_draws_by_text_and_by_pictures(tmp_path: Path) -> None:
    result = make_trainer(recipe_in(tmp_path, every={"samples": 3}), tmp_path / "run").run().result
    prior = DiffusionPrior(result)
    assert prior.image_adapter.tokens(torch.rand(2, 3, 16, 16)).shape == (1, 6, 12)
    assert prior.digest != DiffusionPrior(tmp_path / "prior").digest
    facts = json.loads((result / "prior.json").read_text())
    assert (facts["name"], facts["iterations"]) == ("tiny-trained", 6)
    assert facts["names"] == ["green tree", "red chair"]
    sheets = sorted(path.name for path in (tmp_path / "run/samples").iterdir())
    assert sheets == ["step-00000003.png", "step-00000006.png"]


def test_an_adapter_may_learn_on_alone(tmp_path: Path) -> None:
    """The result is a start for the adapter's own task, which leaves the network as it is."""
    result = make_trainer(recipe_in(tmp_path), tmp_path / "run").run().result
    recipe = adapter_recipe_in(tmp_path, start=str(result), steps=2)
    further = make_adapter_trainer(recipe, tmp_path / "further").run().result
    name = "unet/diffusion_pytorch_model.safetensors"
    assert (further / name).read_bytes() == (result / name).read_bytes()


def test_a_stopped_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    assert_resumes(make_trainer, recipe_in(tmp_path), tmp_path)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    recipe_in(tmp_path)
    with pytest.raises(UsageError, match=r"image_mode_fraction is 0.4 and data.images is empty"):
        recipe_in(tmp_path, data={"images": ""}, retrieval={"modes": "3d"})
    with pytest.raises(UsageError, match=r'retrieval.modes is "both" and data.images is empty'):
        recipe_in(tmp_path, data={"images": ""}, batch={"image_mode_fraction": 0.0})
    with pytest.raises(UsageError, match=r"leave \[network\] out"):
        recipe_in(tmp_path, network={"layers_per_block": 1})
    (tmp_path / "prior/image_encoder/config.json").unlink()
    with pytest.raises(PriorError, match="has no image encoder"):
        make_trainer(recipe_in(tmp_path), tmp_path / "run")
