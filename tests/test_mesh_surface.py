from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from dream3d.cameras import Cameras, orbit
from dream3d.errors import CollapsedFieldError
from dream3d.mesh.extract import color_vertices, extract_surface, mesh_from_field
from dream3d.mesh.grid import DensityFn, peak_projection, raw_from_density, sample_density_grid
from dream3d.mesh.iso import choose_iso_level, mean_iou
from dream3d.mesh.raster import silhouettes
from dream3d.mesh.surface import Surface, face_volumes, vertex_normals, without_specks
from dream3d.recipe.generation import MeshRecipe

Masks = NDArray[np.bool_]


def ball(radius: float, *, centre: tuple[float, float, float] = (0, 0, 0), sharpness: float = 40.0) -> DensityFn:
    """softplus(sharpness * (radius - |x - centre|)): softplus(0) = ln 2 on the sphere itself."""

    def density(xyz: Tensor) -> Tensor:
        distance = (xyz - torch.tensor(centre, dtype=xyz.dtype)).norm(dim=-1)
        return torch.nn.functional.softplus(sharpness * (radius - distance))

    return density


def union(*parts: DensityFn) -> DensityFn:
    return lambda xyz: torch.stack([part(xyz) for part in parts]).amax(dim=0)


def opacity_masks(density: DensityFn, cameras: Cameras, size: int, samples: int = 96) -> Masks:
    """An independent volume renderer: 1 - exp(-sum of density * step) > 1/2 on the unit ball's span of each ray."""
    rays_o, rays_d = cameras.rays(size, size)
    middle = -(rays_o * rays_d).sum(-1, keepdim=True)
    t = middle + torch.linspace(-1.0, 1.0, samples)
    points = rays_o[..., None, :] + t[..., None] * rays_d[..., None, :]
    optical_depth = density(points.reshape(-1, 3)).reshape(t.shape).sum(-1) * (2 / samples)
    masks: Masks = (1 - torch.exp(-optical_depth) > 0.5).numpy()
    return masks


def volume(surface: Surface) -> float:
    return float(face_volumes(surface.vertices, surface.faces).sum())


def closed(surface: Surface) -> bool:
    return bool(trimesh.Trimesh(surface.vertices, surface.faces, process=False).is_watertight)


# --- the grid ---------------------------------------------------------------------------------------------------


def test_the_grid_is_indexed_xyz_on_corner_points() -> None:
    grid = sample_density_grid(lambda xyz: (xyz * torch.tensor([100.0, 10.0, 1.0])).sum(-1) + 111, 2, chunk=4)
    assert grid.shape == (3, 3, 3)
    assert grid.dtype == np.float32
    assert grid[0, 0, 0] == 0  # -100 - 10 - 1 + 111
    assert grid[2, 1, 0] == 100 + 0 - 1 + 111
    assert grid[1, 2, 2] == 0 + 10 + 1 + 111


@given(chunk=st.integers(1, 300))
@settings(deadline=None, max_examples=10)
def test_chunks_do_not_change_the_grid(chunk: int) -> None:
    def density(xyz: Tensor) -> Tensor:  # sums and products only: exp and sqrt round differently in vector lanes
        return (xyz[:, 0] * 4 + xyz[:, 1]) * 4 + xyz[:, 2]

    assert np.array_equal(sample_density_grid(density, 5, chunk=chunk), sample_density_grid(density, 5))


def test_a_density_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"\(27,\), got \(27, 1\)"):
        sample_density_grid(lambda xyz: xyz[:, :1], 2)


def test_sampling_keeps_no_gradients() -> None:
    scale = torch.ones(1, requires_grad=True)
    seen: list[bool] = []

    def density(xyz: Tensor) -> Tensor:
        result = (xyz * scale).sum(-1)
        seen.append(result.requires_grad)
        return result

    sample_density_grid(density, 2)
    assert seen == [False]


@given(raw=st.floats(-8, 80))
def test_raw_is_the_inverse_of_softplus(raw: float) -> None:
    density = np.array([math.log1p(math.exp(raw))])
    assert raw_from_density(density)[0] == pytest.approx(raw, abs=1e-4)


def test_raw_of_nothing_is_finite_and_below_everything() -> None:
    nothing, little = raw_from_density(np.array([0.0, 0.01], dtype=np.float32))
    assert np.isfinite(nothing)
    assert nothing < little


