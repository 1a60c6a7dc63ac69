from __future__ import annotations

import io
import json
import math
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from trimesh.exchange.ply import export_ply

from dream3d import __version__
from dream3d.errors import ExportError, UsageError
from dream3d.mesh.export import Asset, Placement, check_ending, export, read_provenance
from dream3d.mesh.formats.glb import glb_bytes, glb_document, json_bytes, linear_from_srgb
from dream3d.mesh.formats.registry import EXPORTERS, Exporter, comment
from dream3d.mesh.surface import face_volumes

NASTY = (
    'an "elk"\nskull\r\n\tv 1 2 3 # \\ end_header TextureFile x.png usemtl a mtllib b \u2028 \x85 \x00 émoji 🦌 日本 '
)


def ball(centre: tuple[float, float, float], radius: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sphere = trimesh.creation.icosphere(subdivisions=1, radius=radius)
    return np.asarray(sphere.vertices) + np.array(centre), np.asarray(sphere.faces, dtype=np.int64)


def axis_object() -> Asset:
    """A white ball in the middle, red towards the front (+x), green to +y, blue on top (+z)."""
    parts = [
        (ball((0, 0, 0), 0.3), (1, 1, 1)),
        (ball((0.8, 0, 0), 0.15), (1, 0, 0)),
        (ball((0, 0.6, 0), 0.1), (0, 1, 0)),
        (ball((0, 0, 0.5), 0.1), (0, 0, 1)),
    ]
    vertices, faces, colors, count = [], [], [], 0
    for (points, triangles), color in parts:
        vertices.append(points)
        faces.append(triangles + count)
        colors.append(np.tile(np.array(color, dtype=np.float32), (len(points), 1)))
        count += len(points)
    return Asset(np.concatenate(vertices), np.concatenate(faces), np.concatenate(colors), {"prompt": "axes", "seed": 7})


def single_triangle(**changes: Any) -> Asset:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
    return replace(Asset(vertices, np.array([[0, 1, 2]]), np.full((3, 3), 0.5, np.float32), {"prompt": "t"}), **changes)


def reload(path: Path) -> trimesh.Trimesh:
    (mesh,) = trimesh.load_scene(path, process=False).geometry.values()
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


def colors_of(path: Path) -> NDArray[np.float64]:
    """(V, 3) in the file's own space: linear for GLB, sRGB for the others."""
    mesh = reload(path)
    attributes = getattr(mesh.visual, "vertex_attributes", {})
    if "color" in attributes:
        return np.asarray(attributes["color"], dtype=np.float64)
    assert isinstance(mesh.visual, trimesh.visual.ColorVisuals)
    return np.asarray(mesh.visual.vertex_colors, dtype=np.float64)[:, :3] / 255


def accessor(path: Path, name: str) -> tuple[dict[str, Any], NDArray[Any]]:
    """Read an attribute of a GLB by hand, from the layout in the specification."""
    data = path.read_bytes()
    document = glb_document(data)
    primitive = document["meshes"][0]["primitives"][0]
    number = primitive["indices"] if name == "indices" else primitive["attributes"][name]
    info = document["accessors"][number]
    view = document["bufferViews"][info["bufferView"]]
    json_length = struct.unpack_from("<I", data, 12)[0]
    start = 20 + json_length + 8 + view["byteOffset"]
    kind = {5126: "<f4", 5125: "<u4"}[info["componentType"]]
    values = np.frombuffer(data[start : start + view["byteLength"]], dtype=kind)
    return info, values.reshape(info["count"], -1)


every_ending = pytest.mark.parametrize("ending", list(EXPORTERS))
colored_endings = pytest.mark.parametrize("ending", [key for key, value in EXPORTERS.items() if value.has_color])


# --- every format -----------------------------------------------------------------------------------------------


@every_ending
def test_every_format_reads_back(ending: str, tmp_path: Path) -> None:
    asset, path = axis_object(), tmp_path / f"axes{ending}"
    report = export(asset, path)
    mesh = reload(path)
    assert (report.vertices, report.faces) == (len(asset.vertices), len(asset.faces))
    assert report.bytes == path.stat().st_size
    assert len(mesh.faces) == len(asset.faces)
    assert np.asarray(mesh.triangles) == pytest.approx(report.placement.to_file(asset.vertices)[asset.faces], abs=1e-6)


@every_ending
def test_the_same_asset_gives_the_same_bytes(ending: str, tmp_path: Path) -> None:
    first, second = tmp_path / f"first{ending}", tmp_path / f"second{ending}"
    export(axis_object(), first)
    export(axis_object(), second)
    assert first.read_bytes() == second.read_bytes()


@every_ending
def test_files_lie_in_a_centred_unit_box(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"axes{ending}"
    export(axis_object(), path)
    low, high = reload(path).bounds
    assert (high - low).max() == pytest.approx(1, abs=1e-6)
    assert (high + low) == pytest.approx([0, 0, 0], abs=1e-6)


@every_ending
def test_front_is_plus_z_and_top_is_plus_y(ending: str, tmp_path: Path) -> None:
    # In world units: red reaches 0.95 in x (front), blue 0.6 in z (up), green 0.7 in y (the object's left).
    path = tmp_path / f"axes{ending}"
    report = export(axis_object(), path)
    vertices = report.placement.scale * np.array([0.95 - 0.3, 0, 0])  # how far red sticks out of the white ball
    mesh = reload(path)
    tip = np.asarray(mesh.vertices)[np.asarray(mesh.vertices)[:, 2].argmax()]
    assert tip[2] == pytest.approx(0.5, abs=1e-6)  # x is the longest side, so the front is at +Z = 0.5
    assert vertices[0] == pytest.approx(0.52, abs=1e-6)  # scale 1 / (0.95 + 0.3) = 0.8
    # Left and right are not mirrored: green is at +X when +Z comes towards you and +Y is up.
    assert mesh.bounds[1] == pytest.approx(np.array([1.0 / 2, 0.9 / 2, 1.25 / 2]) * 0.8, abs=1e-6)


@colored_endings
def test_colours_are_where_they_belong(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"axes{ending}"
    export(axis_object(), path)
    vertices, colors = np.asarray(reload(path).vertices), colors_of(path)
    for axis, color in ((2, (1, 0, 0)), (0, (0, 1, 0)), (1, (0, 0, 1))):
        assert colors[vertices[:, axis].argmax()] == pytest.approx(color)


@every_ending
def test_faces_stay_outward(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"axes{ending}"
    export(axis_object(), path)
    mesh = reload(path)
    assert face_volumes(np.asarray(mesh.vertices), np.asarray(mesh.faces)).sum() > 0


@every_ending
@pytest.mark.parametrize(
    "prompt", [NASTY, "end_header", "\n", "\\", "#", "x" * 5000, "\udcff lone", "", "\texturefile"]
)
def test_no_prompt_can_break_a_file(ending: str, prompt: str, tmp_path: Path) -> None:
    path = tmp_path / f"triangle{ending}"
    export(single_triangle(provenance={"prompt": prompt, "seed": 1}), path)
    assert len(reload(path).faces) == 1


@every_ending
@given(data=st.data())
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mesh_and_prompt_survive(ending: str, data: st.DataObject, tmp_path: Path) -> None:
    seed = data.draw(st.integers(0, 10_000))
    generator = np.random.default_rng(seed)
    count = data.draw(st.integers(3, 12))
    vertices = generator.normal(size=(count, 3)) * 10.0 ** generator.integers(-4, 4) + generator.normal(size=3)
    faces = np.stack([generator.permutation(count)[:3] for _ in range(data.draw(st.integers(1, 20)))])
    asset = Asset(vertices, faces, generator.random((count, 3)), {"prompt": data.draw(st.text()), "seed": seed})
    report = export(asset, tmp_path / f"any{ending}")
    assert (report.vertices, report.faces) == (len(np.unique(faces)), len(faces))
    assert sorted(tmp_path.iterdir()) == [tmp_path / f"any{ending}"]


@every_ending
def test_upper_case_endings_work(ending: str, tmp_path: Path) -> None:
    export(single_triangle(), tmp_path / f"t{ending.upper()}")
    assert check_ending(Path(f"t{ending.upper()}")) == ending


@pytest.mark.parametrize("name", ["a.fbx", "a", "a.glb.zip", ".glb"])
def test_other_endings_are_refused_with_a_list(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"use one of \.glb, \.obj, \.ply, \.stl"):
        export(single_triangle(), tmp_path / name)
    assert not list(tmp_path.iterdir())


# --- GLB --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("display", "linear"), [(0.0, 0.0), (0.04, 0.0030960), (0.2, 0.0331048), (0.5, 0.2140411), (1.0, 1.0)]
)
def test_linear_light_by_hand(display: float, linear: float) -> None:
    # 0.04 / 12.92; ((0.2 + 0.055) / 1.055)^2.4; ((0.5 + 0.055) / 1.055)^2.4
    assert linear_from_srgb(np.array([display]))[0] == pytest.approx(linear, abs=1e-7)


def test_glb_colours_are_linear_and_precise(tmp_path: Path) -> None:
    path = tmp_path / "t.glb"
    colors = np.array([[0.5, 0.5, 0.5], [0.02, 0.021, 0.022], [1, 0, 0.2]], np.float32)
    export(single_triangle(vertex_colors=colors), path)
    info, values = accessor(path, "COLOR_0")
    assert (info["componentType"], info["type"]) == (5126, "VEC3")
    assert values[0] == pytest.approx([0.21404] * 3, abs=1e-5)
    assert values[1] == pytest.approx(np.array([0.02, 0.021, 0.022]) / 12.92, rel=1e-5)  # 8 bits: 0, 0, 0
    assert values[2] == pytest.approx([1, 0, 0.0331048], abs=1e-6)


def test_bytes_are_display_values_too(tmp_path: Path) -> None:
    export(single_triangle(vertex_colors=np.full((3, 3), 128, np.uint8)), tmp_path / "t.glb")
    expected = ((128 / 255 + 0.055) / 1.055) ** 2.4
    assert accessor(tmp_path / "t.glb", "COLOR_0")[1] == pytest.approx(expected, abs=1e-6)


def test_the_glb_is_laid_out_as_the_specification_says(tmp_path: Path) -> None:
    path = tmp_path / "axes.glb"
    export(axis_object(), path)
    data = path.read_bytes()
    magic, version, total, json_length, json_type = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, total, json_type) == (b"glTF", 2, len(data), b"JSON")
    binary_length, binary_type = struct.unpack_from("<I4s", data, 20 + json_length)
    assert binary_type == b"BIN\x00"
    assert 20 + json_length + 8 + binary_length == total
    assert json_length % 4 == binary_length % 4 == 0
    document = json.loads(data[20 : 20 + json_length])
    assert document["buffers"] == [{"byteLength": binary_length}]
    end = 0
    for view in document["bufferViews"]:
        assert view["byteOffset"] == end
        assert end % 4 == 0
        end += view["byteLength"]
    assert end == binary_length
    assert [view["target"] for view in document["bufferViews"]] == [34963, 34962, 34962, 34962]


def test_the_glb_accessors_describe_their_data(tmp_path: Path) -> None:
    path, asset = tmp_path / "axes.glb", axis_object()
    export(asset, path)
    info, positions = accessor(path, "POSITION")
    assert info["min"] == positions.min(axis=0).tolist()
    assert info["max"] == positions.max(axis=0).tolist()
    assert info["count"] == len(asset.vertices)
    info, indices = accessor(path, "indices")
    assert (info["type"], info["componentType"], info["count"]) == ("SCALAR", 5125, 3 * len(asset.faces))
    assert np.array_equal(indices.reshape(-1, 3), asset.faces)
    _, normals = accessor(path, "NORMAL")
    assert np.linalg.norm(normals, axis=1) == pytest.approx(1, abs=1e-6)
    white = slice(0, 42)  # the first ball, whose normals point away from its centre
    outward = positions[white] - positions[white].mean(axis=0)
    assert (normals[white] * outward).sum(axis=1).min() > 0


def test_the_glb_material_and_generator(tmp_path: Path) -> None:
    export(single_triangle(), tmp_path / "t.glb")
    document = glb_document((tmp_path / "t.glb").read_bytes())
    assert document["asset"]["version"] == "2.0"
    assert document["asset"]["generator"] == f"dream3d {__version__}"
    (material,) = document["materials"]
    assert material["doubleSided"] is False
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert material["pbrMetallicRoughness"]["baseColorFactor"] == [1, 1, 1, 1]


def test_provenance_comes_back(tmp_path: Path) -> None:
    provenance = {"prompt": NASTY, "seed": 2**40, "recipe": {"steps": 600, "lr": [0.01, None, True]}, "日本": "🦌"}
    export(single_triangle(provenance=provenance), tmp_path / "t.glb")
    assert read_provenance(tmp_path / "t.glb") == provenance


def test_half_characters_become_question_marks(tmp_path: Path) -> None:
    export(single_triangle(provenance={"prompt": "caf\udce9"}), tmp_path / "t.glb")
    assert read_provenance(tmp_path / "t.glb") == {"prompt": "caf?"}


def test_tuples_are_fine_in_provenance(tmp_path: Path) -> None:
    export(single_triangle(provenance={"range": (0.0, 30.0)}), tmp_path / "t.glb")
    assert read_provenance(tmp_path / "t.glb") == {"range": [0.0, 30.0]}


def test_files_without_provenance_say_so(tmp_path: Path) -> None:
    export(single_triangle(), tmp_path / "t.obj")
    for path in (tmp_path / "t.obj", tmp_path / "missing.glb"):
        with pytest.raises(ExportError, match="holds no dream3d provenance"):
            read_provenance(path)


@pytest.mark.parametrize("data", [b"", b"glTF", b"x" * 100])
def test_what_is_not_a_glb_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"glb|glTF"):
        glb_document(data)


def test_a_cut_glb_is_noticed() -> None:
    vertices = np.eye(3, dtype=np.float32)
    data = glb_bytes(vertices, vertices, vertices, np.array([[0, 1, 2]]), {}, {})
    assert glb_document(data)["asset"]["extras"] == {"dream3d": {}}
    with pytest.raises(ValueError, match="cut off"):
        glb_document(data[:-1])


def test_json_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"loss": math.nan})


