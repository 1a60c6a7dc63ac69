"""Binary PLY (Stanford) with 8-bit vertex colours."""

from __future__ import annotations

import re

from trimesh.exchange.ply import export_ply

from dream3d.mesh.appearance import VertexColors
from dream3d.mesh.formats.base import Exporter, ExportMesh, as_trimesh, comment


def encode(mesh: ExportMesh) -> bytes:
    """A whole .ply file; prompt and seed stand in the header's comment, in place of trimesh's."""
    data = bytes(export_ply(as_trimesh(mesh), vertex_normal=False))
    line = f"\ncomment {comment(mesh.provenance)}\n".encode("ascii")
    return re.sub(rb"\ncomment [^\n]*\n", lambda _: line, data, count=1)


EXPORTER = Exporter(encode, (VertexColors,))
