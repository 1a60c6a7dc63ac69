"""The extracted surface: where it lies, that it is closed, its normals and its colours."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh_fields import ball, opacity_masks, union
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.errors import CollapsedFieldError
from dream3d.mesh.extract import color_vertices, extract_surface, mesh_from_field
from dream3d.mesh.grid import sample_density_grid
from dream3d.mesh.surface import Surface, cap_area, drop_small_components, face_volumes, vertex_normals
from dream3d.recipe.generation import MeshRecipe


def volume(surface: Surface) -> float:
    return float(face_volumes(surface.vertices, surface.faces).sum())


def closed(surface: Surface) -> bool:
    return bool(trimesh.Trimesh(surface.vertices, surface.faces, process=False).is_watertight)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [-1, 1])
def test_caps_are_the_area_that_the_border_cut_flat(axis: int, side: int) -> None:
    away, radius = 0.8, 0.5
    x, y, z = np.eye(3)[axis] * side * away
    surface = extract_surface(sample_density_grid(ball(radius, centre=(x, y, z)), 64), math.log(2))
    # By hand: the disc on the border, and the part of the sphere inside it (Archimedes).
    disc, rest = radius**2 - (1 - away) ** 2, 2 * radius * (radius + 1 - away)
    assert cap_area(surface) == pytest.approx(disc / (disc + rest), rel=0.03)


@pytest.mark.parametrize("radius", [0.5, 0.96])
def test_what_ends_inside_the_volume_has_no_caps(radius: float) -> None:
    assert cap_area(extract_surface(sample_density_grid(ball(radius), 32), math.log(2))) == 0
    box = trimesh.creation.box((1.9, 1.9, 1.9))  # flat, but not cut
    assert cap_area(Surface(box.vertices.astype(np.float32), np.array(box.faces, np.int64), 2 / 128)) == 0


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


def test_drop_small_components_of_nothing_is_nothing() -> None:
    vertices, faces = drop_small_components(np.zeros((3, 3), np.float32), np.zeros((0, 3), np.int64), 0.1)
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