# --- OBJ and PLY comments, placement ----------------------------------------------------------------------------


@given(prompt=st.text(max_size=60) | st.sampled_from([NASTY, "\texturefile", "END_HEADER", "\\end_header"]))
def test_comments_are_one_harmless_line_of_json(prompt: str) -> None:
    line = comment({"prompt": prompt, "seed": 3, "recipe": {"left": "out"}})
    assert line.isascii()
    assert line.isprintable()
    assert "end_header" not in line.lower()
    assert "texturefile" not in line.lower()
    assert json.loads(line.removeprefix(f"dream3d {__version__} ")) == {"prompt": prompt, "seed": 3}


def test_long_prompts_are_cut_in_comments_only() -> None:
    assert len(comment({"prompt": "x" * 10_000})) < 500


@pytest.mark.parametrize("ending", [".obj", ".ply"])
def test_text_formats_name_the_prompt(ending: str, tmp_path: Path) -> None:
    export(single_triangle(provenance={"prompt": "an elk", "seed": 5}), tmp_path / f"t{ending}")
    head = (tmp_path / f"t{ending}").read_bytes()[:200]
    assert b'{"prompt": "an elk", "seed": 5}' in head
    assert b"trimesh" not in head


def test_obj_lines_by_hand(tmp_path: Path) -> None:
    # World (0,0,0), (1,0,0), (0,1,0): centre (0.5, 0.5, 0), scale 1; (x, y, z) -> (y, z, x); 0.5 * 255 = 127.5 -> 128.
    export(single_triangle(), tmp_path / "t.obj")
    lines = (tmp_path / "t.obj").read_text().splitlines()
    numbers = [[float(word) for word in line.split()[1:]] for line in lines if line.startswith("v ")]
    gray = 128 / 255
    assert numbers[0] == pytest.approx([-0.5, 0, -0.5, gray, gray, gray], abs=1e-6)
    assert numbers[1][:3] == [-0.5, 0, 0.5]
    assert numbers[2][:3] == [0.5, 0, -0.5]
    assert "f 1 2 3" in lines


