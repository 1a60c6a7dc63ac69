"""What can be known of a glTF file from its json: sizes, counts and the files it refers to."""

from __future__ import annotations

import base64
import binascii
import io
import struct
from pathlib import Path
from typing import Any

from dream3d.dataset.check.limits import Limits, beside, check_texture, check_triangles, local_uri
from dream3d.errors import DatasetError
from dream3d.files import json_table, read_regular

MAX_JSON = 64 * 2**20
MAX_NODES = 100_000
MAX_DEPTH = 200
COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
WHOLE = ("byteLength", "byteOffset", "byteStride", "count", "buffer", "bufferView")
"""Fields that say where to read: a negative one would reach before the beginning."""
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
        _check_places(document)
        _check_accessors(document, limits)
        _check_triangles(document, limits)
        buffers = _buffers(path, document, binary, limits)
        for view in document.get("bufferViews", []):
            if view.get("byteOffset", 0) + view["byteLength"] > len(buffers[view["buffer"]]):
                raise DatasetError("it is cut off: a buffer view reaches beyond its buffer")
        for image in document.get("images", []):
            _check_image(path, document, image, buffers, limits)
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
    return json_table(text, "its json", DatasetError), binary


def _check_places(document: dict[str, Any]) -> None:
    for kind in ("accessors", "bufferViews", "buffers", "images"):
        for item in document.get(kind, []):
            for name in WHOLE:
                if type(item.get(name, 0)) is not int or item.get(name, 0) < 0:
                    raise DatasetError(f"one of its {kind} has the {name} {str(item[name])[:40]}")


def _check_accessors(document: dict[str, Any], limits: Limits) -> None:
    views = document.get("bufferViews", [])
    for accessor in document.get("accessors", []):
        count = accessor["count"]
        if "sparse" in accessor:
            raise DatasetError("it has a sparse accessor, which is not read here; export it without")
        if count > 3 * limits.max_triangles:
            raise DatasetError(f"it has {count} numbers in a row: more than {limits.max_triangles} triangles")
        size = COMPONENT_BYTES[accessor["componentType"]] * COMPONENTS[accessor["type"]]
        if "bufferView" in accessor:
            view = views[accessor["bufferView"]]
            stride = view.get("byteStride", size)
            if stride < size:
                raise DatasetError(f"a buffer view has a byteStride of {stride}, less than one entry")
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


def _buffers(path: Path, document: dict[str, Any], binary: bytes, limits: Limits) -> list[bytes]:
    """The content of every buffer; together they have no more bytes than a file may have."""
    buffers, total = list[bytes](), 0
    for item in document.get("buffers", []):
        uri, promised = item.get("uri"), item["byteLength"]
        buffers.append(binary if uri is None else _content(path, uri, "buffer", limits))
        there = len(buffers[-1])
        if promised > there:
            raise DatasetError(f"it is cut off: a buffer should have {promised} bytes, {there} are there")
        total += there
        if total > limits.max_file_bytes:
            raise DatasetError(f"its buffers have more than {limits.max_file_bytes} bytes")
    return buffers


def _check_image(
    path: Path, document: dict[str, Any], image: dict[str, Any], buffers: list[bytes], limits: Limits
) -> None:
    uri, what = image.get("uri"), "inside the file"
    if uri is None:
        view = document["bufferViews"][image["bufferView"]]
        start = view.get("byteOffset", 0)
        content = buffers[view["buffer"]][start : start + view["byteLength"]]
    else:
        content = _content(path, uri, "texture", limits)
        what = what if uri.startswith("data:") else uri
    check_texture(io.BytesIO(content), what, limits)


def _content(path: Path, uri: str, what: str, limits: Limits) -> bytes:
    """What a uri leads to: data in it, or a file in the model's folder."""
    if not uri.startswith("data:"):
        return read_regular(beside(path, local_uri(uri), what, limits), limits.max_file_bytes)
    head, mark, data = uri.partition(";base64,")
    if not mark or "," in head:
        raise DatasetError(f"a data uri in it is not base64: {uri[:40]!r}")
    try:
        return base64.b64decode(data)
    except (binascii.Error, ValueError) as error:
        raise DatasetError("a data uri in it cannot be read") from error
