"""Shapes refined by the prior: a ball finds the place and size that an exact prior knows; what is kept, and told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import Shape, Sphere, draw
from test_optimise import TINY
from test_refine import Judging, grey_ball, refined_run
from torch import Tensor
from typer.testing import CliRunner

from dream3d.cameras import orbit
from dream3d.cli.app import app
from dream3d.errors import UsageError
from dream3d.mesh.extract import FieldMesh
from dream3d.mesh.raster import silhouettes
from dream3d.recipe.generation import Recipe
from dream3d.recipe.overrides import Overrides, changed_recipe
from dream3d.recipe.refinement import ShapeRefinement, TextureRefinement
from dream3d.refine import refine_mesh
from dream3d.run.folder import read_run
from dream3d.run.progress import MovedShape, Refinement, Score

ASKED = TextureRefinement(
    denoise_steps=1,
    updates=24,
    cells=8,
    learning_rate=0.05,
    elevations_deg=(0.0,),
    shape=ShapeRefinement(cells=6, largest_move=2.0, learning_rate=0.15),
)
RED = (0.85, 0.25, 0.1)
VOXEL = 0.05
"""Of the grey ball, whose radius is 1."""


@pytest.fixture(autouse=True)
def coarse() -> Iterator[None]:
    """Fewer samples of each pixel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dream3d.refine.SAMPLES", 64)
        yield


def ball(center: tuple[float, float, float] = (0.0, 0.0, 0.0), radius: float = 1.0) -> tuple[Shape, ...]:
    return (Sphere(center, radius, RED),)


def refined(wanted: tuple[Shape, ...], seed: int = 0, **changes: Any) -> tuple[FieldMesh, Refinement]:
    return refine_mesh(grey_ball(), Judging(wanted), TINY, replace(ASKED, **changes), "a ball", seed)


def agreement(mesh: FieldMesh, wanted: tuple[Shape, ...]) -> float:
    """IoU of silhouettes at cameras that nothing was fitted at."""
    cameras = orbit(5, elevation_deg=25, azimuth_deg=20)
    found, truth = silhouettes(mesh.surface.vertices, mesh.surface.faces, cameras, 128, 128), draw(wanted, cameras, 128)
    covered = truth[1].numpy() > 0.5
    return float((found & covered).sum() / (found | covered).sum())


@pytest.mark.parametrize("wanted", [ball(radius=1 - VOXEL), ball((0.0, VOXEL, -VOXEL), 1 - VOXEL)])
def test_a_ball_finds_the_shape_that_the_prior_knows(wanted: tuple[Shape, ...]) -> None:
    mesh, outcome = refined(wanted)
    before, after = (agreement(one, wanted) for one in (grey_ball(), mesh))
    assert 1 - after < (1 - before) / 3
    shape = outcome.shape
    assert shape is not None
    assert shape.kept
    assert shape.after.agreement > shape.before.agreement == outcome.after.agreement
    assert 0.5 < shape.distance < 2
    # What is joined stays joined, and lies in the texture where it lay.
    base = grey_ball()
    assert mesh.surface.faces is base.surface.faces
    assert mesh.layout is base.layout
    assert np.abs(mesh.surface.vertices - base.surface.vertices).max() <= 2 * VOXEL + 1e-6


def test_a_shape_that_is_not_kept_is_the_one_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MovedShape, "kept", False)
    mesh, outcome = refined(ball(radius=1 - VOXEL), updates=2)
    assert mesh.surface is grey_ball().surface
    assert outcome.kept
    assert mesh.image is not grey_ball().image


def test_the_shape_may_be_kept_without_the_texture(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its own score counts, with the texture of before.
    monkeypatch.setattr(Refinement, "kept", False)
    monkeypatch.setattr(MovedShape, "kept", True)
    mesh, outcome = refined(ball(radius=1 - VOXEL), updates=2)
    assert mesh.image is grey_ball().image
    assert outcome.shape is not None
    assert outcome.shape.before is outcome.before
    assert not np.array_equal(mesh.surface.vertices, grey_ball().surface.vertices)


@pytest.mark.parametrize("shape", [None, ShapeRefinement(cells=4)])
def test_what_is_not_finite_changes_nothing(shape: ShapeRefinement | None) -> None:
    class Overflowing(Judging):
        def decode_latents(self, latents: Tensor) -> Tensor:
            return latents * torch.nan

    mesh, outcome = refine_mesh(grey_ball(), Overflowing(), TINY, replace(ASKED, shape=shape), "a ball", 0)
    assert mesh is grey_ball()
    assert not outcome.kept


def test_the_fine_surface_moves_along() -> None:
    base = replace(grey_ball(), fine=grey_ball().surface)
    mesh, _ = refine_mesh(base, Judging(ball(radius=0.9)), TINY, replace(ASKED, updates=3), "a ball", 0)
    assert mesh.fine is not None
    assert np.array_equal(mesh.fine.vertices, mesh.surface.vertices)
    assert not np.array_equal(mesh.surface.vertices, base.surface.vertices)


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, other = (refined(ball(radius=0.9), updates=3)[0] for _ in range(2))
    assert one.surface.vertices.tobytes() == other.surface.vertices.tobytes()
    assert one.image is not None
    assert other.image is not None
    assert one.image.tobytes() == other.image.tobytes()


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        (Score(20.1, None), True),
        (Score(20, None), False),
        (Score(20.1, 0.3), True),
        (Score(20, 0.31), True),
        (Score(20, 0.3), False),
        (Score(20.1, 0.29), False),
        (Score(19.9, 0.31), False),
    ],
)
def test_no_figure_may_fall_for_a_shape(after: Score, kept: bool) -> None:
    before = Score(20, None if after.similarity is None else 0.3)
    assert MovedShape(before, after, 0.1).kept is kept


