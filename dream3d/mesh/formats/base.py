"""What every format is given, what it declares of itself, and what the formats written by trimesh share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from dream3d.mesh.appearance import Appearance, Texture, VertexColors
from dream3d.version import __version__

MAX_COMMENT_CHARACTERS = 400
"""Characters of the prompt that OBJ and PLY comments keep; some readers have line buffers of fixed size."""


@dataclass(frozen=True)
class ExportMesh:
    """A mesh ready to be encoded: glTF's frame (+Y up, front +Z), unit box."""

    vertices: NDArray[np.float32]
    """(V, 3)."""
    faces: NDArray[np.int64]
    """(F, 3), counter-clockwise seen from outside."""
    appearance: Appearance
    """Checked and in float32, one entry per vertex."""
    provenance: dict[str, Any]
    """Plain JSON data."""
    placement: dict[str, Any]
    """How to get back to the world frame, plain JSON data."""
    name: str = "mesh"
    """What the names of files beside the mesh's begin with: letters, digits and dashes."""


@dataclass(frozen=True)
class Exporter:
    """How a format is written, and what survives in it."""

    encode: Callable[[ExportMesh], bytes]
    appearances: tuple[type[VertexColors] | type[Texture], ...]
    """Kinds of appearance that it stores; empty for a format of bare geometry, which drops any."""
    shares_vertices: bool = True
    """False if every face carries corners of its own, so that vertices cannot be counted on reading."""
    read_provenance: Callable[[bytes], dict[str, Any]] | None = None
    """Reads the provenance back, for a format that keeps all of it."""
    beside: Callable[[ExportMesh], dict[str, bytes]] | None = None
    """Files by name that lie beside the mesh's, for a format that needs more than one."""
    decode: Callable[[bytes], trimesh.Trimesh] | None = None
    """Reads the mesh back, for a format that trimesh does not read."""


def comment(provenance: dict[str, Any]) -> str:
    """One ASCII line, "dream3d VERSION {json}", with the prompt (shortened) and the seed.

    JSON escapes line breaks and everything outside ASCII, so no prompt can end the comment. Two words are escaped
    too, because common PLY readers act on them anywhere in a header line.
    """
    kept = {key: provenance[key] for key in ("prompt", "seed") if key in provenance}
    if isinstance(kept.get("prompt"), str):
        kept["prompt"] = kept["prompt"][:MAX_COMMENT_CHARACTERS]
    # The second letter is escaped, not the first: a backslash before the word may already belong to its first.
    text = re.sub(
        "end_header|texturefile",
        lambda word: f"{word[0][0]}\\u{ord(word[0][1]):04x}{word[0][2:]}",
        json.dumps(kept),
        flags=re.IGNORECASE,
    )
    return f"dream3d {__version__} {text}"


def as_trimesh(mesh: ExportMesh) -> trimesh.Trimesh:
    """The same vertices and faces in the same order, with 8-bit sRGB colours if it has vertex colours."""
    colors = None
    if isinstance(mesh.appearance, VertexColors):
        colors = np.round(mesh.appearance.values * 255).astype(np.uint8)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colors, process=False, validate=False)
