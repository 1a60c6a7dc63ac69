"""Wavefront OBJ with a colour behind every vertex's position, an extension that most programs read."""

from __future__ import annotations

from trimesh.exchange.obj import export_obj

from dream3d.mesh.appearance import VertexColors
from dream3d.mesh.formats.base import Exporter, ExportMesh, as_trimesh, comment


def encode(mesh: ExportMesh) -> bytes:
    """A whole .obj file; prompt and seed stand in a comment."""
    text: str = export_obj(as_trimesh(mesh), include_normals=False, header=comment(mesh.provenance))  # type: ignore[no-untyped-call]
    return text.encode("ascii")


EXPORTER = Exporter(encode, (VertexColors,))
