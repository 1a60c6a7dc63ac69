"""USDZ: the archive's layout, what is in the layer, colours, provenance, and files that are none."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mesh_assets import NASTY, axis_object, colors_of, reload, single_triangle, textured_quad

from dream3d.mesh.appearance import Texture, VertexColors
from dream3d.mesh.export import export
from dream3d.mesh.formats import usdz
from dream3d.mesh.formats.base import ExportMesh
from dream3d.mesh.reading import read_mesh


def written(folder: Path, **changes: object) -> bytes:
    export(single_triangle(**changes), folder / "t.usdz")
    return (folder / "t.usdz").read_bytes()


def layer_of(data: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read("model.usda").decode("ascii")


def test_the_archive_is_stored_and_its_files_lie_at_multiples_of_64_bytes(tmp_path: Path) -> None:
    export(textured_quad(), tmp_path / "quad.usdz")
    data = (tmp_path / "quad.usdz").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["model.usda", "texture.png"]
        for info in archive.infolist():
            name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
            start = info.header_offset + 30 + name + extra
            assert start % 64 == 0
            assert data[start : start + info.file_size] == archive.read(info)
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.flag_bits == 0


def test_the_layer_by_hand(tmp_path: Path) -> None:
    text = layer_of(written(tmp_path, appearance=VertexColors(np.eye(3))))
    assert text.startswith("#usda 1.0\n")
    # World (x, y, z) is the file's (y, z, x), centred.
    assert "point3f[] points = [(-0.5, 0, -0.5), (-0.5, 0, 0.5), (0.5, 0, -0.5)]\n" in text
    assert "int[] faceVertexIndices = [0, 1, 2]" in text
    assert "float3[] extent = [(-0.5, 0, -0.5), (0.5, 0, 0.5)]" in text
    assert "color3f[] primvars:displayColor = [(1, 0, 0), (0, 1, 0), (0, 0, 1)] (" in text
    assert 'upAxis = "Y"' in text


def test_colours_are_linear(tmp_path: Path) -> None:
    written(tmp_path)  # grey of 0.5 in display values: ((0.5 + 0.055) / 1.055) ^ 2.4
    assert colors_of(tmp_path / "t.usdz") == pytest.approx(np.full((3, 3), 0.21404114), abs=1e-6)


def test_a_texture_comes_back_the_right_way_up(tmp_path: Path) -> None:
    quad = textured_quad()
    export(quad, tmp_path / "quad.usdz")
    text = layer_of((tmp_path / "quad.usdz").read_bytes())
    # The first vertex is at the image's lower left corner, from which USD counts.
    assert "texCoord2f[] primvars:st = [(0, 0), (1, 0), (1, 1), (0, 1)] (" in text
    found = read_mesh(tmp_path / "quad.usdz").appearance
    assert isinstance(found, Texture)
    assert isinstance(quad.appearance, Texture)
    assert np.array_equal(found.image, quad.appearance.image)
    assert found.uv == pytest.approx(quad.appearance.uv)


def test_vertex_colours_come_back(tmp_path: Path) -> None:
    asset = axis_object()
    export(asset, tmp_path / "axes.usdz")
    found = read_mesh(tmp_path / "axes.usdz").appearance
    assert isinstance(found, VertexColors)
    assert found.values == pytest.approx(asset.appearance.values, abs=1e-5)  # type: ignore[union-attr]


def test_the_archive_keeps_the_whole_provenance(tmp_path: Path) -> None:
    made_by = {"prompt": NASTY, "seed": 3, "recipe": {"steps": [1, 2.5, None]}}
    assert usdz.provenance_of(written(tmp_path, provenance=made_by)) == made_by


@given(st.text())
def test_any_prompt_is_one_string_of_the_layer(prompt: str) -> None:
    prompt = prompt.encode("utf-8", "replace").decode()
    text = usdz._layer(_triangle(prompt))
    assert text.isascii()
    assert len(text.splitlines()) == len(usdz._layer(_triangle("")).splitlines())


def _triangle(prompt: str) -> ExportMesh:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    colors = VertexColors(np.zeros((3, 3), np.float32))
    return ExportMesh(vertices, np.array([[0, 1, 2]]), colors, {"prompt": prompt}, {})


def packed(layer: str, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("model.usda", layer)
    return stream.getvalue()


def test_what_is_no_usdz_of_ours_is_refused(tmp_path: Path) -> None:
    good = layer_of(written(tmp_path))
    bad = [
        b"",
        b"PK",
        packed(good, zipfile.ZIP_DEFLATED),
        packed(good.replace("points", "dots")),
        packed(good.replace("Indices = [0, 1, 2]", "Indices = [0, 1, 3]")),
        packed(good.replace("Indices = [0, 1, 2]", "Indices = [0, 1, 2, 0]")),
        packed(good.replace("Counts = [3]", "Counts = [4]")),
        packed(good.replace("Counts = [3]", "Counts = [3, 3]")),
    ]
    assert len(usdz.decode(packed(good)).faces) == 1
    for data in bad:
        with pytest.raises((ValueError, KeyError, zipfile.BadZipFile)):
            usdz.decode(data)
    with pytest.raises(KeyError):
        usdz.provenance_of(packed("#usda 1.0\n"))


def test_the_reader_agrees_with_the_other_formats(tmp_path: Path) -> None:
    for extension in (".usdz", ".ply"):
        export(axis_object(), tmp_path / f"axes{extension}")
    one, other = reload(tmp_path / "axes.usdz"), reload(tmp_path / "axes.ply")
    assert np.asarray(one.triangles) == pytest.approx(np.asarray(other.triangles), abs=1e-6)
