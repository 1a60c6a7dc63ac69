"""Binary glTF 2.0 of one vertex-coloured mesh, written and read back.

trimesh writes glTF too, but only with 8-bit vertex colours, stored as they are. glTF's COLOR_0 is *linear*: display
values have to be converted, and 8 bits of linear light leave 14 values for the darkest quarter of the display range,
where the display has 64, which shows as bands. So colours are floats here, and this small writer exists.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream3d.version import __version__

EXTRAS_KEY = "dream3d"
_MAGIC, _JSON_CHUNK, _BIN_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
_FLOAT, _UNSIGNED_INT = 5126, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963


def linear_from_srgb(display: NDArray[np.floating]) -> NDArray[np.float64]:
    """Linear light in [0, 1] of sRGB display values in [0, 1] (IEC 61966-2-1), of the same shape."""
    value = np.asarray(display, dtype=np.float64)
    linear: NDArray[np.float64] = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return linear


def srgb_from_linear(linear: NDArray[np.floating]) -> NDArray[np.float64]:
    """The inverse of :func:`linear_from_srgb`."""
    value = np.clip(np.asarray(linear, dtype=np.float64), 0, 1)
    display: NDArray[np.float64] = np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)
    return display


def glb_bytes(
    positions: NDArray[np.float32],
    normals: NDArray[np.float32],
    colors: NDArray[np.float32],
    faces: NDArray[np.int64],
    provenance: dict[str, Any],
    node_extras: dict[str, Any],
) -> bytes:
    """A whole .glb file; the same input gives the same bytes.

    ``positions``, unit ``normals`` and sRGB ``colors`` are (V, 3), ``faces`` (F, 3), all in glTF's frame (+Y up,
    front +Z). ``provenance`` becomes ``asset.extras.dream3d``, ``node_extras`` the extras of the only node.
    Raises TypeError or ValueError if one of them is not JSON.
    """
    blobs = [
        (faces.astype("<u4").reshape(-1), _UNSIGNED_INT, "SCALAR", _ELEMENT_ARRAY_BUFFER),
        (positions.astype("<f4"), _FLOAT, "VEC3", _ARRAY_BUFFER),
        (normals.astype("<f4"), _FLOAT, "VEC3", _ARRAY_BUFFER),
        (linear_from_srgb(colors).astype("<f4"), _FLOAT, "VEC3", _ARRAY_BUFFER),
    ]
    # Every number above is 4 bytes wide, so all offsets are aligned without padding.
    binary = b"".join(values.tobytes() for values, *_ in blobs)
    views, accessors, offset = [], [], 0
    for number, (values, component, kind, target) in enumerate(blobs):
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": values.nbytes, "target": target})
        accessors.append({"bufferView": number, "componentType": component, "count": len(values), "type": kind})
        offset += values.nbytes
    accessors[1] |= {"min": blobs[1][0].min(axis=0).tolist(), "max": blobs[1][0].max(axis=0).tolist()}
    document = _document(provenance, node_extras) | {
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json_bytes(document)
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    return b"".join(
        [
            struct.pack("<III", _MAGIC, 2, total),
            struct.pack("<II", len(text), _JSON_CHUNK),
            text,
            struct.pack("<II", len(binary), _BIN_CHUNK),
            binary,
        ]
    )


def _document(provenance: dict[str, Any], node_extras: dict[str, Any]) -> dict[str, Any]:
    """Everything in the JSON part but the description of the buffer, whose accessors are numbered as in glb_bytes."""
    attributes = {"POSITION": 1, "NORMAL": 2, "COLOR_0": 3}
    surface = {"baseColorFactor": [1, 1, 1, 1], "metallicFactor": 0, "roughnessFactor": 0.9}
    return {
        "asset": {"version": "2.0", "generator": f"dream3d {__version__}", "extras": {EXTRAS_KEY: provenance}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "asset", "extras": node_extras}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 0, "material": 0, "mode": 4}]}],
        "materials": [{"pbrMetallicRoughness": surface, "doubleSided": False}],
    }


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
    document: dict[str, Any] = json.loads(data[20 : 20 + length])
    return document