def test_what_came_of_the_shape_is_told_after_the_texture() -> None:
    low, high = Score(20, 0.3), Score(21, 0.3)
    outcome = Refinement(low, high, MovedShape(high, Score(20.5, 0.25), 0.4))
    texture, shape = outcome.sentences
    assert "refined texture is kept" in texture
    assert shape == (
        "the refined shape is not kept: views agree with the prior's to 21.0 dB, then 20.5 dB; "
        "similarity to the prompt 0.300, then 0.250; it moved by 0.40 voxels in the mean"
    )
    figures = outcome.to_dict()
    assert (figures["texture_refined"], figures["shape_refined"]) == (True, False)
    assert (figures["shape_agreement_before"], figures["shape_moved_voxels"]) == (21, 0.4)
    assert not any(name.startswith("shape") for name in replace(outcome, shape=None).to_dict())


# --- settings ---------------------------------------------------------------------------------------------------


def test_a_shape_is_refined_with_its_texture() -> None:
    base = changed_recipe({}, "mini")
    asked = Overrides(refine_shape=True).apply_on(base)
    assert asked.refinement == TextureRefinement(shape=ShapeRefinement())
    assert changed_recipe({"refine_shape": "true"}, "mini") == asked
    # What was set stays.
    own = replace(base, refinement=TextureRefinement(noise=0.2, shape=ShapeRefinement(cells=4)))
    assert Overrides(refine_shape=True).apply_on(own) == own
    assert Overrides(refine_texture=True).apply_on(own) == own
    assert Overrides(refine_shape=False).apply_on(own).refinement == TextureRefinement(noise=0.2)
    assert Overrides(refine_shape=False).apply_on(base) == base
    assert Overrides(refine_texture=False).apply_on(own) == base
    with pytest.raises(UsageError, match="leave out --no-refine-texture"):
        Overrides(refine_texture=False, refine_shape=True)


def test_recipes_without_a_shape_are_written_as_before() -> None:
    base = changed_recipe({"refine_texture": "true"}, "mini")
    assert "shape" not in base.to_dict()["refinement"]
    for recipe in (base, Overrides(refine_shape=True).apply_on(base)):
        assert Recipe.from_dict(recipe.to_dict()) == recipe


# --- a run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose refinements are kept."""
    few = TextureRefinement(
        denoise_steps=1, updates=2, cells=4, elevations_deg=(0.0,), shape=ShapeRefinement(learning_rate=2.0)
    )
    with pytest.MonkeyPatch.context() as kept:
        kept.setattr(MovedShape, "kept", True)
        kept.setattr(Refinement, "kept", True)
        kept.setattr("dream3d.refine.SAMPLES", 64)
        return refined_run(tmp_path_factory.mktemp("refined"), few)


def test_a_run_tells_of_its_shape(run: Path) -> None:
    result = read_run(run)["result"]
    assert result["shape_refined"] is True
    assert result["shape_moved_voxels"] > 0
    assert "refined shape kept" in (run / "report.html").read_text("utf-8")


def test_an_export_refines_the_shape_as_the_run_did(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream3d.finish.SILHOUETTE_SIZE", 32)
    monkeypatch.setattr(MovedShape, "kept", True)
    monkeypatch.setattr(Refinement, "kept", True)
    told = {}
    for words in ((), ("--no-refine-shape",)):
        out = tmp_path / f"again{len(words)}.glb"
        result = CliRunner().invoke(app, ["export", str(run), "--out", str(out), "--device", "cpu", *words])
        assert result.exit_code == 0, result.output
        told[words] = out.read_bytes() == (run / "mesh.glb").read_bytes(), "the refined shape is" in result.stderr
        assert "the refined texture is" in result.stderr
    assert told == {(): (True, True), ("--no-refine-shape",): (False, False)}


def test_the_agreement_that_is_told_is_that_of_the_moved_mesh(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dream3d import finish
    from dream3d.remake import read_field

    monkeypatch.setattr(finish, "SILHOUETTE_SIZE", 32)
    kept = read_field(run)
    mesh, floaters = finish.extract_mesh(kept.scene, kept.recipe.mesh)
    score = Score(20, None)
    small = replace(mesh, surface=replace(mesh.surface, vertices=mesh.surface.vertices * np.float32(0.5)))
    for shape, same in (
        (None, True),
        (MovedShape(score, score, 0.1), True),
        (MovedShape(score, Score(21, None), 0.1), False),
    ):
        found, outside = finish.remeasured(small, kept.scene, Refinement(score, score, shape), floaters)
        assert (found is small) is same
        assert (found.iou < mesh.iou) is not same
        assert (outside > floaters) is not same
