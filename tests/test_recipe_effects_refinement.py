"""Every field of the recipe of a refinement, of texture and shape, has an effect."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from recipe_effects import Runs, Table, assert_complete, becomes, changes, falls, rises
from test_optimise import TINY
from test_refine import BALL, Judging, grey_ball

from dream3d.errors import UsageError
from dream3d.mesh.extract import FieldMesh
from dream3d.recipe.generation import Recipe
from dream3d.recipe.overrides import changed_recipe
from dream3d.recipe.refinement import ShapeRefinement, TextureRefinement
from dream3d.refine import refine_mesh
from dream3d.run.progress import MovedShape, Refinement

BASE = TextureRefinement(denoise_steps=1, updates=2, cells=4, elevations_deg=(0.0,))


def mesh_of(asked: TextureRefinement) -> FieldMesh:
    """A grey ball, refined and kept whatever the scores."""
    with (
        mock.patch.object(Refinement, "kept", True),
        mock.patch.object(MovedShape, "kept", True),
        mock.patch("dream3d.refine.SAMPLES", 64),
    ):
        # Two balls that it could be: how much noise there is decides between them.
        mesh, _ = refine_mesh(grey_ball(), Judging(BALL, GREEN), TINY, asked, "a ball", 0)
    return mesh


GREEN = tuple(type(one)(one.center, one.radius * 0.8, (0.1, 0.7, 0.2)) for one in BALL)


@pytest.fixture(scope="module")
def runs() -> Runs[TextureRefinement, FieldMesh]:
    return Runs(mesh_of)


def pixels(mesh: FieldMesh) -> bytes:
    assert mesh.image is not None
    return mesh.image.tobytes()


def recolored(mesh: FieldMesh) -> float:
    """How far the texels went."""
    base = grey_ball().image
    assert base is not None
    assert mesh.image is not None
    return float(np.abs(mesh.image.astype(float) - base).mean())


def places(mesh: FieldMesh) -> bytes:
    return mesh.surface.vertices.tobytes()


def moved(mesh: FieldMesh) -> float:
    """How far the vertices went."""
    return float(np.linalg.norm(mesh.surface.vertices - grey_ball().surface.vertices, axis=1).mean())


def unevenly_moved(mesh: FieldMesh) -> float:
    """How much the moves differ."""
    return float((mesh.surface.vertices - grey_ball().surface.vertices).std(axis=0).mean())


MOVING = {"shape": ShapeRefinement(cells=4)}
TABLE: Table[FieldMesh] = {
    "noise": changes(pixels, 0.99),
    "denoise_steps": changes(pixels, 4, {"noise": 0.99}),
    "elevations_deg": changes(pixels, (40.0,)),
    "updates": rises(recolored, 6),
    "learning_rate": rises(recolored, 0.05),
    "cells": changes(pixels, 8),
    "largest_change": becomes(recolored, 0.0, 0),
    "shape": rises(moved, ShapeRefinement(cells=4)),
    "shape.cells": changes(places, 8, MOVING),
    "shape.largest_move": becomes(moved, 0.0, 0, MOVING),
    "shape.learning_rate": rises(moved, 0.5, MOVING),
    "shape.smoothness": falls(unevenly_moved, 1000.0, MOVING),
}


def test_every_field_has_an_entry() -> None:
    assert_complete(TABLE, TextureRefinement)


@pytest.mark.parametrize("place", TABLE)
def test_a_field_has_its_effect(runs: Runs[TextureRefinement, FieldMesh], place: str) -> None:
    runs.check(BASE, place, TABLE[place])


def test_it_is_off_unless_asked_for() -> None:
    assert changed_recipe({}, "mini").refinement is None
    asked = changed_recipe({"refine_texture": "true", "refinement.updates": "7"}, "mini")
    assert asked.refinement == TextureRefinement(updates=7)
    assert Recipe.from_dict(asked.to_dict()) == asked
    assert changed_recipe({"refine_texture": "false"}, "mini").refinement is None


def test_without_an_orbit_there_is_nothing_to_draw() -> None:
    with pytest.raises(UsageError, match="elevations_deg is empty"):
        TextureRefinement(elevations_deg=())
