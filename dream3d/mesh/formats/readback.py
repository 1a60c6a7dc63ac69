"""Whether an encoded file, read by trimesh or the format's own reader, is the mesh that was to be written."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from dream3d.mesh.appearance import Appearance, Texture, VertexColors
from dream3d.mesh.companions import NORMAL_MAP
from dream3d.mesh.formats.base import Exporter, ExportMesh
from dream3d.mesh.srgb import display_values, srgb_from_linear

POSITION_TOLERANCE = 1e-5
"""Largest difference of a position that was read back; the box has side 1, text formats have 8 digits."""
COLOR_TOLERANCE = 1 / 255


class _Beside(trimesh.resolvers.Resolver):
    """The files beside a mesh's, for the reader."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    def get(self, name: str) -> bytes:
        return self.files[name]

    def keys(self) -> list[str]:
        return list(self.files)

    def namespaced(self, namespace: str) -> _Beside:
        return self

    def write(self, name: str, data: bytes) -> None:
        raise NotImplementedError


def find_difference(
    data: bytes, extension: str, exporter: Exporter, mesh: ExportMesh, beside: Mapping[str, bytes] | None = None
) -> str | None:
    """What is wrong with the encoded file and those ``beside`` it, by name; None if nothing.

    Raises whatever the reader raises on a file that is none.
    """
    # process=False: the reader must not merge or reorder what is being compared.
    options: dict[str, Any] = {"process": False, "resolver": _Beside(beside)} if beside else {"process": False}
    if exporter.decode is not None:
        read: Any = exporter.decode(data)
    else:
        scene = trimesh.load_scene(io.BytesIO(data), file_type=extension[1:], **options)
        (read,) = scene.geometry.values()
    problem = _geometry_difference(read, exporter, mesh)
    if problem is None and exporter.appearances:
        problem = _appearance_difference(read, mesh.appearance, mesh.faces, beside or {})
    if problem is None and exporter.read_provenance and exporter.read_provenance(data) != mesh.provenance:
        return "the provenance differs"
    return problem


def _geometry_difference(read: Any, exporter: Exporter, mesh: ExportMesh) -> str | None:
    vertices = np.asarray(read.vertices)
    if len(read.faces) != len(mesh.faces):
        return f"it has {len(read.faces)} faces instead of {len(mesh.faces)}"
    if exporter.shares_vertices and len(vertices) != len(mesh.vertices):
        return f"it has {len(vertices)} vertices instead of {len(mesh.vertices)}"
    if not np.isfinite(vertices).all():
        return "vertices are not finite"
    # Compared corner by corner: readers may number vertices anew, the order of the faces is kept.
    off = np.abs(vertices[read.faces] - mesh.vertices[mesh.faces]).max()
    return f"its positions are off by {off:.2g}" if off > POSITION_TOLERANCE else None


def _appearance_difference(
    read: Any, wanted: Appearance, faces: NDArray[np.int64], beside: Mapping[str, bytes]
) -> str | None:
    found = appearance_of(read.visual, beside)
    if isinstance(wanted, Texture):
        if not isinstance(found, Texture) or not np.array_equal(found.image, wanted.image):
            return "its texture is gone or another"
        if not _same(found.normals, wanted.normals):
            return "its normal map is gone or another"
        off = np.abs(found.uv[read.faces] - wanted.uv[faces]).max()
        return f"its texture coordinates are off by {off:.2g}" if off > POSITION_TOLERANCE else None
    if not isinstance(found, VertexColors):
        return "its colours are gone"
    off = np.abs(display_values(found.values)[read.faces] - display_values(wanted.values)[faces]).max()
    return f"its colours are off by {off:.2g}" if off > COLOR_TOLERANCE else None


def _same(one: NDArray[np.uint8] | None, other: NDArray[np.uint8] | None) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


def appearance_of(visual: Any, beside: Mapping[str, bytes] | None = None) -> Appearance | None:
    """What trimesh read of a file of ours besides the geometry, in display values; None if nothing.

    ``beside`` are the files beside a mesh's, by name: of an OBJ's material trimesh reads no normal map.
    """
    material = getattr(visual, "material", None)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is not None and visual.uv is not None:  # trimesh counts v from the bottom of the image
        bent: Any = getattr(material, "normalTexture", None)
        named = next((data for name, data in (beside or {}).items() if name.endswith(NORMAL_MAP)), None)
        if bent is None and named is not None:
            bent = Image.open(io.BytesIO(named), formats=["PNG"])
        normals = None if bent is None else np.asarray(bent.convert("RGB"))
        return Texture(np.asarray(visual.uv) * (1, -1) + (0, 1), np.asarray(image.convert("RGB")), normals)
    # A mesh with a material keeps its vertex colours as an attribute, and there only GLB has a material.
    attributes = getattr(visual, "vertex_attributes", {})
    if "color" in attributes:
        return VertexColors(srgb_from_linear(np.asarray(attributes["color"])[:, :3]).astype(np.float32))
    return VertexColors(np.asarray(visual.vertex_colors)[:, :3]) if visual.kind == "vertex" else None
