"""Models that ask for more than they may, or lie: refused in one line, or drawn from finite numbers."""

from __future__ import annotations

import base64
import copy
import io
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assets import box_obj
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import one_line
from PIL import Image

from dream3d.dataset.check.file import check_file
from dream3d.dataset.check.limits import Limits, is_inside
from dream3d.dataset.rendering.models import load_actors, points_of
from dream3d.errors import DatasetError

SIDE = 4
POSITIONS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], "<f4")
FACES = np.array([0, 2, 1, 0, 1, 3, 0, 3, 2, 1, 2, 3], "<u4")


def skin() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (255, 128, 0)).save(stream, "PNG")
    return stream.getvalue() + bytes(-len(stream.getvalue()) % 4)


PARTS = [FACES.tobytes(), POSITIONS.tobytes(), POSITIONS.tobytes(), np.ones((4, 4), "<f4").tobytes(), skin()]


def document() -> dict[str, Any]:
    """A textured, painted tetrahedron in two nodes."""
    starts = np.cumsum([0, *map(len, PARTS)]).tolist()
    accessor: Any = {"componentType": 5126, "count": 4, "byteOffset": 0}
    return {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"children": [1], "scale": [1.0, 2.0, 1.0]}, {"mesh": 0, "translation": [0.5, 0.0, 0.0]}],
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": 1, "NORMAL": 2, "COLOR_0": 3}, "indices": 0, "material": 0, "mode": 4}
                ]
            }
        ],
        "materials": [
            {"pbrMetallicRoughness": {"baseColorFactor": [1.0, 0.5, 0.5, 1.0], "baseColorTexture": {"index": 0}}}
        ],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 4, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5125, "count": 12, "type": "SCALAR"},
            accessor | {"bufferView": 1, "type": "VEC3"},
            accessor | {"bufferView": 2, "type": "VEC3"},
            accessor | {"bufferView": 3, "type": "VEC4"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": len(part)}
            for start, part in zip(starts, PARTS, strict=False)
        ],
        "buffers": [{"byteLength": starts[-1]}],
    }


def glb(doc: Any, parts: list[bytes]) -> bytes:
    text, binary = json.dumps(doc).encode(), b"".join(parts)
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(binary))
    return (
        head + struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    )


def draw(path: Path) -> str:
    """The reason why a model is refused; empty if it was loaded, and then every point of it is finite."""
    try:
        check_file(path)
        for actor in load_actors(path):
            assert np.isfinite(points_of(actor)).all()
    except DatasetError as error:
        return one_line(error, 500)
    return ""


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, containers included."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from leaves(one, (*at, key))


HOSTILE: list[Any] = [-1, -4, 0, 1, 3, 2**31, 2**63, 10**18, 0.5, -1e300, float("nan"), float("inf"), True, None, "",
                      "x", [], {}, [0], [-1], "../../x.png", "/etc/passwd", "file:///etc/passwd", "http://localhost/a.png",
                      "a" * 9999]  # fmt: skip


def test_the_sound_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(glb(document(), PARTS))
    assert draw(tmp_path / "a.glb") == ""


@settings(max_examples=200)
@given(place=st.sampled_from(list(leaves(document()))), value=st.sampled_from(HOSTILE))
def test_any_field_of_any_value(tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], value: Any) -> None:
    doc = document()
    inner = doc
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = copy.deepcopy(value)
    path = tmp_path_factory.getbasetemp() / "field.glb"
    path.write_bytes(glb(doc, PARTS))
    draw(path)


@settings(max_examples=40)
@given(part=st.integers(0, 3), at=st.integers(0, 11), value=st.sampled_from([float("nan"), float("inf"), -1e38, 1e9]))
def test_numbers_that_are_not_finite_or_out_of_range(
    tmp_path_factory: pytest.TempPathFactory, part: int, at: int, value: float
) -> None:
    parts = list(PARTS)
    kind = "<u4" if part == 0 else "<f4"
    numbers = np.frombuffer(parts[part], kind).copy()
    numbers[at] = 2**32 - 1 if part == 0 else value
    parts[part] = numbers.tobytes()
    path = tmp_path_factory.getbasetemp() / "numbers.glb"
    path.write_bytes(glb(document(), parts))
    reason = draw(path)
    assert reason or (part > 0 and np.isfinite(value))


