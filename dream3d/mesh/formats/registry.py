"""One encoder per file ending. Every format gets the same geometry, in glTF's frame: +Y up, front +Z.

OBJ, PLY and STL leave the frame open; one frame for all of them means that a user who changes the ending never has
to turn the model again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from trimesh.exchange.obj import export_obj
from trimesh.exchange.ply import export_ply
from trimesh.exchange.stl import export_stl

from dream3d.mesh.formats.glb import glb_bytes
from dream3d.mesh.surface import vertex_normals
from dream3d.version import __version__

LONGEST_COMMENT = 400
"""Characters of the prompt that OBJ and PLY comments keep; some readers have line buffers of fixed size."""


@dataclass(frozen=True)
class Placed:
    """A mesh ready to be encoded: glTF frame, unit box."""

    vertices: NDArray[np.float32]
    """(V, 3)."""
    faces: NDArray[np.int64]
    """(F, 3), counter-clockwise seen from outside."""
    colors: NDArray[np.float32]
    """(V, 3) sRGB display values in [0, 1]."""
    provenance: dict[str, Any]
    """Plain JSON data."""
    placement: dict[str, Any]
    """How to get back to the world frame, plain JSON data."""


@dataclass(frozen=True)
class Exporter:
    """How a format is written, and what survives in it."""

    encode: Callable[[Placed], bytes]
    has_color: bool
    shares_vertices: bool
    """False if every face carries corners of its own, so that vertices cannot be counted on reading."""


def _encode_glb(mesh: Placed) -> bytes:
    normals = vertex_normals(mesh.vertices, mesh.faces)
    return glb_bytes(mesh.vertices, normals, mesh.colors, mesh.faces, mesh.provenance, mesh.placement)


def _encode_obj(mesh: Placed) -> bytes:
    line = comment(mesh.provenance)
    text: str = export_obj(_as_trimesh(mesh), include_normals=False, header=line)  # type: ignore[no-untyped-call]
    return text.encode("ascii")


def _encode_ply(mesh: Placed) -> bytes:
    data = bytes(export_ply(_as_trimesh(mesh), vertex_normal=False))
    line = f"\ncomment {comment(mesh.provenance)}\n".encode("ascii")
    return re.sub(rb"\ncomment [^\n]*\n", lambda _: line, data, count=1)


def _encode_stl(mesh: Placed) -> bytes:
    return bytes(export_stl(_as_trimesh(mesh)))


EXPORTERS: dict[str, Exporter] = {
    ".glb": Exporter(_encode_glb, has_color=True, shares_vertices=True),
    ".obj": Exporter(_encode_obj, has_color=True, shares_vertices=True),
    ".ply": Exporter(_encode_ply, has_color=True, shares_vertices=True),
    ".stl": Exporter(_encode_stl, has_color=False, shares_vertices=False),
}


def comment(provenance: dict[str, Any]) -> str:
    """One ASCII line, "dream3d VERSION {json}", with the prompt (shortened) and the seed.

    JSON escapes line breaks and everything outside ASCII, so no prompt can end the comment. Two words are escaped
    too, because common PLY readers act on them anywhere in a header line.
    """
    kept = {key: provenance[key] for key in ("prompt", "seed") if key in provenance}
    if isinstance(kept.get("prompt"), str):
        kept["prompt"] = kept["prompt"][:LONGEST_COMMENT]
    # The second letter is escaped, not the first: a backslash before the word may already belong to its first.
    text = re.sub(
        "end_header|texturefile",
        lambda word: f"{word[0][0]}\\u{ord(word[0][1]):04x}{word[0][2:]}",
        json.dumps(kept),
        flags=re.IGNORECASE,
    )
    return f"dream3d {__version__} {text}"


def _as_trimesh(mesh: Placed) -> trimesh.Trimesh:
    """The same vertices and faces in the same order, with 8-bit sRGB colours."""
    colors = np.round(mesh.colors * 255).astype(np.uint8)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colors, process=False, validate=False)
