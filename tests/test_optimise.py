"""One step and its parts. That each field of the recipe counts is in test_recipe_effects_generation.py."""

from dataclasses import replace

import pytest
import torch
from oracle import MASCOT, OraclePrior

from dream3d.cameras import orbit
from dream3d.distill import regularizers, start
from dream3d.field.radiance import RadianceField
from dream3d.recipe.generation import Recipe, Stage, TargetRecipe
from dream3d.recipe.presets import preset
from dream3d.recipe.scene import FieldRecipe, Linear, RenderRecipe, ShadingRecipe
from dream3d.render.light import sample_light
from dream3d.run.progress import read
from dream3d.targets import KeyedImages

TINY = replace(
    preset("mini").with_steps(8),
    stages=(Stage(0, 8, 1),),
    # A round, targets that serve two updates, and MVDream's.
    targets=(TargetRecipe(0, None, 6, 3, 2, 1.0, (0.0, 30.0)), TargetRecipe(3, 2), TargetRecipe(7)),
    # With the "sigma" weighting the timestep reaches the loss even where the oracle has nothing to choose from.
    guidance=replace(preset("mini").guidance, loss="x0", weighting="sigma"),
    field=FieldRecipe(levels=2, log2_entries=10, base_resolution=4, per_level_scale=2.0, hidden_width=8),
    render=RenderRecipe(samples_per_diagonal=32, occupancy_resolution=8, occupancy_every=2, occupancy_warmup=4),
)


def table_after(recipe: Recipe, steps: int = 3, seed: int = 0) -> torch.Tensor:
    prior = OraclePrior(MASCOT)
    state = start(recipe, prior, seed)
    text = prior.encode_prompt("", "")
    for step in range(steps):
        state.step(step, text)
    return torch.cat([value.flatten() for value in state.scene.field.state_dict().values()])


def test_same_seed_same_field_bit_for_bit() -> None:
    assert torch.equal(table_after(TINY, seed=4), table_after(TINY, seed=4))
    assert not torch.equal(table_after(TINY, seed=4), table_after(TINY, seed=5))


def test_a_keyed_picture_teaches_colours_inside_and_opacity_everywhere() -> None:
    state = start(TINY, OraclePrior(MASCOT), 0)
    rendering = state.scene.render(orbit(4), 64)
    picture = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    opacity = torch.zeros(4, 1, 64, 64)
    opacity[:, :, :, 32:] = 1
    images = KeyedImages(picture, opacity).replace_background(rendering.images(64))
    assert torch.equal(images[..., :32], picture[..., :32])
    torch.testing.assert_close(images[..., 32:], rendering.color.movedim(-1, 1)[..., 32:])
    assert TINY.key is not None
    expected = TINY.key.weight * (rendering.opacity.movedim(-1, 1) - opacity).abs().mean()
    torch.testing.assert_close(regularizers(TINY, 7, rendering, KeyedImages(picture, opacity)), expected)


def test_the_field_is_sharpened_on_schedule() -> None:
    recipe = replace(TINY, field=replace(TINY.field, sharpness=Linear(1.0, 5.0, 4)))
    prior = OraclePrior(MASCOT)
    state = start(recipe, prior, 0)
    assert isinstance(state.scene.field, RadianceField)
    assert state.scene.field.sharpness == 1
    for step in range(3):
        state.step(step, prior.encode_prompt("", ""))
    assert state.scene.field.sharpness == 3


def test_albedo_only_before_the_shading_step() -> None:
    shading, generator = ShadingRecipe(from_step=5, albedo_probability=0.0), torch.Generator().manual_seed(0)
    assert sample_light(shading, 4, orbit(4), 4, generator) is None
    light = sample_light(shading, 5, orbit(4), 4, generator)
    assert light is not None
    assert light.ambient + light.diffuse == pytest.approx(1)
    distance = light.position.norm(dim=-1)
    assert 0.8 <= float(distance.min()) <= float(distance.max()) <= 1.5


def test_the_step_reports_what_it_measured() -> None:
    prior = OraclePrior(MASCOT)
    report = start(TINY, prior, 0).step(0, prior.encode_prompt("", ""))
    (measured,) = read([report])
    assert report.timestep_range == (999, 999)
    assert report.timestep == 999
    assert measured.loss > 0
    assert 0 < measured.opacity < 1
    assert 0 < measured.occupancy <= 1
    assert (measured.skipped, measured.skipped_in_a_row) == (0, 0)


def test_the_paper_recipe_runs_in_miniature() -> None:
    """The shading preset whole: network background, two stages, orientation loss; only sizes are cut."""
    recipe = preset("mvdream-shading").with_steps(4)
    recipe = replace(
        recipe,
        stages=(Stage(0, 8, 2), Stage(2, 12, 1)),
        field=TINY.field,
        render=replace(recipe.render, samples_per_diagonal=32, occupancy_resolution=8),
        shading=replace(recipe.shading, from_step=2, albedo_probability=0.0) if recipe.shading else None,
    )
    values = table_after(recipe, steps=4)
    assert bool(torch.isfinite(values).all())