def edited(edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    doc = document()
    edit(doc)
    return doc


def data(content: bytes, head: str = "data:image/png") -> str:
    return f"{head};base64,{base64.b64encode(content).decode()}"


def sparse(doc: dict[str, Any]) -> None:
    place = {"bufferView": 0, "componentType": 5125}
    doc["accessors"][1]["sparse"] = {"count": 1, "indices": place, "values": {"bufferView": 1}}


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
CASES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "sparse": (sparse, "a sparse accessor, which is not read here"),
    "colour NaN": (lambda d: d["materials"][0].update(emissiveFactor=[float("nan")] * 3), "not finite"),
    "negative offset": (lambda d: d["bufferViews"][1].update(byteOffset=-4), "bufferViews has the byteOffset -4"),
    "stride backwards": (lambda d: d["bufferViews"][1].update(byteStride=-12), "bufferViews has the byteStride -12"),
    "stride of nothing": (lambda d: d["bufferViews"][1].update(byteStride=4), "a byteStride of 4"),
    "a count that is true": (lambda d: d["accessors"][1].update(count=True), "accessors has the count True"),
    "page": (lambda d: d["images"][0].update(uri=data(b"<html>", "data:text/html")), "none of PNG"),
    "postscript": (lambda d: d["images"][0].update(uri=data(POSTSCRIPT)), "none of PNG"),
    "no base64": (lambda d: d["images"][0].update(uri="data:image/svg+xml,<svg/>"), "is not base64"),
    "two beginnings": (lambda d: d["images"][0].update(uri="data:base64,AAAA;base64,AAAA"), "is not base64"),
    "passwd": (lambda d: d["images"][0].update(uri="file:///etc/passwd"), "lies outside its folder"),
    "encoded dots": (lambda d: d["buffers"].append({"uri": "%2e%2e/x", "byteLength": 1}), "lies outside its folder"),
    "another host": (lambda d: d["buffers"].append({"uri": "//host/x", "byteLength": 1}), "lies outside its folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_reason_is_said(tmp_path: Path, name: str) -> None:
    edit, reason = CASES[name]
    (tmp_path / "a.glb").write_bytes(glb(edited(edit), PARTS))
    assert reason in draw(tmp_path / "a.glb")


def test_a_texture_in_another_buffer_is_looked_at_too(tmp_path: Path) -> None:
    doc = edited(lambda d: d["buffers"].append({"uri": data(POSTSCRIPT), "byteLength": len(POSTSCRIPT)}))
    doc["bufferViews"][4] = {"buffer": 1, "byteLength": len(POSTSCRIPT)}
    (tmp_path / "a.glb").write_bytes(glb(doc, PARTS))
    assert "none of PNG" in draw(tmp_path / "a.glb")


def test_buffers_are_bounded_together(tmp_path: Path) -> None:
    (tmp_path / "b.bin").write_bytes(bytes(3000))
    doc = edited(lambda d: d["buffers"].extend({"uri": "b.bin", "byteLength": 1} for _ in range(4)))
    (tmp_path / "a.glb").write_bytes(glb(doc, PARTS))
    check_file(tmp_path / "a.glb")
    with pytest.raises(DatasetError, match="buffers have more than 9000 bytes"):
        check_file(tmp_path / "a.glb", Limits(max_file_bytes=9000))


@pytest.mark.parametrize(
    "name", ["/a.glb", "//a.glb", "///a", "../a", "a/../b", "\\\\host\\a", "C:a", "a\0", "", ".", "http://a"]
)
def test_what_lies_outside_of_a_folder(name: str) -> None:
    assert not is_inside(name)


@pytest.mark.parametrize("color", ["nan 0 0", "1 1 inf", "1 1e999 1", "-inf 1 1"])
def test_a_colour_that_is_not_finite(tmp_path: Path, color: str) -> None:
    path = box_obj(tmp_path / "a.obj")
    (tmp_path / "box.mtl").write_text(f"newmtl skin\nKd {color}\n")
    assert "a colour of its materials is not finite" in draw(path)
    (tmp_path / "box.mtl").write_text("newmtl skin\nKd 1 1 1 # infinite\n")
    assert draw(path) == ""


def test_a_16_bit_texture_has_the_values_that_it_means(tmp_path: Path) -> None:
    path = box_obj(tmp_path / "a.obj")
    Image.fromarray(np.full((4, 4), 32896, np.uint16)).save(tmp_path / "skin.png")
    check_file(path)
    from vtkmodules.util.numpy_support import vtk_to_numpy

    (actor,) = load_actors(path)
    assert np.unique(vtk_to_numpy(actor.GetTexture().GetInput().GetPointData().GetScalars())).tolist() == [128]
