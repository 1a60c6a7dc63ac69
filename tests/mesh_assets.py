"""Small assets, what is read back of their files, and the formats that tests go through."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from dream3d.mesh.appearance import Texture, VertexColors
from dream3d.mesh.export import Asset
from dream3d.mesh.formats.glb import glb_document
from dream3d.mesh.formats.registry import EXPORTERS

NASTY = (
    'an "elk"\nskull\r\n\tv 1 2 3 # \\ end_header TextureFile x.png usemtl a mtllib b \u2028 \x85 \x00 émoji 🦌 日本 '
)

every_format = pytest.mark.parametrize("extension", list(EXPORTERS))
colored_formats = pytest.mark.parametrize(
    "extension", [key for key, value in EXPORTERS.items() if VertexColors in value.appearances]
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
    appearance = VertexColors(np.concatenate(colors))
    return Asset(np.concatenate(vertices), np.concatenate(faces), appearance, {"prompt": "axes", "seed": 7})


def single_triangle(**changes: Any) -> Asset:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
    gray = VertexColors(np.full((3, 3), 0.5, np.float32))
    return replace(Asset(vertices, np.array([[0, 1, 2]]), gray, {"prompt": "t"}), **changes)


def textured_quad() -> Asset:
    """Two triangles with an image of four colours: red upper left, green upper right, blue and white below."""
    vertices = np.array([[0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=np.float32)
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype=np.float32)
    image = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
    return Asset(vertices, np.array([[0, 1, 2], [0, 2, 3]]), Texture(uv, image), {"prompt": "a quad"})


def reload(path: Path) -> trimesh.Trimesh:
    decode = EXPORTERS[path.suffix].decode
    if decode is not None:
        return decode(path.read_bytes())
    (mesh,) = trimesh.load_scene(path, process=False).geometry.values()
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


def colors_of(path: Path) -> NDArray[np.float64]:
    """(V, 3) in the file's own space: linear for GLB and USDZ, sRGB for the others."""
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