def test_the_peak_projection_of_one_corner_is_seen_where_the_camera_looks() -> None:
    grid = np.zeros((5, 5, 5), dtype=np.float32)
    grid[2, 2, 2] = 7.0
    peaks = peak_projection(grid, orbit(4, elevation_deg=0), 33, 33)
    assert peaks.shape == (4, 33, 33)
    # The central ray passes the origin; its 8 samples are 2/7 apart, so one is within 1/7 of it: 7 * (1 - 2/7) = 5.
    assert peaks[:, 16, 16] == pytest.approx([5, 5, 5, 5], abs=0.01)
    assert np.all(peaks[:, 0, 0] <= 0)


def test_rays_that_miss_the_cube_see_nothing() -> None:
    peaks = peak_projection(np.ones((3, 3, 3), np.float32), orbit(1, elevation_deg=0, distance=10.0), 9, 9)
    assert peaks[0, 0, 0] == -math.inf
    assert peaks[0, 4, 4] == 1


def test_the_peak_projection_does_not_depend_on_its_batches() -> None:
    grid = sample_density_grid(ball(0.5), 8)
    whole = peak_projection(grid, orbit(2), 10, 10)
    assert np.array_equal(whole, peak_projection(grid, orbit(2), 10, 10, samples=50))


# --- the surface ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.3, 0.5, 0.8])
def test_a_ball_is_extracted_where_it_is(radius: float) -> None:
    surface = extract_surface(sample_density_grid(ball(radius), 32), math.log(2))
    assert np.linalg.norm(surface.vertices, axis=1) == pytest.approx(radius, abs=0.003)
    assert volume(surface) == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.03)  # chords lie inside
    assert closed(surface)
    assert surface.voxel == 2 / 32
    assert surface.vertices.dtype == np.float32
    assert surface.faces.dtype == np.int64


def test_faces_look_outwards() -> None:
    surface = extract_surface(sample_density_grid(ball(0.5), 24), math.log(2))
    outward = surface.vertices / np.linalg.norm(surface.vertices, axis=1, keepdims=True)
    assert (vertex_normals(surface.vertices, surface.faces) * outward).sum(1).min() > 0.95


def test_the_raw_space_places_the_surface_better_than_the_density_would() -> None:
    density, radius = ball(0.5, sharpness=120.0), 0.5
    grid = sample_density_grid(density, 24)
    ours = np.linalg.norm(extract_surface(grid, math.log(2)).vertices, axis=1)
    from skimage.measure import marching_cubes

    vertices = marching_cubes(grid, math.log(2), spacing=(2 / 24,) * 3)[0] - 1  # type: ignore[no-untyped-call]
    plain = np.linalg.norm(vertices, axis=1)
    assert np.abs(ours - radius).mean() < np.abs(plain - radius).mean() / 5


def test_axes_are_not_swapped() -> None:
    surface = extract_surface(sample_density_grid(ball(0.2, centre=(0.6, 0.1, -0.4)), 32), math.log(2))
    assert surface.vertices.mean(axis=0) == pytest.approx([0.6, 0.1, -0.4], abs=0.01)


def test_an_object_that_touches_the_border_is_closed_on_it() -> None:
    surface = extract_surface(sample_density_grid(ball(0.5, centre=(1, 0, 0)), 32), math.log(2))
    assert closed(surface)
    assert surface.vertices.max() == 1.0
    assert volume(surface) == pytest.approx(2 / 3 * math.pi * 0.5**3, rel=0.03)  # half a ball


def test_a_wholly_solid_grid_is_the_cube_itself() -> None:
    surface = extract_surface(np.full((9, 9, 9), 50.0, np.float32), 10.0)
    assert closed(surface)
    assert 7.8 < volume(surface) <= 8.0  # marching cubes bevels the edges


def test_specks_are_dropped_and_parts_are_kept() -> None:
    grid = sample_density_grid(union(ball(0.4), ball(0.2, centre=(-0.7, 0, 0)), ball(0.06, centre=(0.8, 0.8, 0.8))), 48)
    everything = extract_surface(grid, math.log(2))
    cleaned = extract_surface(grid, math.log(2), 0.01)  # (0.2 / 0.4)^3 = 0.125 stays, (0.06 / 0.4)^3 = 0.003 goes
    assert everything.vertices.max() > 0.8
    assert cleaned.vertices.max() < 0.5
    assert cleaned.vertices.min() < -0.85
    assert set(np.unique(cleaned.faces)) == set(range(len(cleaned.vertices)))


def test_cavities_are_filled() -> None:
    def shell(xyz: Tensor) -> Tensor:
        return torch.nn.functional.softplus(80 * (0.15 - (xyz.norm(dim=-1) - 0.5).abs()))

    surface = extract_surface(sample_density_grid(shell, 40), math.log(2))
    assert np.linalg.norm(surface.vertices, axis=1).min() > 0.6
    assert volume(surface) == pytest.approx(4 / 3 * math.pi * 0.65**3, rel=0.02)