@given(
    centre=st.tuples(*[st.floats(-3, 3)] * 3),
    scale=st.floats(0.01, 100),
    point=st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_placement_can_be_undone(
    centre: tuple[float, float, float], scale: float, point: tuple[float, float, float]
) -> None:
    placement = Placement(centre, scale)
    world = np.array([point])
    assert placement.to_world(placement.to_file(world)) == pytest.approx(world, abs=1e-9)


def test_the_frame_change_is_a_rotation() -> None:
    turned = Placement((0, 0, 0), 1).to_file(np.eye(3))
    assert turned.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert np.linalg.det(turned) == pytest.approx(1)


def test_the_glb_says_how_to_get_back_to_the_world(tmp_path: Path) -> None:
    asset, path = axis_object(), tmp_path / "axes.glb"
    placement = export(asset, path).placement
    extras = glb_document(path.read_bytes())["nodes"][0]["extras"]
    assert Placement(tuple(extras["world_centre"]), extras["world_scale"]) == placement
    assert placement.to_world(accessor(path, "POSITION")[1]) == pytest.approx(asset.vertices, abs=1e-6)


# --- what must not be written -----------------------------------------------------------------------------------

NO_FACES = np.zeros((0, 3), np.int64)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"faces": NO_FACES}, "no faces"),
        ({"vertices": np.array([[0, 0, 0], [1, 0, math.nan], [0, 1, 0]])}, "1 of 3 vertices are not finite"),
        ({"vertices": np.zeros((3, 3))}, "in one point"),
        ({"vertices": np.zeros((3, 2))}, r"\(3, 2\)"),
        ({"faces": np.array([[0, 1, 3]])}, r"0\.\.3, but there are 3"),
        ({"faces": np.array([[0, 1, -1]])}, r"-1\.\.1"),
        ({"vertex_colors": np.zeros((2, 3))}, r"\(3, 3\), got \(2, 3\)"),
        ({"vertex_colors": np.full((3, 3), 1.5)}, r"in \[0, 1\], got 1\.5"),
        ({"vertex_colors": np.full((3, 3), math.nan)}, r"in \[0, 1\]"),
        ({"provenance": {"path": Path("x")}}, "not plain JSON"),
        ({"provenance": {"loss": math.inf}}, "not plain JSON"),
    ],
)
@every_ending
def test_bad_assets_are_refused(ending: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words) as caught:
        export(single_triangle(**changes), tmp_path / f"t{ending}")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@every_ending
