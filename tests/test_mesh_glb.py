"""The GLB in detail: layout, linear colours, the texture, provenance, and what is refused."""

from __future__ import annotations

import io
import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mesh_assets import NASTY, accessor, axis_object, reload, single_triangle, textured_quad
from PIL import Image

from dream3d import __version__
from dream3d.errors import ExportError
from dream3d.mesh.appearance import Texture, VertexColors
from dream3d.mesh.export import Placement, export, read_provenance
from dream3d.mesh.formats.glb import glb_bytes, glb_document, json_bytes
from dream3d.mesh.formats.registry import EXPORTERS
from dream3d.mesh.srgb import linear_from_srgb


@pytest.mark.parametrize(
    ("display", "linear"), [(0.0, 0.0), (0.04, 0.0030960), (0.2, 0.0331048), (0.5, 0.2140411), (1.0, 1.0)]
)
def test_linear_light_by_hand(display: float, linear: float) -> None:
    # 0.04 / 12.92; ((0.2 + 0.055) / 1.055)^2.4; ((0.5 + 0.055) / 1.055)^2.4
    assert linear_from_srgb(np.array([display]))[0] == pytest.approx(linear, abs=1e-7)


def test_glb_colours_are_linear_and_precise(tmp_path: Path) -> None:
    path = tmp_path / "t.glb"
    colors = np.array([[0.5, 0.5, 0.5], [0.02, 0.021, 0.022], [1, 0, 0.2]], np.float32)
    export(single_triangle(appearance=VertexColors(colors)), path)
    info, values = accessor(path, "COLOR_0")
    assert (info["componentType"], info["type"]) == (5126, "VEC3")
    assert values[0] == pytest.approx([0.21404] * 3, abs=1e-5)
    assert values[1] == pytest.approx(np.array([0.02, 0.021, 0.022]) / 12.92, rel=1e-5)  # 8 bits: 0, 0, 0
    assert values[2] == pytest.approx([1, 0, 0.0331048], abs=1e-6)


def test_bytes_are_display_values_too(tmp_path: Path) -> None:
    export(single_triangle(appearance=VertexColors(np.full((3, 3), 128, np.uint8))), tmp_path / "t.glb")
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


def test_a_texture_is_an_embedded_png_with_coordinates_from_the_upper_left(tmp_path: Path) -> None:
    asset, path = textured_quad(), tmp_path / "quad.glb"
    assert isinstance(asset.appearance, Texture)
    export(asset, path)
    info, uv = accessor(path, "TEXCOORD_0")
    assert (info["componentType"], info["type"]) == (5126, "VEC2")
    assert np.array_equal(uv, asset.appearance.uv)
    data = path.read_bytes()
    document = glb_document(data)
    assert set(document["meshes"][0]["primitives"][0]["attributes"]) == {"POSITION", "NORMAL", "TEXCOORD_0"}
    assert document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"] == {"index": 0}
    (image,) = document["images"]
    assert document["textures"] == [{"source": 0}]
    assert image["mimeType"] == "image/png"
    view = document["bufferViews"][image["bufferView"]]
    assert "target" not in view  # the specification forbids one for images
    assert len(data) % 4 == document["buffers"][0]["byteLength"] % 4 == view["byteOffset"] % 4 == 0
    start = 20 + struct.unpack_from("<I", data, 12)[0] + 8 + view["byteOffset"]
    pixels = np.asarray(Image.open(io.BytesIO(data[start : start + view["byteLength"]])))
    assert np.array_equal(pixels, asset.appearance.image)


def test_another_reader_finds_the_texture_where_it_belongs(tmp_path: Path) -> None:
    export(textured_quad(), tmp_path / "quad.glb")
    visual: Any = reload(tmp_path / "quad.glb").visual
    # Vertex 3 is on top in the world and has uv (0, 0): red. Vertex 1 is below on the other side: white.
    assert visual.to_color().vertex_colors[[3, 1], :3].tolist() == [[255, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uv": np.zeros((3, 2))}, r"shape \(4, 2\), got \(3, 2\)"),
        ({"uv": np.full((4, 2), math.nan)}, r"in \[0, 1\]"),
        ({"uv": np.full((4, 2), 1.5)}, r"in \[0, 1\]"),
        ({"image": np.zeros((2, 2, 3))}, r"uint8, got \(2, 2, 3\) float64"),
        ({"image": np.zeros((2, 2), np.uint8)}, r"\(H, W, 3\) uint8, got \(2, 2\)"),
        ({"image": np.zeros((0, 2, 3), np.uint8)}, r"got \(0, 2, 3\)"),
    ],
)
def test_textures_that_cannot_be_written_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    asset = textured_quad()
    assert isinstance(asset.appearance, Texture)
    with pytest.raises(ExportError, match=words):
        export(replace(asset, appearance=replace(asset.appearance, **changes)), tmp_path / "t.glb")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda texture: Texture(texture.uv, texture.image[::-1]), "its texture is gone or another"),
        (lambda texture: VertexColors(np.full((4, 3), 0.5)), "its texture is gone or another"),
        (lambda texture: Texture(texture.uv[::-1], texture.image), "its texture coordinates are off by 1"),
    ],
)
def test_a_damaged_texture_never_appears(
    damage: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = EXPORTERS[".glb"]
    damaged = replace(honest, encode=lambda mesh: honest.encode(replace(mesh, appearance=damage(mesh.appearance))))
    monkeypatch.setitem(EXPORTERS, ".glb", damaged)
    with pytest.raises(ExportError, match=words):
        export(textured_quad(), tmp_path / "t.glb")
    assert not list(tmp_path.iterdir())


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
    data = glb_bytes(vertices, vertices, VertexColors(vertices), np.array([[0, 1, 2]]), {}, {})
    assert glb_document(data)["asset"]["extras"] == {"dream3d": {}}
    with pytest.raises(ValueError, match="cut off"):
        glb_document(data[:-1])


def test_json_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"loss": math.nan})


def test_the_glb_says_how_to_get_back_to_the_world(tmp_path: Path) -> None:
    asset, path = axis_object(), tmp_path / "axes.glb"
    placement = export(asset, path).placement
    extras = glb_document(path.read_bytes())["nodes"][0]["extras"]
    assert Placement(tuple(extras["world_centre"]), extras["world_scale"]) == placement
    assert placement.to_world(accessor(path, "POSITION")[1]) == pytest.approx(asset.vertices, abs=1e-6)


def test_lost_provenance_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = EXPORTERS[".glb"]
    forgetful = replace(honest, encode=lambda mesh: honest.encode(replace(mesh, provenance={})))
    monkeypatch.setitem(EXPORTERS, ".glb", forgetful)
    with pytest.raises(ExportError, match="the provenance differs"):
        export(single_triangle(), tmp_path / "t.glb")