def test_without_specks_of_nothing_is_nothing() -> None:
    vertices, faces = without_specks(np.zeros((3, 3), np.float32), np.zeros((0, 3), np.int64), 0.1)
    assert vertices.shape == (0, 3)
    assert faces.shape == (0, 3)


def test_a_level_above_the_field_is_refused_with_both_numbers() -> None:
    with pytest.raises(CollapsedFieldError, match=r"at density 25.*largest is 5; use a lower level"):
        extract_surface(np.full((4, 4, 4), 5.0, np.float32), 25.0)


@pytest.mark.parametrize("level", [0.0, -1.0, math.nan])
def test_a_level_that_is_no_density_is_a_mistake(level: float) -> None:
    with pytest.raises(ValueError, match="must be a density"):
        extract_surface(np.ones((4, 4, 4), np.float32), level)


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=15)
def test_any_field_gives_a_closed_outward_surface_in_the_cube(seed: int) -> None:
    grid = np.random.default_rng(seed).gamma(0.5, 20.0, size=(7, 7, 7)).astype(np.float32)
    surface = extract_surface(grid, float(np.quantile(grid, 0.7)))
    assert volume(surface) > 0
    assert np.abs(surface.vertices).max() <= 1
    edges = np.sort(np.concatenate([surface.faces[:, [0, 1]], surface.faces[:, [1, 2]], surface.faces[:, [2, 0]]]), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all()


# --- normals and volumes ----------------------------------------------------------------------------------------


def test_the_normal_of_a_triangle_in_the_ground_plane_is_up() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    assert vertex_normals(vertices, np.array([[0, 1, 2]])).tolist() == [[0, 0, 1]] * 3


def test_normals_are_weighted_by_area() -> None:
    # Vertex 0 has a face of area 1/2 facing +z and one of area 3/2 facing +x: (3, 0, 1) / sqrt(10).
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 3]], np.float32)
    normals = vertex_normals(vertices, np.array([[0, 1, 2], [0, 2, 3]]))
    assert normals[0] == pytest.approx(np.array([3, 0, 1]) / math.sqrt(10), abs=1e-6)


def test_a_vertex_without_area_still_gets_a_unit_normal() -> None:
    normals = vertex_normals(np.zeros((4, 3), np.float32), np.array([[0, 1, 2]]))
    assert normals.tolist() == [[0, 0, 1]] * 4


@given(shift=st.tuples(*[st.floats(-5, 5)] * 3))
def test_volume_does_not_depend_on_the_place(shift: tuple[float, float, float]) -> None:
    box = trimesh.creation.box((1, 2, 3))
    assert face_volumes(box.vertices + np.array(shift), box.faces).sum() == pytest.approx(6)


# --- the level --------------------------------------------------------------------------------------------------


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


# --- colours ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sphere() -> Surface:
    return extract_surface(sample_density_grid(ball(0.5), 24), math.log(2))


def radius_as_color(xyz: Tensor) -> Tensor:
    radius: Tensor = torch.linalg.vector_norm(xyz, dim=-1, keepdim=True)
    return radius.expand(-1, 3)


@pytest.mark.parametrize(("inset", "radius"), [(None, 0.5 - 1 / 24), (0.0, 0.5), (0.1, 0.4)])
def test_colors_are_read_below_the_surface(sphere: Surface, inset: float | None, radius: float) -> None:
    colors = color_vertices(sphere, radius_as_color, inset=inset)
    assert colors.shape == sphere.vertices.shape
    assert colors == pytest.approx(radius, abs=0.01)


def test_colors_are_clamped_and_do_not_depend_on_chunks(sphere: Surface) -> None:
    assert color_vertices(sphere, lambda xyz: xyz * 9).min() == 0
    assert color_vertices(sphere, lambda xyz: xyz * 9).max() == 1
    assert np.array_equal(color_vertices(sphere, radius_as_color, chunk=7), color_vertices(sphere, radius_as_color))


def test_the_whole_way_colors_the_right_side() -> None:
    density, cameras = ball(0.5), orbit(4)

    def red_front(xyz: Tensor) -> Tensor:
        return torch.stack([(xyz[:, 0] > 0).float(), torch.zeros(len(xyz)), torch.zeros(len(xyz))], -1)

    masks = opacity_masks(density, cameras, 32)
    mesh = mesh_from_field(density, red_front, masks, cameras, replace(MeshRecipe(), resolution=24))
    front = mesh.surface.vertices[:, 0] > 0.1
    assert (mesh.colors[front, 0] == 1).all()
    assert (mesh.colors[mesh.surface.vertices[:, 0] < -0.1] == 0).all()
