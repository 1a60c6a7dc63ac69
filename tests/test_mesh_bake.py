"""Textures: which texel shows what, the field's colour there, and what other programs read of the file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from mesh_assets import accessor
from mesh_fields import opacity_masks
from numpy.typing import NDArray
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.mesh import bake
from dream3d.mesh.appearance import Texture, VertexColors
from dream3d.mesh.bake import colors_along_normals, painted, texels_of
from dream3d.mesh.export import Asset, export
from dream3d.mesh.extract import FieldMesh, mesh_from_field, with_texture
from dream3d.mesh.layout import Layout
from dream3d.mesh.shading import shade
from dream3d.recipe.generation import MeshRecipe

CAMERAS = orbit(6)
RADIUS = 0.6


def density(xyz: Tensor) -> Tensor:
    return torch.nn.functional.softplus(60 * (RADIUS - xyz.norm(dim=-1)))


def stripes(xyz: Tensor) -> Tensor:
    """Bands around the ball, finer than the faces of a coarse mesh, red to the front and blue to the back."""
    band = 0.5 + 0.4 * torch.sin(24 * xyz[:, 2] / xyz.norm(dim=-1).clamp_min(0.1))
    return torch.stack([(xyz[:, 0] > 0).float(), band, (xyz[:, 0] <= 0).float()], dim=-1)


def field(xyz: Tensor) -> tuple[Tensor, Tensor]:
    return density(xyz), stripes(xyz)


@pytest.fixture(scope="module")
def coarse() -> FieldMesh:
    masks = opacity_masks(density, CAMERAS, 48)
    return mesh_from_field(density, stripes, masks, CAMERAS, MeshRecipe(resolution=48, faces=1000))


@pytest.fixture(scope="module")
def textured(coarse: FieldMesh) -> FieldMesh:
    return with_texture(coarse, field, 256)


# --- texels -----------------------------------------------------------------------------------------------------

TRIANGLE = np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0]], np.float32)
ONE_FACE = np.array([[0, 1, 2]], np.int64)
FLAT = Layout(np.arange(3), ONE_FACE, np.array([[0, 0], [1, 0], [0, 1]], np.float32))


def test_texels_by_hand() -> None:
    # An image of 4 x 4 over a triangle of side 4: texel (row, column) shows the point (column + 0.5, row + 0.5, 0).
    texels = texels_of(TRIANGLE, ONE_FACE, FLAT, 4)
    # Centres with column + row + 1 <= 4; those on the long edge belong to it.
    inside = [(row, column) for row in range(4) for column in range(4) if row + column <= 3]
    assert texels.pixel.tolist() == [4 * row + column for row, column in inside]
    assert texels.positions == pytest.approx(np.array([[column + 0.5, row + 0.5, 0] for row, column in inside]))
    assert texels.normals == pytest.approx(np.array([[0, 0, 1]] * len(inside)))


def test_where_two_faces_overlap_the_first_is_shown() -> None:
    two = np.array([[0, 1, 2], [0, 1, 2]], np.int64)
    high = np.concatenate([TRIANGLE, TRIANGLE + np.array([0, 0, 9], np.float32)])
    layout = Layout(np.arange(6), np.array([[0, 1, 2], [3, 4, 5]]), np.tile(FLAT.uv, (2, 1)))
    assert (texels_of(high, np.array([[0, 1, 2], [3, 4, 5]]), layout, 4).positions[:, 2] == 0).all()
    assert len(texels_of(TRIANGLE, two, Layout(FLAT.source, two, FLAT.uv), 4).pixel) == 10


# --- colours ----------------------------------------------------------------------------------------------------


def looked_up(field: Any, outward: float = 1.0) -> NDArray[np.float32]:
    position, normal = np.zeros((1, 3), np.float32), np.array([[outward, 0, 0]], np.float32)
    return colors_along_normals(field, position, normal, 0.1)[0]


def test_the_colour_is_that_of_the_first_solid_layer() -> None:
    # Solid from the surface inwards: red skin as deep as a sample, blue below it, and green fog outside.
    def layers(xyz: Tensor) -> tuple[Tensor, Tensor]:
        x = xyz[:, 0]
        solid = torch.where(x <= 1e-6, 1e4, 1e-3)
        return solid, torch.stack([(x > -0.02) & (x <= 1e-6), x > 1e-6, x <= -0.02], dim=-1).float()

    assert looked_up(layers) == pytest.approx([1, 0, 0], abs=1e-3)
    assert looked_up(layers, -1.0) == pytest.approx([0, 0, 1], abs=1e-3)  # from the other side: what is deep


def test_half_transparent_layers_are_mixed_as_a_ray_mixes_them() -> None:
    step = (bake.OUTSIDE + bake.INSIDE) * 0.1 / (bake.SAMPLES - 1)

    def fog(xyz: Tensor) -> tuple[Tensor, Tensor]:  # each sample lets half of the light pass
        first = xyz[:, 0] > bake.OUTSIDE * 0.1 - step / 2
        return torch.full((len(xyz),), math.log(2) / step), first.float()[:, None].expand(-1, 3)

    # The first stops 1/2 of the light, all of them together 1 - 2^-samples.
    assert looked_up(fog) == pytest.approx([0.5 / (1 - 0.5**bake.SAMPLES)] * 3, abs=1e-5)


def test_where_there_is_next_to_nothing_the_densest_point_counts() -> None:
    def thin(xyz: Tensor) -> tuple[Tensor, Tensor]:
        dense = xyz[:, 0] < -0.29
        return torch.where(dense, 1e-6, 1e-7), dense.float()[:, None].expand(-1, 3)

    assert looked_up(thin) == pytest.approx([1, 1, 1])
    assert colors_along_normals(thin, np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), 0.1).shape == (0, 3)


def test_colours_bleed_over_the_edge_and_no_further() -> None:
    size = 64
    pixel = np.array([32 * size + 20, 32 * size + 40])
    image = painted(pixel, np.array([[1, 0, 0], [0, 0, 1]], np.float32), size)
    assert image[32, 20 + bake.BLED].tolist() == [255, 0, 0]
    assert image[32 - bake.BLED, 40].tolist() == [0, 0, 255]
    assert image[0, 0].tolist() == [128, 0, 128]  # the mean


# --- the whole --------------------------------------------------------------------------------------------------


def test_the_surface_has_the_faces_that_were_asked_for_and_is_closed(coarse: FieldMesh) -> None:
    assert len(coarse.surface.faces) == 1000
    assert coarse.watertight
    assert coarse.notes == ()
    assert coarse.iou > 0.95


def test_every_texel_in_use_has_the_fields_colour(textured: FieldMesh) -> None:
    assert textured.layout is not None
    assert textured.image is not None
    surface = textured.surface
    texels = texels_of(surface.vertices, surface.faces, textured.layout, 256)
    assert len(texels.pixel) > 256 * 256 / 3
    found = textured.image.reshape(-1, 3)[texels.pixel] / 255
    wanted = stripes(torch.from_numpy(texels.positions)).numpy()
    sure = np.abs(texels.positions[:, 0]) > 0.03  # not where red meets blue
    assert np.abs(found - wanted)[sure].mean() < 0.03


def test_a_texture_shows_what_vertices_cannot(coarse: FieldMesh, textured: FieldMesh) -> None:
    truth = with_texture(coarse, field, 1024)  # as fine as can be
    views = [shade(*mesh.skin, CAMERAS, 64, 64, ambient=1.0).astype(float) for mesh in (truth, textured, coarse)]
    errors = [np.square(view - views[0]).mean() for view in views[1:]]
    assert 10 * math.log10(errors[1] / errors[0]) > 3


def mean_color(mesh: trimesh.Trimesh) -> NDArray[np.float64]:
    """Mean display colour of a mesh that trimesh read, weighted by the area of its faces."""
    visual: Any = mesh.visual
    visual = visual.to_color() if hasattr(visual, "uv") else visual
    colors = np.asarray(visual.vertex_colors)[:, :3] / 255
    area = np.asarray(mesh.area_faces)
    return np.asarray((colors[mesh.faces].mean(axis=1) * area[:, None]).sum(axis=0) / area.sum())


def test_another_program_reads_the_colours_of_the_glb_and_keeps_them_in_an_obj(
    textured: FieldMesh, tmp_path: Path
) -> None:
    export(Asset(*textured.skin), tmp_path / "x.glb")
    read: Any = trimesh.load(tmp_path / "x.glb", force="mesh")
    # Over the ball: half red, half blue, and the bands' mean: the sine is odd in z.
    assert mean_color(read) == pytest.approx([0.5, 0.5, 0.5], abs=0.04)
    front = trimesh.Trimesh(read.vertices, read.faces[read.triangles_center[:, 2] > 0.1], process=False)
    front.visual = read.visual.to_color()
    assert mean_color(front)[0] > 0.95
    assert mean_color(front)[2] < 0.05
    (tmp_path / "again").mkdir()
    read.export(tmp_path / "again" / "y.obj")
    again: Any = trimesh.load(tmp_path / "again" / "y.obj", force="mesh")
    assert mean_color(again) == pytest.approx(mean_color(read), abs=0.02)


@pytest.mark.parametrize("extension", [".glb", ".obj"])
def test_a_textured_file_is_closed_for_a_reader_that_joins_places(
    extension: str, textured: FieldMesh, tmp_path: Path
) -> None:
    path = tmp_path / f"x{extension}"
    export(Asset(*textured.skin), path)
    read: Any = trimesh.load(path, force="mesh")
    read.merge_vertices(merge_tex=True, merge_norm=True)
    assert read.is_watertight


def test_normals_do_not_show_the_seams(textured: FieldMesh, tmp_path: Path) -> None:
    export(Asset(*textured.skin), tmp_path / "x.glb")
    (_, vertices), (_, normals) = accessor(tmp_path / "x.glb", "POSITION"), accessor(tmp_path / "x.glb", "NORMAL")
    _, place = np.unique(vertices, axis=0, return_inverse=True)
    place = place.reshape(-1)
    first = np.full(place.max() + 1, -1)
    first[place[::-1]] = np.arange(len(place))[::-1]
    assert len(first) < len(place)  # there are seams
    assert np.array_equal(normals, normals[first[place]])


def test_the_same_field_gives_the_same_file(coarse: FieldMesh, textured: FieldMesh, tmp_path: Path) -> None:
    export(Asset(*textured.skin), tmp_path / "one.glb")
    export(Asset(*with_texture(coarse, field, 256).skin), tmp_path / "two.glb")
    assert (tmp_path / "one.glb").read_bytes() == (tmp_path / "two.glb").read_bytes()


def test_without_a_texture_vertices_have_the_colours(coarse: FieldMesh) -> None:
    same = with_texture(coarse, field, 0)
    assert same is coarse
    assert isinstance(same.skin[2], VertexColors)


# --- looking at it ----------------------------------------------------------------------------------------------


def test_a_texture_between_its_pixels_by_hand() -> None:
    image = np.array([[[0, 0, 0], [200, 0, 0]], [[0, 100, 0], [200, 100, 0]]], np.uint8)
    texture = Texture(np.zeros((1, 2)), image)
    # Centres of the pixels are at 0.25 and 0.75; beyond them the edge's colour goes on.
    places = np.array([[0.25, 0.25], [0.5, 0.25], [0.5, 0.5], [0, 0], [1, 1]])
    expected = [[0, 0, 0], [100, 0, 0], [100, 50, 0], [0, 0, 0], [200, 100, 0]]
    assert texture.at(places) * 255 == pytest.approx(np.array(expected), abs=1e-3)
