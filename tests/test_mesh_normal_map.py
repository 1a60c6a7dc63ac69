"""Normal maps: frames and directions by hand, a sphere of few faces that looks like one of many, and the files."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from mesh_assets import accessor, reload, textured_quad
from numpy.typing import NDArray
from PIL import Image

from dream3d.cameras import orbit
from dream3d.errors import ExportError
from dream3d.mesh.appearance import Texture, image_at
from dream3d.mesh.bake import painted, texels_of
from dream3d.mesh.boxmap import box_layout
from dream3d.mesh.companions import companions_of
from dream3d.mesh.export import Asset, export
from dream3d.mesh.formats.glb import glb_document
from dream3d.mesh.formats.registry import EXPORTERS
from dream3d.mesh.layout import Layout
from dream3d.mesh.normal_map import normal_colors
from dream3d.mesh.reading import read_mesh
from dream3d.mesh.shading import shade
from dream3d.mesh.surface import Surface, vertex_normals
from dream3d.mesh.tangents import bitangents, decoded, from_frame, tangents_of, to_frame, unit

FLAT = [128, 128, 255]
SIDE = 256
QUAD = textured_quad()
QUAD_FACES = np.asarray(QUAD.faces, np.int64)
PICTURE: Any = QUAD.appearance
QUAD_LAYOUT = Layout(np.arange(4), QUAD_FACES, PICTURE.uv)


# --- frames -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mirrored", "tangent", "sign"), [(False, [0, 1, 0], 1), (True, [0, -1, 0], -1)], ids=["as it is", "mirrored"]
)
def test_frames_by_hand(mirrored: bool, tangent: list[int], sign: int) -> None:
    # The quad faces +x; its image's right is +y, or -y in the mirror, and its top +z.
    uv = PICTURE.uv * (-1, 1) + (1, 0) if mirrored else PICTURE.uv
    normals = np.tile([1.0, 0, 0], (4, 1))
    found = tangents_of(QUAD.vertices, normals, QUAD_FACES, uv)
    assert found == pytest.approx(np.tile([*tangent, sign], (4, 1)))
    assert bitangents(normals, found) == pytest.approx(np.tile([0, 0, 1], (4, 1)))


def test_a_vertex_without_an_image_has_some_frame() -> None:
    found = tangents_of(QUAD.vertices, np.tile([0, 0.6, 0.8], (4, 1)), QUAD_FACES, np.zeros((4, 2)))
    assert np.linalg.norm(found[:, :3], axis=1) == pytest.approx(1)
    assert found[:, :3] @ np.array([0, 0.6, 0.8]) == pytest.approx(0, abs=1e-6)
    assert (found[:, 3] == 1).all()


numbers = st.floats(-1, 1).map(lambda one: round(one, 3))
vectors = st.tuples(numbers, numbers, numbers).map(np.array)


@given(vectors, vectors, st.tuples(numbers, numbers, st.floats(0.1, 1)))
def test_a_direction_comes_back_from_any_frame(normal: Any, tangent: Any, front: Any) -> None:
    normal, tangent = unit(normal[None] + [[0, 0, 2]]), unit(tangent[None] + [[2, 0, 0]])  # askew, but apart
    frame = (tangent, unit(np.cross(normal, tangent)), normal)
    direction = from_frame(unit(np.array([front])), frame)
    assert from_frame(to_frame(direction, frame), frame) == pytest.approx(direction, abs=1e-9)


def test_what_no_map_can_say() -> None:
    frame = tuple(np.eye(3)[None, axis] for axis in range(3))
    behind = to_frame(np.array([[0.0, 0.6, -0.8]]), frame)
    assert behind[0, 2] > 0
    assert behind[0, 1] > 0.9
    flat = (frame[0], frame[0], frame[2])
    assert to_frame(np.array([[0.0, 0.6, 0.8]]), flat).tolist() == [[0, 0, 1]]


# --- baking -----------------------------------------------------------------------------------------------------


def grid(x: Callable[[NDArray[np.float64]], NDArray[np.float64]], count: int) -> Surface:
    """A square over y and z in [0, 1], of ``count`` vertices a side, that faces +x."""
    y, z = np.meshgrid(np.linspace(0, 1, count), np.linspace(0, 1, count), indexing="ij")
    corner = np.arange(count * count).reshape(count, count)
    a, b, c, d = corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return Surface(np.stack([x(y), y, z], -1).reshape(-1, 3).astype(np.float32), faces, 1 / count)


def test_a_plane_is_flat_and_a_slope_is_not() -> None:
    texels = texels_of(QUAD.vertices, QUAD_FACES, QUAD_LAYOUT, 16)
    for slope, expected in ((0.0, FLAT), (1.0, [38, 128, 218])):  # x = slope * y: normal (1, -1, 0) / sqrt 2
        fine = grid(lambda y, slope=slope: slope * (y - 0.5), 20)  # type: ignore[misc]
        colors = normal_colors(fine, QUAD.vertices, QUAD_FACES, QUAD_LAYOUT, texels)
        image = painted(texels.pixel, colors, 16, rest=(0.5, 0.5, 1))
        assert (np.abs(image.astype(int) - expected) <= 1).all()


Ball = tuple[NDArray[np.float32], NDArray[np.int64], Layout, NDArray[np.uint8]]


@pytest.fixture(scope="module")
def ball() -> Ball:
    """Vertices, faces and layout of a sphere of 80 faces, and the normal map of one of 20,480."""
    low, high = (trimesh.creation.icosphere(subdivisions=count) for count in (1, 5))
    vertices, faces = np.asarray(low.vertices, np.float32), np.asarray(low.faces, np.int64)
    layout = box_layout(vertices, faces, SIDE, 4)
    texels = texels_of(vertices, faces, layout, SIDE)
    fine = Surface(np.asarray(high.vertices, np.float32), np.asarray(high.faces, np.int64), 0.05)
    colors = normal_colors(fine, vertices, faces, layout, texels)
    return vertices, faces, layout, painted(texels.pixel, colors, SIDE, rest=(0.5, 0.5, 1))


def degrees(found: NDArray[Any], truth: NDArray[Any]) -> float:
    return float(np.degrees(np.arccos(np.clip((unit(found) * unit(truth)).sum(axis=1), -1, 1))).mean())


def bent(ball: Ball, corner: NDArray[np.int64], weight: NDArray[np.float64], uv: NDArray[Any]) -> NDArray[Any]:
    """The normals that a viewer shows at places on faces with these corners (N, 3)."""
    vertices, _, layout, image = ball
    normals = vertex_normals(vertices, ball[1])[layout.source]
    tangents = tangents_of(vertices[layout.source], normals, layout.faces, layout.uv)
    parts = (tangents[:, :3], bitangents(normals, tangents), normals)
    frame = tuple(unit(np.einsum("tk,tkc->tc", weight, one[corner])) for one in parts)
    return from_frame(decoded(image_at(image, uv)).astype(np.float64), frame)


def test_eighty_faces_look_like_a_sphere(ball: Ball) -> None:
    vertices, faces, layout, _ = ball
    texels = texels_of(vertices, faces, layout, SIDE)
    truth = texels.positions.astype(np.float64)
    a, b, c = (vertices[faces[texels.face, corner]] for corner in range(3))
    place = np.stack([texels.pixel % SIDE + 0.5, texels.pixel // SIDE + 0.5], -1) / SIDE
    mapped = degrees(bent(ball, layout.faces[texels.face], texels.weights, place), truth)
    assert mapped < 0.5  # 8 bits tell 0.45 degrees apart
    assert degrees(np.cross(b - a, c - a), truth) > 15 * mapped


def test_a_flat_quad_keeps_the_waves_of_a_fine_one() -> None:
    # x = 0.02 sin(12 y): the normal (1, -0.24 cos(12 y), 0), up to its length; the quad's own is (1, 0, 0).
    fine = grid(lambda y: 0.02 * np.sin(12 * y), 100)
    texels = texels_of(QUAD.vertices, QUAD_FACES, QUAD_LAYOUT, 64)
    colors = normal_colors(fine, QUAD.vertices, QUAD_FACES, QUAD_LAYOUT, texels)
    y = texels.positions[:, 1].astype(np.float64)
    truth = np.stack([-0.24 * np.cos(12 * y), 0 * y, 1 + 0 * y], -1)  # in the frame (+y, +z, +x)
    assert degrees(decoded(colors).astype(np.float64), truth) < 0.5
    assert degrees(texels.normals.astype(np.float64), truth[:, [2, 0, 1]]) > 8


def test_seams_are_padded(ball: Ball) -> None:
    # At a chart's corner half of the pixels around lie outside of it.
    vertices, _, layout, image = ball
    corner = layout.faces
    weight = np.tile([1.0, 0, 0], (len(corner), 1))
    found = bent(ball, corner, weight, layout.uv[corner[:, 0]])
    assert degrees(found, vertices[layout.source[corner[:, 0]]].astype(np.float64)) < 2
    assert image[0, -1].tolist() == FLAT  # far away


def test_the_map_turns_the_light() -> None:
    white = np.full((1, 1, 3), 255, np.uint8)
    centred = QUAD.vertices - np.array([0, 0.5, 0.5])

    def seen(normal: list[float], azimuth: float = 0) -> int:
        bent = np.round((np.array(normal) + 1) * 127.5).astype(np.uint8).reshape(1, 1, 3)
        camera = orbit(1, elevation_deg=0, azimuth_deg=azimuth)
        texture = Texture(PICTURE.uv, white, bent)
        return int(shade(centred, QUAD_FACES, texture, camera, 9, 9, ambient=0.2)[0, 4, 4, 0])

    # 0.2 + 0.8 cos 45 degrees = 0.766, times 255: 195.
    assert seen([0, 0, 1]) >= 254
    assert seen([0.7071, 0, 0.7071]) == pytest.approx(195, abs=3)
    assert seen([0, -0.7071, 0.7071]) == pytest.approx(195, abs=3)
    assert seen([0.7071, 0, 0.7071], azimuth=45) >= 254  # the image's right is +y, and there the camera is


# --- files ------------------------------------------------------------------------------------------------------


def mapped_quad(seed: int = 0) -> Asset:
    normals = np.random.default_rng(seed).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    return replace(QUAD, appearance=replace(PICTURE, normals=normals))


def normals_of(asset: Asset) -> Any:
    assert isinstance(asset.appearance, Texture)
    return asset.appearance.normals


@pytest.mark.parametrize("extension", [".glb", ".obj", ".usdz"])
def test_a_normal_map_comes_back(extension: str, tmp_path: Path) -> None:
    export(mapped_quad(), tmp_path / f"quad{extension}")
    found = read_mesh(tmp_path / f"quad{extension}")
    assert np.array_equal(normals_of(found), normals_of(mapped_quad()))
    assert isinstance(found.appearance, Texture)
    assert np.array_equal(found.appearance.image, PICTURE.image)


@pytest.mark.parametrize("extension", [".glb", ".obj", ".usdz"])
@pytest.mark.parametrize("normals", [None, np.zeros((2, 2, 3), np.uint8)], ids=["lost", "another"])
def test_a_lost_normal_map_is_an_error(
    extension: str, normals: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = EXPORTERS[extension]

    def other(mesh: Any) -> Any:
        return replace(mesh, appearance=replace(mesh.appearance, normals=normals))

    damaged = replace(
        honest,
        encode=lambda mesh: honest.encode(other(mesh)),
        beside=honest.beside and (lambda mesh: honest.beside(other(mesh))),  # type: ignore[misc]
    )
    monkeypatch.setitem(EXPORTERS, extension, damaged)
    with pytest.raises(ExportError, match="its normal map is gone or another"):
        export(mapped_quad(), tmp_path / f"quad{extension}")
    assert not list(tmp_path.iterdir())


def test_the_glb_as_the_specification_wants_it(tmp_path: Path) -> None:
    path = tmp_path / "quad.glb"
    export(mapped_quad(), path)
    info, tangents = accessor(path, "TANGENT")
    assert (info["componentType"], info["type"]) == (5126, "VEC4")
    # The file's frame is (y, z, x) of the world: the image's right, +y, is x there.
    assert tangents == pytest.approx(np.tile([1, 0, 0, 1], (4, 1)))
    document = glb_document(path.read_bytes())
    assert document["materials"][0]["normalTexture"] == {"index": 1}
    assert document["textures"] == [{"source": 0}, {"source": 1}]
    views = [document["bufferViews"][image["bufferView"]] for image in document["images"]]
    assert all("target" not in view and view["byteOffset"] % 4 == 0 for view in views)
    data = path.read_bytes()
    start = 20 + struct.unpack_from("<I", data, 12)[0] + 8 + views[1]["byteOffset"]
    pixels = np.asarray(Image.open(io.BytesIO(data[start : start + views[1]["byteLength"]])))
    assert np.array_equal(pixels, normals_of(mapped_quad()))


def test_a_normal_map_of_a_wrong_shape_is_refused(tmp_path: Path) -> None:
    wrong = replace(QUAD, appearance=replace(PICTURE, normals=np.zeros((2, 2), np.uint8)))
    with pytest.raises(ExportError, match=r"a normal map must be \(H, W, 3\) uint8, got \(2, 2\)"):
        export(wrong, tmp_path / "t.glb")


def test_an_obj_names_it_and_has_normals_to_bend(tmp_path: Path) -> None:
    export(mapped_quad(), tmp_path / "quad.obj")
    image, normals, material = companions_of(tmp_path / "quad.obj")
    assert normals.name == f"{image.stem}-normal.png"
    assert f"map_Kd {image.name}\nnorm {normals.name}\n" in material.read_text()
    lines = (tmp_path / "quad.obj").read_text().splitlines()
    assert [line for line in lines if line.startswith("vn")] == ["vn 0.000000 0.000000 1.000000"] * 4
    assert all(len(corner.split("/")) == 3 for line in lines if line.startswith("f ") for corner in line.split()[1:])
    assert len(reload(tmp_path / "quad.obj").vertices) == 4


def test_an_objs_normal_map_comes_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "quad.obj"
    export(mapped_quad(), path)
    old = companions_of(path)
    export(mapped_quad(1), path)
    assert len(companions_of(path)) == 3
    assert not any(one.exists() for one in old)
    export(QUAD, path)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_normal_map_that_the_material_does_not_name_is_somebodys(tmp_path: Path) -> None:
    path = tmp_path / "quad.obj"
    export(QUAD, path)
    image, _ = companions_of(path)
    mine = image.with_name(f"{image.stem}-normal.png")
    mine.write_text("mine")
    export(mapped_quad(), path)
    assert mine.read_text() == "mine"
