"""Binary glTF 2.0 of one mesh, with vertex colours or a texture, written and read back.

trimesh writes glTF too, but only with 8-bit vertex colours, stored as they are. glTF's COLOR_0 is *linear*: display
values have to be converted, and 8 bits of linear light leave 14 values for the darkest quarter of the display range,
where the display has 64, which shows as bands. So colours are floats here, and this small writer exists. A texture is
an embedded PNG of display values, as glTF wants its images; so is a normal map, whose values are directions.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream3d.images import png_bytes
from dream3d.mesh.appearance import Appearance, Texture, VertexColors
from dream3d.mesh.formats.base import Exporter, ExportMesh
from dream3d.mesh.srgb import display_values, linear_from_srgb
from dream3d.mesh.surface import seamless_normals, vertex_normals
from dream3d.mesh.tangents import tangents_of
from dream3d.version import __version__

_EXTRAS_KEY = "dream3d"
_MAGIC, _JSON_CHUNK, _BIN_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
_COMPONENT_TYPES = {"<f4": 5126, "<u4": 5125}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963


def glb_bytes(
    positions: NDArray[np.float32],
    normals: NDArray[np.float32],
    appearance: Appearance,
    faces: NDArray[np.int64],
    provenance: dict[str, Any],
    node_extras: dict[str, Any],
) -> bytes:
    """A whole .glb file; the same input gives the same bytes.

    ``positions`` and unit ``normals`` are (V, 3), ``faces`` (F, 3), all in glTF's frame (+Y up, front +Z);
    ``appearance`` has one entry per vertex. ``provenance`` becomes ``asset.extras.dream3d``, ``node_extras`` the
    extras of the only node. Raises TypeError or ValueError if one of them is not JSON.
    """
    attributes: dict[str, NDArray[np.floating]] = {"POSITION": positions, "NORMAL": normals}
    surface: dict[str, Any] = {"baseColorFactor": [1, 1, 1, 1], "metallicFactor": 0, "roughnessFactor": 0.9}
    if isinstance(appearance, VertexColors):
        attributes["COLOR_0"] = linear_from_srgb(display_values(appearance.values))
    else:
        attributes["TEXCOORD_0"] = appearance.uv
        surface["baseColorTexture"] = {"index": 0}
    material: dict[str, Any] = {"pbrMetallicRoughness": surface, "doubleSided": False}
    images = []
    if isinstance(appearance, Texture):
        images.append(appearance.image)
        if appearance.normals is not None:
            # Without it programs make tangents of their own, and those of the baking are the right ones.
            attributes["TANGENT"] = tangents_of(positions, normals, faces, appearance.uv)
            material["normalTexture"] = {"index": 1}
            images.append(appearance.normals)
    buffer = _Buffer()
    indices = buffer.add_array(faces.reshape(-1, 1).astype("<u4"), _ELEMENT_ARRAY_BUFFER)
    numbers = {name: buffer.add_array(values.astype("<f4"), _ARRAY_BUFFER) for name, values in attributes.items()}
    corners = positions.min(axis=0).astype("<f4"), positions.max(axis=0).astype("<f4")
    buffer.accessors[numbers["POSITION"]] |= {"min": corners[0].tolist(), "max": corners[1].tolist()}
    document = {
        "asset": {"version": "2.0", "generator": f"dream3d {__version__}", "extras": {_EXTRAS_KEY: provenance}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "asset", "extras": node_extras}],
        "meshes": [{"primitives": [{"attributes": numbers, "indices": indices, "material": 0, "mode": 4}]}],
        "materials": [material],
    }
    if images:
        views = [buffer.add_view(png_bytes(image)) for image in images]
        document["textures"] = [{"source": number} for number in range(len(views))]
        document["images"] = [{"bufferView": view, "mimeType": "image/png"} for view in views]
    document |= {
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    return _container(json_bytes(document), bytes(buffer.data))


class _Buffer:
    """The binary part in the making; whatever is added starts at a multiple of 4 bytes, as glTF demands."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add_view(self, data: bytes, **target: int) -> int:
        """Append bytes; returns the number of their buffer view."""
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **target})
        self.data += data + bytes(-len(data) % 4)
        return len(self.views) - 1

    def add_array(self, values: NDArray[Any], target: int) -> int:
        """Append (N, C) numbers for the GPU buffer ``target``; returns the number of their accessor."""
        view = self.add_view(values.tobytes(), target=target)
        kind, component = _TYPES[values.shape[1]], _COMPONENT_TYPES[values.dtype.str]
        self.accessors.append({"bufferView": view, "componentType": component, "count": len(values), "type": kind})
        return len(self.accessors) - 1


def _container(text: bytes, binary: bytes) -> bytes:
    text += b" " * (-len(text) % 4)
    header = struct.pack("<III", _MAGIC, 2, 12 + 8 + len(text) + 8 + len(binary))
    chunks = ((text, _JSON_CHUNK), (binary, _BIN_CHUNK))
    return header + b"".join(struct.pack("<II", len(content), kind) + content for content, kind in chunks)


def json_bytes(data: object) -> bytes:
    """Compact UTF-8 JSON. Half characters (lone surrogates, from undecodable command lines) become "?".

    Raises TypeError for values that JSON does not know, ValueError for NaN and infinities.
    """
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


def glb_document(data: bytes) -> dict[str, Any]:
    """The JSON part of a .glb file; raises ValueError if ``data`` is not one."""
    if len(data) < 20:
        raise ValueError(f"a .glb file has at least 20 bytes, got {len(data)}")
    magic, version, total, length, kind = struct.unpack_from("<IIIII", data)
    if (magic, version, total, kind) != (_MAGIC, 2, len(data), _JSON_CHUNK):
        raise ValueError("not a glTF 2.0 binary file, or one that was cut off")
    return json.loads(data[20 : 20 + length])


def provenance_of(data: bytes) -> dict[str, Any]:
    """The provenance in a .glb of ours; raises ValueError, KeyError or TypeError if there is none."""
    return glb_document(data)["asset"]["extras"][_EXTRAS_KEY]


def without_provenance(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON part of a .glb file without what it says of its making, and the rest; raises ValueError for none."""
    document = {key: value for key, value in glb_document(data).items() if key != "asset"}
    (length,) = struct.unpack_from("<I", data, 12)
    return document, data[20 + length :]


def encode(mesh: ExportMesh) -> bytes:
    """A whole .glb file, with area-weighted normals, which do not show a texture's seams."""
    smooth = seamless_normals if isinstance(mesh.appearance, Texture) else vertex_normals
    normals = smooth(mesh.vertices, mesh.faces)
    return glb_bytes(mesh.vertices, normals, mesh.appearance, mesh.faces, mesh.provenance, mesh.placement)


EXPORTER = Exporter(encode, (VertexColors, Texture), read_provenance=provenance_of)
