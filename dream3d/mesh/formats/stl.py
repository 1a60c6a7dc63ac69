"""Binary STL: geometry alone, for printing."""

from __future__ import annotations

from trimesh.exchange.stl import export_stl

from dream3d.mesh.formats.base import Exporter, ExportMesh, as_trimesh


def encode(mesh: ExportMesh) -> bytes:
    """A whole .stl file."""
    return bytes(export_stl(as_trimesh(mesh)))


EXPORTER = Exporter(encode, (), shares_vertices=False)
