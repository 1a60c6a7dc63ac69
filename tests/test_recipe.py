"""Recipes: the published numbers, schedules by hand, stretching, and refusal of nonsense."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dream3d.errors import UsageError
from dream3d.recipe.generation import GuidanceRecipe, KeyRecipe, Linear, MeshRecipe, Recipe, Stage
from dream3d.recipe.presets import PRESETS, preset

FIXTURES = json.loads((Path(__file__).parent / "data" / "mvdream_fixtures.json").read_text())


@pytest.mark.parametrize(("step", "value"), [(-5, 10), (0, 10), (25, 7.5), (50, 5), (100, 0), (500, 0)])
def test_linear_schedule_by_hand(step: int, value: float) -> None:
    assert Linear(10.0, 0.0, 100).at(step) == value


def test_a_schedule_of_no_length_is_its_end() -> None:
    assert Linear(1.0, 2.0, 0).at(0) == 2.0


@pytest.mark.parametrize("item", FIXTURES["lambda_orient"], ids=lambda item: str(item["step"]))
def test_published_orientation_weight(item: dict[str, Any]) -> None:
    shading = preset("mvdream-shading").shading
    assert shading is not None
    assert shading.orientation.at(item["step"]) == pytest.approx(item["value"])


def test_mvdream_is_the_paper() -> None:
    recipe = preset("mvdream")
    assert (recipe.steps, recipe.guidance.guidance_scale, recipe.guidance.rescale) == (10_000, 50.0, 0.5)
    assert recipe.stages == (Stage(0, 64, 2), Stage(5000, 256, 1))
    field = recipe.field
    assert (field.levels, field.features_per_level, field.log2_entries, field.base_resolution) == (16, 2, 19, 16)
    assert recipe.render.samples_per_diagonal == 512
    assert recipe.optimizer.betas == (0.9, 0.99)
    assert recipe.regularizers.sparsity == recipe.regularizers.binary == 0
    assert recipe.shading is None
    assert preset("mvdream-shading").shading is not None
    assert recipe.negative_prompt.startswith("ugly, bad anatomy, blurry")


def test_stretching_keeps_the_shape_of_every_schedule() -> None:
    short = preset("mvdream-shading").with_steps(1000)
    assert short.steps == 1000
    assert short.stages == (Stage(0, 64, 2), Stage(500, 256, 1))
    assert short.guidance.t_min == Linear(0.98, 0.02, 800)
    assert preset("mini").with_steps(30).field.sharpness == Linear(1.0, 24.0, 30)
    assert short.shading is not None
    assert (short.shading.from_step, short.shading.orientation.until_step) == (500, 500)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_json_and_can_be_one_step_long(name: str) -> None:
    recipe = preset(name).with_steps(1)
    assert recipe.steps == 1
    assert recipe.stage_at(0) is not None
    assert json.loads(json.dumps(recipe.to_dict()))["name"] == name


def test_stage_at_the_border() -> None:
    recipe = preset("mvdream")
    assert recipe.stage_at(4999).resolution == 64
    assert recipe.stage_at(5000).resolution == 256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "at least one step, got --steps 0"),
        ({"mesh": MeshRecipe(resolution=-3)}, "got --resolution -3"),
        ({"mesh": MeshRecipe(resolution=5000)}, "5000 cells a side is too large"),
        ({"stages": (Stage(5, 64, 1),)}, "must start at step 0"),
        ({"key": KeyRecipe(low=0.3, high=0.2)}, "got 0.3 and 0.2"),
        ({"key": KeyRecipe(border=0.5)}, "got 0.5"),
        ({"key": KeyRecipe(border=float("nan"))}, "got nan"),
        ({"guidance": GuidanceRecipe(dynamic_threshold=1.5)}, "percentile in \\(0, 1\\], got 1.5"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe(name="test", **changes)


def test_unknown_preset_names_the_known() -> None:
    with pytest.raises(UsageError, match="unknown preset 'ultra'; the presets are mini, mvdream, mvdream-shading"):
        preset("ultra")


def test_stretching_to_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="--steps 0"):
        preset("mini").with_steps(0)


def test_recipes_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("mini").steps = 3  # type: ignore[misc]


def test_no_torch_object_hides_in_a_recipe() -> None:
    def walk(value: object) -> None:
        assert not isinstance(value, torch.Tensor)
        if isinstance(value, dict):
            for item in value.values():
                walk(item)

    walk(preset("mini").to_dict())