def test_vertices_that_no_face_uses_are_left_out(ending: str, tmp_path: Path) -> None:
    vertices = np.array([[9, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
    stray = single_triangle(vertices=vertices, faces=np.array([[1, 2, 3]]), vertex_colors=np.full((4, 3), 0.5))
    assert export(stray, tmp_path / f"stray{ending}").placement.scale == 1  # 9 would have made it 1 / 9
    export(single_triangle(), tmp_path / f"plain{ending}")
    assert (tmp_path / f"stray{ending}").read_bytes() == (tmp_path / f"plain{ending}").read_bytes()


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


@every_ending
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    ending: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"t{ending}"
    path.write_bytes(b"older work")
    monkeypatch.setattr(os, function, full_disk)
    with pytest.raises(ExportError, match=r"cannot write .*No space left on device; check .*MB free"):
        export(single_triangle(), path)
    assert path.read_bytes() == b"older work"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No such file or directory; check that the folder exists"):
        export(single_triangle(), tmp_path / "nowhere" / "t.glb")


def test_an_interrupt_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(single_triangle(), tmp_path / "t.glb")
    assert not list(tmp_path.iterdir())


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "t.glb"
    path.write_bytes(b"older work")
    export(single_triangle(), path)
    assert len(reload(path).faces) == 1


def without_colors(data: bytes) -> bytes:
    mesh = trimesh.load_mesh(io.BytesIO(data), file_type="ply", process=False)
    return bytes(export_ply(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)))


SABOTAGE: dict[str, Callable[[bytes], bytes]] = {
    "did not read back": lambda data: data[: len(data) // 2],
    "its colours are gone": without_colors,
    "its positions are off": lambda data: data.replace(struct.pack("<f", 0.5), struct.pack("<f", 0.4)),
    "its colours are off by": lambda data: data.replace(b"\x80\x80\x80\xff", b"\x00\x00\x00\xff"),
}


@pytest.mark.parametrize("words", list(SABOTAGE))
def test_a_file_that_reads_back_differently_never_appears(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = EXPORTERS[".ply"]
    sabotaged = Exporter(lambda mesh: SABOTAGE[words](honest.encode(mesh)), has_color=True, shares_vertices=True)
    monkeypatch.setitem(EXPORTERS, ".ply", sabotaged)
    with pytest.raises(ExportError, match=f"was not written: .*{words}"):
        export(single_triangle(), tmp_path / "t.ply")
    assert not list(tmp_path.iterdir())


def test_lost_provenance_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = EXPORTERS[".glb"]
    forgetful = replace(honest, encode=lambda mesh: honest.encode(replace(mesh, provenance={})))
    monkeypatch.setitem(EXPORTERS, ".glb", forgetful)
    with pytest.raises(ExportError, match="the provenance differs"):
        export(single_triangle(), tmp_path / "t.glb")


@every_ending
def test_a_lost_face_is_an_error(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = EXPORTERS[ending]
    lossy = replace(honest, encode=lambda mesh: honest.encode(replace(mesh, faces=mesh.faces[1:])))
    monkeypatch.setitem(EXPORTERS, ending, lossy)
    with pytest.raises(ExportError, match="faces instead of"):
        export(axis_object(), tmp_path / f"t{ending}")
    assert not list(tmp_path.iterdir())
