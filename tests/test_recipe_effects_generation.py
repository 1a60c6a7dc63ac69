"""Every field of the recipe of a generation has an effect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from mesh_fields import Balls
from recipe_effects import Runs, Table, assert_complete, becomes, changes, falls, places, rises
from recipe_trace import Trace, Watched, trace
from tiny_prior import write_tiny_prior
from torch import Tensor

from dream3d.cameras import CameraRange
from dream3d.finish import extract_mesh
from dream3d.mesh.extract import FieldMesh
from dream3d.mesh.surface import Surface
from dream3d.recipe.generation import (
    GuidanceRecipe,
    KeyRecipe,
    MeshRecipe,
    OptimizerRecipe,
    Recipe,
    Stage,
    TargetRecipe,
    WatchRecipe,
)
from dream3d.recipe.scene import BackgroundRecipe, FieldRecipe, Linear, RenderRecipe, ShadingRecipe
from dream3d.recipe.vsd import VsdRecipe
from dream3d.run.folder import provenance

BASE = Recipe(
    name="base",
    steps=4,
    cameras=CameraRange(elevation_deg=(10.0, 20.0)),
    stages=(Stage(0, 8, 1), Stage(3, 12, 1)),
    targets=(TargetRecipe(), TargetRecipe(2)),
    field=FieldRecipe(
        levels=2,
        log2_entries=10,
        base_resolution=4,
        per_level_scale=2.0,
        hidden_width=8,
        blob_scale=4.0,
        blob_radius=0.6,
    ),
    render=RenderRecipe(samples_per_diagonal=32, occupancy_resolution=8, occupancy_every=1, occupancy_warmup=2),
    guidance=GuidanceRecipe(guidance_scale=5.0, rescale=0.0, t_min=Linear(0.9, 0.1, 8), t_max=Linear(0.9, 0.5, 8)),
    background=BackgroundRecipe("fixed"),
    optimizer=OptimizerRecipe(lr_grid=0.02, lr_networks=0.01),
    mesh=MeshRecipe(resolution=12, texture=0),
    watch=WatchRecipe(looks=0),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs[Recipe, Trace]:
    prior = Watched(write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny"))
    return Runs(lambda recipe: trace(recipe, prior))


# What is seen of a run.


def parameters_of(run: Trace) -> list[Tensor]:
    field = run.state.scene.field
    assert isinstance(field, torch.nn.Module)
    return list(field.parameters())


def weights(run: Trace) -> Tensor:
    return torch.cat([p.detach().flatten() for p in (*parameters_of(run), *run.state.scene.background.parameters())])


def parameters(run: Trace) -> int:
    return sum(p.numel() for p in parameters_of(run))


def moved(prefix: str) -> Any:
    """How far the parameters of one part went."""

    def seen(run: Trace) -> float:
        before, after = run.start.state_dict(), run.state.state_dict()
        return sum(float((after[name] - before[name]).abs().sum()) for name in before if name.startswith(prefix))

    return seen


def loss(run: Trace) -> float:
    """Of the first step, when all else is still the same."""
    return run.steps[0].loss or 0.0


def low(step: int) -> Any:
    return lambda run: run.steps[step].timestep_range[0]


def high(step: int) -> Any:
    return lambda run: run.steps[step].timestep_range[1]


def opacity(run: Trace) -> float:
    return float(run.rendering.opacity.mean())


def entropy(run: Trace) -> float:
    p = run.rendering.opacity.clamp(1e-3, 1 - 1e-3)
    return float(-(p * p.log() + (1 - p) * (1 - p).log()).mean())


def peak(run: Trace) -> float:
    """The density in the middle."""
    return float(run.state.scene.field.density(torch.zeros(1, 3)).detach())


def thickened(run: Trace) -> float:
    """How far the density of some points went."""
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    return float((run.state.scene.field.density(points) - run.start.scene.field.density(points)).detach().abs().mean())


def occupied(run: Trace) -> float:
    return run.steps[-1].occupancy or 0.0


def elevation(run: Trace) -> float:
    c2w = torch.cat([cameras.c2w for cameras in run.asked])
    return float(torch.asin(c2w[:, 2, 2]).mean())


def distance(run: Trace) -> float:
    return float(torch.cat([cameras.c2w[:, :3, 3] for cameras in run.asked]).norm(dim=-1).mean())


def fovy(run: Trace) -> float:
    return float(torch.cat([cameras.fovy_deg for cameras in run.asked]).mean())


def mesh(run: Trace) -> FieldMesh:
    balls: Any = Balls()
    return extract_mesh(replace(run.state.scene, field=balls), run.recipe.mesh)[0]


def surface(run: Trace) -> Surface:
    return mesh(run).surface


def vertices(run: Trace) -> int:
    return len(surface(run).vertices)


def recorded(run: Trace) -> Any:
    return provenance("a red chair", 0, run.recipe, run.state.prior)["recipe"]["name"]


def told(words: str) -> Any:
    """How often a run said something about its field."""

    def seen(run: Trace) -> int:
        return sum(words in report.message for report in run.steps if report.message)

    return seen


def watched(**values: Any) -> dict[str, Any]:
    """A field that is looked at twice, and is empty whatever it is; or as given."""
    return {f"watch.{name}": value for name, value in {"looks": 2, "empty": 1.0, "restarts": 0, **values}.items()}


STRONG = {"guidance.guidance_scale": 1000.0}
NETWORK = {"background": BackgroundRecipe("network", 0.0)}
SHADED = {"shading": ShadingRecipe(from_step=0, albedo_probability=0.0, textureless_probability=0.0)}
REDUCED = {"mesh.resolution": 32, "mesh.faces": 500, "mesh.texture": 64}
VSD = {"guidance.loss": "vsd", "vsd": VsdRecipe()}
KEYED = {"key": KeyRecipe(low=0.1, high=0.9)}

TABLE: Table[Trace] = {
    "name": changes(recorded, "another"),
    "steps": rises(lambda run: len(run.steps), 5),
    "negative_prompt": changes(weights, "green table"),
    # Cameras
    "cameras.elevation_deg[0]": rises(elevation, 15.0),
    "cameras.elevation_deg[1]": rises(elevation, 60.0),
    # The formula gives 16.1 to 19.5 degrees for 25 to 30.
    "cameras.sphere_elevation_probability": falls(elevation, 1.0, {"cameras.elevation_deg": (25.0, 30.0)}),
    "cameras.fovy_deg[0]": rises(fovy, 40.0),
    "cameras.fovy_deg[1]": rises(fovy, 80.0),
    "cameras.relative_distance[0]": rises(distance, 0.95),
    "cameras.relative_distance[1]": rises(distance, 2.0),
    "cameras.distance_rule": rises(distance, "sin"),
    # Stages
    "stages.from_step": rises(lambda run: run.pixels, 2),
    "stages.resolution": rises(lambda run: run.pixels, 16),
    "stages.objects": rises(lambda run: len(run.asked[-1]), 2),
    # Targets
    "targets.from_step": falls(lambda run: len(run.asked), 1, {"targets.updates": None}),
    "targets.updates": falls(lambda run: len(run.asked), 2),
    "targets.views": rises(lambda run: len(run.asked[-1]), 5),
    "targets.views_per_update": rises(lambda run: run.pixels, 1),
    "targets.denoise_steps": rises(lambda run: len(run.asked), 3),
    "targets.noise": becomes(low(3), 0.25, 250),
    "targets.elevations_deg": falls(elevation, (-60.0, -30.0)),
    # Field
    "field.levels": rises(parameters, 3),
    "field.features_per_level": rises(parameters, 4),
    "field.log2_entries": falls(parameters, 6),
    "field.base_resolution": rises(parameters, 6),
    "field.per_level_scale": rises(parameters, 3.0),
    "field.hidden_width": rises(parameters, 16),
    "field.density_gain": rises(thickened, 4.0),
    "field.sharpness.start": rises(peak, 2.0, {"field.sharpness.until_step": 100}),
    "field.sharpness.end": rises(peak, 2.0),
    "field.sharpness.until_step": falls(peak, 10, {"field.sharpness.end": 5.0, "field.sharpness.until_step": 2}),
    "field.blob_scale": rises(peak, 8.0),
    "field.blob_radius": rises(opacity, 0.8),
    # Rendering
    "render.samples_per_diagonal": rises(lambda run: run.queries, 64),
    "render.occupancy_resolution": rises(lambda run: len(run.state.state_dict()["occupancy.ema"]), 12),
    # Above the mean it is the mean that counts.
    "render.occupancy_threshold": rises(occupied, 1e-4),
    "render.occupancy_decay": falls(lambda run: float(run.state.state_dict()["occupancy.ema"].sum()), 0.5),
    "render.occupancy_every": falls(lambda run: run.queries, 4),
    "render.occupancy_warmup": rises(lambda run: run.queries, 4),
    "render.early_stop_transmittance": falls(lambda run: run.queries, 0.5),
    "render.alpha_threshold": falls(lambda run: run.queries, 0.5),
    "render.sample_budget": rises(lambda run: run.state.scene.renderer.coarsened, 100),
    # Guidance
    "guidance.loss": changes(weights, "sds"),
    "guidance.guidance_scale": rises(loss, 1000.0),
    "guidance.rescale": falls(loss, 1.0, STRONG),
    "guidance.dynamic_threshold": falls(loss, 0.9, STRONG),
    "guidance.t_min.start": falls(low(0), 0.5),
    "guidance.t_min.end": rises(low(3), 0.4),
    "guidance.t_min.until_step": falls(low(3), 4),
    "guidance.t_max.start": rises(high(0), 0.95),
    "guidance.t_max.end": rises(high(3), 0.8),
    "guidance.t_max.until_step": falls(high(3), 4),
    "guidance.image_weight": rises(loss, 1e5, {"guidance.loss": "images"}),
    "guidance.weighting": falls(loss, "sigma"),
    "guidance.prior_views": becomes(lambda run: len(run.asked), "alone", 0),  # it hears of no camera
    # The learnt copy
    "vsd": changes(weights, VsdRecipe(lr=0.1), {"guidance.loss": "vsd"}),
    "vsd.rank": rises(lambda run: sum(map(torch.numel, run.state.state_dict().values())), 8, VSD),
    "vsd.lr": rises(moved("copy.lora"), 1e-2, VSD),
    "vsd.updates": rises(moved("copy.lora"), 3, VSD),
    # Background
    "background.kind": changes(lambda run: type(run.state.scene.background), "network"),
    "background.random_probability": falls(moved("background."), 1.0, NETWORK),
    # Shading
    "shading": changes(weights, SHADED["shading"]),
    "shading.from_step": changes(weights, 3, SHADED),
    "shading.albedo_probability": changes(weights, 1.0, SHADED),
    "shading.textureless_probability": falls(moved("field.color_head"), 1.0, SHADED),
    "shading.light_distance[0]": changes(weights, 0.1, SHADED),
    "shading.light_distance[1]": changes(weights, 5.0, SHADED),
    "shading.light_per": changes(weights, "object", SHADED),
    "shading.orientation.start": changes(weights, 1e4, SHADED),
    "shading.orientation.end": changes(weights, 1e5, SHADED),
    "shading.orientation.until_step": changes(weights, 2, SHADED),
    # Optimiser
    "optimizer.lr_grid": rises(moved("field.encoding"), 0.05),
    "optimizer.lr_networks": rises(moved("field.density_head"), 0.02),
    "optimizer.lr_background": rises(moved("background."), 0.01, NETWORK),
    "optimizer.betas[0]": changes(weights, 0.5),
    "optimizer.betas[1]": changes(weights, 0.5),
    "optimizer.eps": falls(moved("field."), 1e6),
    "optimizer.weight_decay": falls(
        lambda run: float(run.state.state_dict()["field.density_head.hidden"].norm()), 10.0
    ),
    "optimizer.final_lr_factor": falls(moved("field."), 0.0),
    # Penalties
    "regularizers.sparsity": falls(opacity, 1e5),
    "regularizers.binary": falls(entropy, 1e5),
    "regularizers.from_fraction": rises(opacity, 0.75, {"regularizers.sparsity": 1e5}),
    # Key
    "key": changes(weights, KeyRecipe()),
    "key.low": falls(opacity, 0.8, KEYED),
    "key.high": falls(opacity, 2.0, KEYED),
    "key.border": falls(opacity, 0.3, KEYED),
    "key.weight": changes(weights, 1.0, KEYED),
    # Watch
    "watch.looks": becomes(told("empty"), 4, 4, watched()),
    "watch.restarts": becomes(told("another seed"), 1, 1, watched()),
    "watch.rescales": becomes(told("rescaling"), 1, 1, watched(empty=0.0, saturated=0.0, rescales=0, looks=4)),
    "watch.empty": becomes(told("empty"), 1.0, 2, {"watch.looks": 2, "watch.restarts": 0}),
    "watch.full": becomes(told("fills its volume"), 0.0, 2, {"watch.looks": 2, "watch.restarts": 0}),
    "watch.floaters": rises(told("floats"), 0.0, {"watch.looks": 4, "watch.restarts": 0}),
    "watch.saturated": becomes(told("saturated"), 0.0, 4, {"watch.looks": 4}),
    # Mesh
    "mesh.resolution": rises(vertices, 16),
    "mesh.min_component_fraction": falls(vertices, 0.1, {"mesh.resolution": 32}),
    "mesh.smoothing": changes(lambda run: surface(run).vertices.tobytes(), 0),
    "mesh.faces": falls(vertices, 100, {"mesh.resolution": 32}),
    "mesh.texture": becomes(lambda run: getattr(mesh(run).image, "shape", None), 64, (64, 64, 3)),
    "mesh.normal_map": becomes(lambda run: mesh(run).normals is None, False, True, REDUCED),
}


def test_every_field_has_an_entry() -> None:
    elsewhere = {place: "tests/test_recipe_effects_refinement.py" for place in places(Recipe) if "refinement" in place}
    assert_complete(TABLE, Recipe, elsewhere)


@pytest.mark.parametrize("place", TABLE)
def test_a_field_has_its_effect(runs: Runs[Recipe, Trace], place: str) -> None:
    runs.check(BASE, place, TABLE[place])
