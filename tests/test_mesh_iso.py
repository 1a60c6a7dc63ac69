"""The level at which a field's surface is taken, and fields that have none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mesh_fields import Masks, ball, opacity_masks, union
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.errors import CollapsedFieldError
from dream3d.mesh.extract import mesh_from_field
from dream3d.mesh.grid import peak_projection, raw_from_density, sample_density_grid
from dream3d.mesh.iso import choose_iso_level, mean_iou
from dream3d.mesh.raster import silhouettes
from dream3d.recipe.generation import MeshRecipe


@pytest.mark.parametrize("sharpness", [15.0, 60.0, 400.0])
@pytest.mark.parametrize("centre", [(0.0, 0.0, 0.0), (0.2, -0.3, 0.1)])
def test_the_level_recovers_the_rendered_silhouette(sharpness: float, centre: tuple[float, float, float]) -> None:
    density, cameras = ball(0.5, centre=centre, sharpness=sharpness), orbit(8, elevation_deg=20)
    masks = opacity_masks(density, cameras, 48)
    mesh = mesh_from_field(density, torch.zeros_like, masks, cameras, MeshRecipe(resolution=32))
    assert mesh.choice.iou >= 0.95
    assert mesh.iou >= 0.95
    drawn = silhouettes(mesh.surface.vertices, mesh.surface.faces, cameras, 48, 48)
    assert mean_iou(drawn, masks) == mesh.iou


def test_a_thin_ring_and_a_dense_ball_share_a_level() -> None:
    def ring(xyz: Tensor) -> Tensor:
        across = (xyz[:, :2].norm(dim=-1) - 0.7).square() + xyz[:, 2].square()
        return torch.nn.functional.softplus(200 * (0.08 - across.sqrt()))

    density, cameras = union(ring, ball(0.3, sharpness=300)), orbit(8, elevation_deg=25)
    masks = opacity_masks(density, cameras, 64)
    assert mesh_from_field(density, torch.zeros_like, masks, cameras, MeshRecipe(resolution=48)).iou >= 0.9


def test_the_choice_reports_every_candidate() -> None:
    density, cameras = ball(0.5), orbit(4)
    choice = choose_iso_level(sample_density_grid(density, 24), opacity_masks(density, cameras, 32), cameras)
    assert len(choice.candidates) == len(choice.ious)
    assert (np.diff(choice.candidates) > 0).all()
    assert choice.level in choice.candidates
    assert choice.ious.max() - 0.002 <= choice.iou <= choice.ious.max()


def test_the_level_is_in_the_middle_of_the_good_range() -> None:
    # Density 100 inside and 0 outside: nearly every level between fits, so the choice keeps away from both ends.
    grid = np.zeros((33, 33, 33), np.float32)
    grid[8:25, 8:25, 8:25] = 100
    cameras = orbit(4)
    masks = peak_projection(grid, cameras, 48, 48) > 50
    choice = choose_iso_level(grid, masks, cameras)
    good = choice.candidates[choice.ious >= choice.ious.max() - 0.002]
    assert good[0] < choice.level < good[-1]


def test_candidate_ious_are_what_a_plain_count_gives() -> None:
    density, cameras = ball(0.4, sharpness=20), orbit(3)
    grid = sample_density_grid(density, 16)
    masks = opacity_masks(density, cameras, 24)
    choice = choose_iso_level(grid, masks, cameras)
    raw = raw_from_density(grid)
    for index in (0, 100, 300, 511):
        inside = peak_projection(raw, cameras, 24, 24) >= raw_from_density(choice.candidates)[index]
        assert choice.ious[index] == pytest.approx(mean_iou(inside, masks))


def test_one_view_from_which_nothing_is_seen_is_allowed() -> None:
    density, cameras = ball(0.5), orbit(4)
    masks = opacity_masks(density, cameras, 32)
    masks[1] = False
    assert 0.7 < choose_iso_level(sample_density_grid(density, 24), masks, cameras).iou < 0.76


EMPTY, FULL = np.zeros((4, 16, 16), bool), np.ones((4, 16, 16), bool)


@pytest.mark.parametrize(
    ("density", "masks", "words"),
    [
        (0.0, EMPTY, "empty .largest density 0, 0% of the pixels opaque.; try another seed"),
        (0.3, EMPTY, "empty .largest density 0.3"),
        (0.0, FULL, "empty"),
        (90.0, FULL, "solid .largest density 90, 100% of the pixels opaque.; try .* higher sparsity"),
        (math.nan, EMPTY, "not finite"),
        (math.inf, FULL, "not finite"),
    ],
)
def test_collapsed_fields_are_named(density: float, masks: Masks, words: str) -> None:
    with pytest.raises(CollapsedFieldError, match=words) as caught:
        choose_iso_level(np.full((9, 9, 9), density, np.float32), masks, orbit(4))
    assert "\n" not in str(caught.value)


def test_fog_that_no_level_explains_is_named() -> None:
    masks = EMPTY.copy()
    masks[:, 0, 0] = True  # one pixel, far from the solid ball
    with pytest.raises(CollapsedFieldError, match=r"no density level looks like the renders .best IoU 0\.0"):
        choose_iso_level(sample_density_grid(ball(0.5), 16), masks, orbit(4))


def test_masks_and_cameras_must_match() -> None:
    with pytest.raises(ValueError, match=r"\(3, H, W\), got \(4, 16, 16\)"):
        choose_iso_level(np.ones((4, 4, 4), np.float32), FULL, orbit(3))


def test_iou_by_hand() -> None:
    first = np.array([[[1, 1, 0, 0]], [[0, 0, 0, 0]]], bool)
    second = np.array([[[0, 1, 1, 0]], [[0, 0, 0, 0]]], bool)
    assert mean_iou(first, second) == pytest.approx((1 / 3 + 1) / 2)
