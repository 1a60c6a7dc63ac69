"""The presets: ``mini`` (minutes on a CPU), ``mvdream`` (the released numbers), ``mvdream-shading``; baselines."""

from __future__ import annotations

from dataclasses import replace

from dream3d.cameras import CameraRange
from dream3d.errors import UsageError
from dream3d.recipe.generation import (
    GuidanceRecipe,
    KeyRecipe,
    MeshRecipe,
    OptimizerRecipe,
    Recipe,
    Stage,
    TargetRecipe,
)
from dream3d.recipe.scene import BackgroundRecipe, FieldRecipe, Linear, RenderRecipe, ShadingRecipe
from dream3d.recipe.vsd import VsdRecipe

MVDREAM_NEGATIVE_PROMPT = (
    "ugly, bad anatomy, blurry, pixelated obscure, unnatural colors, poor lighting, dull, and unclear, "
    "cropped, lowres, low quality, artifacts, duplicate, morbid, mutilated, poorly drawn face, deformed, "
    "dehydrated, bad proportions"
)

_MVDREAM = Recipe(
    name="mvdream",
    cameras=CameraRange(sphere_elevation_probability=0.5),
    render=RenderRecipe(alpha_threshold=0.01),
    mesh=MeshRecipe(resolution=256),
    negative_prompt=MVDREAM_NEGATIVE_PROMPT,
)

_MINI = Recipe(
    name="mini",
    steps=240,
    # The ranges that the prior's training views were rendered in (prior.json), but 10 % nearer: the prior is not told
    # the distance and draws what fills the image, so that everything comes out 10 % smaller, away from the border.
    cameras=CameraRange(
        elevation_deg=(0.0, 35.0),
        fovy_deg=(25.0, 50.0),
        relative_distance=(0.765, 0.9),
        distance_rule="sin",
    ),
    stages=(Stage(0, 32, 1), Stage(144, 48, 1)),
    # Levels that are all dense, up to 40 cells along a side: a finer one fits the speckle of the prior's images, which
    # makes ragged surfaces. The wide soft blob lets thin parts far from the middle grow: what starts out empty is
    # skipped by the rays and stays empty.
    field=FieldRecipe(
        levels=5,
        log2_entries=18,
        base_resolution=8,
        per_level_scale=1.5,
        hidden_width=32,
        density_gain=4.0,
        sharpness=Linear(1.0, 24.0, 240),
        blob_scale=4.0,
        blob_radius=0.65,
    ),
    render=RenderRecipe(samples_per_diagonal=96, occupancy_every=4, occupancy_warmup=32),
    # Sixty targets of four views at falling noise, from the field's own renders: what they disagree about averages
    # out, and does not become roughness. Never under half of the noise: from less the prior draws blurred outlines
    # sharp, but somewhere else, and arms and stems melt away.
    targets=(TargetRecipe(updates=4, denoise_steps=4),),
    guidance=GuidanceRecipe(
        loss="images", guidance_scale=5.0, rescale=0.5, t_min=Linear(0.98, 0.5, 200), t_max=Linear(0.98, 0.75, 160)
    ),
    background=BackgroundRecipe(kind="fixed"),
    optimizer=OptimizerRecipe(lr_grid=0.02, weight_decay=0.0, final_lr_factor=0.3),
    # Three of 64 pixels. The widest view shows 0.99 units on either side of the origin (0.9 / cos 25 degrees), and 0.90
    # inside this border. From above the lower end of an object looks shorter: some margin is used up there.
    key=KeyRecipe(weight=2000.0, border=0.05),
)


def _single_view(recipe: Recipe) -> Recipe:
    """The same with a prior that sees one view at a time: a baseline, with nothing else changed."""
    guidance = replace(recipe.guidance, prior_views="alone")
    return replace(recipe, name=f"{recipe.name}-single-view", guidance=guidance)


def _vsd(recipe: Recipe, guidance_scale: float, vsd: VsdRecipe) -> Recipe:
    """The same with ProlificDreamer's guidance: a target for each update, at timesteps of the whole schedule at first.

    Their upper bound falls in a line to a half here; the paper changes it at once.
    """
    end = recipe.steps // 2
    guidance = replace(
        recipe.guidance,
        loss="vsd",
        guidance_scale=guidance_scale,
        rescale=0.0,
        t_min=Linear(0.02, 0.02, end),
        t_max=Linear(0.98, 0.5, end),
    )
    return replace(recipe, name=f"{recipe.name}-vsd", targets=(TargetRecipe(),), guidance=guidance, vsd=vsd)


PRESETS: dict[str, Recipe] = {
    "mini": _MINI,
    "mvdream": _MVDREAM,
    "mvdream-shading": replace(_MVDREAM, name="mvdream-shading", shading=ShadingRecipe(light_per="object")),
    **{one.name: one for one in map(_single_view, (_MINI, _MVDREAM))},
    **{one.name: one for one in (_vsd(_MINI, 5.0, VsdRecipe(lr=1e-3)), _vsd(_MVDREAM, 7.5, VsdRecipe()))},
}


def preset(name: str) -> Recipe:
    """The preset called ``name``; raises :class:`UsageError` naming the known ones."""
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}; the presets are {', '.join(PRESETS)}")
    return PRESETS[name]
