"""What can be known of a glTF file from its json: sizes, counts and the files it refers to."""

from __future__ import annotations

import base64
import binascii
import io
import json
import struct
from pathlib import Path
from typing import Any

from dream3d.dataset.check.limits import Limits, beside, check_texture, check_triangles, local_uri
from dream3d.errors import DatasetError

MAX_JSON = 64 * 2**20
MAX_NODES = 100_000
MAX_DEPTH = 200
COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
UNDERSTOOD = ("KHR_materials_",)
"""Beginnings of required extensions that change the looks a little, but not what has to be read."""


def check(path: Path, limits: Limits) -> None:
    """Hold accessors, nodes, buffers and images against the limits; :class:`DatasetError` with a reason."""
    document, binary = _read(path)
    try:
        required = document.get("extensionsRequired", [])
        unknown = [str(name) for name in required if not str(name).startswith(UNDERSTOOD)]
        if unknown:
            raise DatasetError(f"it needs the extension {unknown[0][:60]!r}, which is not known here")
        _check_accessors(document, limits)
        _check_triangles(document, limits)
        sizes = [_buffer_size(path, item, binary, limits) for item in document.get("buffers", [])]
        for view in document.get("bufferViews", []):
            if view.get("byteOffset", 0) + view["byteLength"] > sizes[view["buffer"]] or view["byteLength"] < 0:
                raise DatasetError("it is cut off: a buffer view reaches beyond its buffer")
        for image in document.get("images", []):
            _check_image(path, document, image, binary, limits)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DatasetError(f"it is no valid glTF ({type(error).__name__}: {str(error)[:80]})") from error


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """The json of a .gltf or .glb, and the latter's binary chunk."""
    size, binary = path.stat().st_size, b""
    with path.open("rb") as file:
        if path.suffix.lower() == ".glb":
            head = file.read(20)
            if len(head) < 20 or head[:4] != b"glTF":
                raise DatasetError("it is no GLB file: it does not begin with 'glTF'")
            version, length, json_length, kind = struct.unpack("<4x4I", head)
            if version != 2 or kind != 0x4E4F534A:
                raise DatasetError(f"it is a GLB of version {version}; only version 2 with json is read")
            if length > size or 20 + json_length > size:
                raise DatasetError(f"it is cut off: it should have {length} bytes, {size} are there")
        else:
            json_length = size
        if json_length > MAX_JSON:
            raise DatasetError(f"its json has {json_length} bytes, more than {MAX_JSON}")
        text = file.read(json_length)
        chunk = file.read(8)
        if path.suffix.lower() == ".glb" and len(chunk) == 8:
            binary = file.read(struct.unpack("<I4x", chunk)[0])
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"its json cannot be read ({type(error).__name__})") from error
    if not isinstance(document, dict):
        raise DatasetError("its json is no object")
    return document, binary


def _check_accessors(document: dict[str, Any], limits: Limits) -> None:
    views = document.get("bufferViews", [])
    for accessor in document.get("accessors", []):
        count = accessor["count"]
        if not isinstance(count, int) or not count >= 0:
            raise DatasetError(f"an accessor has the count {count!r}")
        if count > 3 * limits.max_triangles:
            raise DatasetError(f"it has {count} numbers in a row: more than {limits.max_triangles} triangles")
        size = COMPONENT_BYTES[accessor["componentType"]] * COMPONENTS[accessor["type"]]
        if "bufferView" in accessor:
            view = views[accessor["bufferView"]]
            stride = view.get("byteStride", size)
            if count and accessor.get("byteOffset", 0) + (count - 1) * stride + size > view["byteLength"]:
                raise DatasetError("it is cut off: an accessor reaches beyond its buffer view")


def _check_triangles(document: dict[str, Any], limits: Limits) -> None:
    """Triangles of all nodes, each counted as often as it is shown; refuses a graph of nodes that is no forest."""
    accessors, meshes, nodes = (document.get(name, []) for name in ("accessors", "meshes", "nodes"))
    if len(nodes) > MAX_NODES:
        raise DatasetError(f"it has {len(nodes)} nodes, more than {MAX_NODES}")
    children = [child for node in nodes for child in node.get("children", [])]
    if len(children) != len(set(children)):
        raise DatasetError("its nodes are no tree: one has two parents")
    _check_no_cycle(nodes)
    per_mesh = []
    for mesh in meshes:
        count = 0
        for primitive in mesh["primitives"]:
            if primitive.get("mode", 4) in (4, 5, 6):
                index = primitive.get("indices", primitive["attributes"]["POSITION"])
                corners = accessors[index]["count"]
                count += corners // 3 if primitive.get("mode", 4) == 4 else max(corners - 2, 0)
        per_mesh.append(count)
    check_triangles(sum(per_mesh[node["mesh"]] for node in nodes if "mesh" in node), limits)


def _check_no_cycle(nodes: list[dict[str, Any]]) -> None:
    """Every node has at most one parent here; what cannot be reached from a root then lies on a cycle."""
    below = {child for node in nodes for child in node.get("children", [])}
    level, seen, depth = [i for i in range(len(nodes)) if i not in below], 0, 0
    while level:
        seen, depth = seen + len(level), depth + 1
        if depth > MAX_DEPTH:
            raise DatasetError(f"its nodes are more than {MAX_DEPTH} deep")
        level = [child for i in level for child in nodes[i].get("children", [])]
    if seen != len(nodes):
        raise DatasetError("its nodes are no tree: they form a cycle")


def _buffer_size(path: Path, item: dict[str, Any], binary: bytes, limits: Limits) -> int:
    uri, promised = item.get("uri"), item["byteLength"]
    if uri is None:
        there = len(binary)
    elif uri.startswith("data:"):
        there = len(_data(uri))
    else:
        there = beside(path, local_uri(uri), "buffer", limits).stat().st_size
    if promised > there:
        raise DatasetError(f"it is cut off: a buffer should have {promised} bytes, {there} are there")
    return there


def _check_image(path: Path, document: dict[str, Any], image: dict[str, Any], binary: bytes, limits: Limits) -> None:
    uri = image.get("uri")
    if uri is None:
        view = document["bufferViews"][image["bufferView"]]
        if document["buffers"][view["buffer"]].get("uri") is not None:
            return  # trimesh reads these too, but they are rare; its loading is bounded by the worker's memory
        start = view.get("byteOffset", 0)
        check_texture(io.BytesIO(binary[start : start + view["byteLength"]]), "inside the file", limits)
    elif uri.startswith("data:"):
        check_texture(io.BytesIO(_data(uri)), "inside the file", limits)
    else:
        check_texture(beside(path, local_uri(uri), "texture", limits), uri, limits)


def _data(uri: str) -> bytes:
    try:
        return base64.b64decode(uri.partition(",")[2])
    except (binascii.Error, ValueError) as error:
        raise DatasetError("a data uri in it cannot be read") from error
