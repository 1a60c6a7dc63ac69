"""Recipes: the published numbers, schedules by hand, stretching, and refusal of nonsense."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dream3d.cameras import CameraRange
from dream3d.errors import UsageError
from dream3d.recipe.generation import GuidanceRecipe, KeyRecipe, MeshRecipe, Recipe, Stage, TargetRecipe
from dream3d.recipe.presets import PRESETS, preset
from dream3d.recipe.scene import FieldRecipe, Linear, ShadingRecipe

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
    half = preset("mini").with_steps(preset("mini").steps // 2)
    assert half.field.sharpness.until_step == preset("mini").field.sharpness.until_step // 2
    assert [target.denoise_steps for target in half.targets] == [2]
    assert [target.denoise_steps for target in preset("mini").with_steps(4600).targets] == [4]
    round_first = replace(preset("mini"), targets=(TargetRecipe(0, None), TargetRecipe(80, None), TargetRecipe(200)))
    assert round_first.with_steps(120).rounds == [0, 40]
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


def test_a_target_serves_until_the_next_is_due() -> None:
    targets = (TargetRecipe(0, None), TargetRecipe(3, 2), TargetRecipe(8))
    recipe = Recipe("x", steps=10, targets=targets)
    found = [recipe.target_at(step) for step in range(10)]
    assert [targets.index(target) for target, _ in found] == [0] * 3 + [1] * 5 + [2] * 2
    assert [at for _, at in found] == [0, 0, 0, 3, 3, 5, 5, 7, 8, 9]
    assert recipe.rounds == [0]
    assert preset("mvdream").target_at(7) == (TargetRecipe(), 7)
    assert preset("mvdream").rounds == []


def test_all_rounds_are_shown_or_else_four_targets() -> None:
    assert Recipe("x", steps=10, targets=(TargetRecipe(0, None), TargetRecipe(3, 2))).shown_targets == [0]
    assert Recipe("x", steps=40, targets=(TargetRecipe(updates=4),)).shown_targets == [0, 8, 20, 28]
    assert Recipe("x", steps=2, targets=(TargetRecipe(updates=4),)).shown_targets == [0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe("x", targets=()), "1 to 100 targets"),
        (lambda: Recipe("x", targets=(TargetRecipe(1),)), "targets in order, the first from step 0"),
        (lambda: TargetRecipe(noise=0.0), "'noise' is 0.0, which should be a number above 0 and up to 1"),
        (lambda: TargetRecipe(elevations_deg=(0.0, 91.0)), r"'elevations_deg\[1\]' is 91.0"),
        (lambda: Recipe("x", targets=(TargetRecipe(updates=2),), shading=ShadingRecipe()), "has shading"),
        (lambda: Recipe("x", steps=0), "'steps' is 0, which should be a whole number from 1 to 1000000"),
        (lambda: MeshRecipe(resolution=-3), "'resolution' is -3, which should be a whole number from 8 to 1024"),
        (lambda: MeshRecipe(resolution=5000), "'resolution' is 5000"),
        (lambda: Recipe("x", stages=(Stage(5, 64, 1),)), "the first from step 0"),
        (lambda: Recipe("x", stages=(Stage(0, 64, 1), Stage(9, 64, 1), Stage(5, 64, 1))), "stages in order"),
        (lambda: Recipe("x", stages=(Stage(0, 64, 1),) * 101), "1 to 100 stages"),
        (lambda: KeyRecipe(low=0.3, high=0.2), "got 0.3 and 0.2"),
        (lambda: KeyRecipe(border=0.5), "'border' is 0.5"),
        (lambda: GuidanceRecipe(dynamic_threshold=1.5), "is 1.5, which should be a number above 0 and up to 1"),
        (lambda: GuidanceRecipe(t_max=Linear(0.98, 0.01, 100)), "empty at step 100: t_min is 0.968, t_max 0.010"),
        (lambda: FieldRecipe(levels=32, log2_entries=24), "lower levels, log2_entries"),
        (lambda: FieldRecipe(levels=32, per_level_scale=4.0), "lower levels, log2_entries or per_level_scale"),
        (lambda: Recipe("x", stages=(Stage(0, 2048, 16),)), "lower resolution, objects or samples_per_diagonal"),
        (lambda: CameraRange(elevation_deg=(30.0, 0.0)), r"\(30\.0, 0\.0\), which should be rising"),
    ],
)
def test_nonsense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_unknown_preset_names_the_known() -> None:
    with pytest.raises(
        UsageError, match="unknown preset 'ultra'; the presets are mini, mvdream, mvdream-shading, mini-single-view"
    ):
        preset("ultra")


def test_stretching_to_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="'steps' is 0"):
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
