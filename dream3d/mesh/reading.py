"""Reading meshes that dream3d wrote back into the world frame, with display colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from dream3d.errors import ExportError
from dream3d.mesh.appearance import VertexColors
from dream3d.mesh.companions import companions_of
from dream3d.mesh.export import Asset, Placement, check_extension
from dream3d.mesh.formats.glb import glb_document, provenance_of
from dream3d.mesh.formats.readback import appearance_of
from dream3d.mesh.formats.registry import EXPORTERS


def read_asset(path: Path) -> Asset:
    """The asset in a GLB written by :func:`dream3d.mesh.export.export`: z up, front +x, original size.

    Raises ExportError for a file that is not such a GLB.
    """
    try:
        data = path.read_bytes()
        extras = glb_document(data)["nodes"][0]["extras"]
        placement = Placement(tuple(extras["world_centre"]), float(extras["world_scale"]))
        (mesh,) = trimesh.load_scene(path, process=False).geometry.values()
        assert isinstance(mesh, trimesh.Trimesh)
        appearance = appearance_of(mesh.visual)
        assert appearance is not None
        return Asset(
            vertices=placement.to_world(np.asarray(mesh.vertices)).astype(np.float32),
            faces=np.asarray(mesh.faces, dtype=np.int64),
            appearance=appearance,
            provenance=provenance_of(data),
        )
    except Exception as error:  # a foreign file can fail in any of a parser's ways
        raise ExportError(f"{path} is not a GLB written by dream3d ({type(error).__name__}: {error})") from error


def read_mesh(path: Path) -> Asset:
    """The asset in a file of any of our formats: z up, front +x; in its original size if the format tells it.

    A mesh without colours is grey. Raises ExportError for a file that is none, UsageError for another extension.
    """
    extension = check_extension(path)
    if extension == ".glb":
        return read_asset(path)
    try:
        decode = EXPORTERS[extension].decode
        (mesh,) = [decode(path.read_bytes())] if decode else trimesh.load_scene(path, process=False).geometry.values()
        assert isinstance(mesh, trimesh.Trimesh)
        vertices = Placement((0.0, 0.0, 0.0), 1.0).to_world(np.asarray(mesh.vertices)).astype(np.float32)
        grey = VertexColors(np.full((len(vertices), 3), 0.7, np.float32))
        beside = {one.name: one.read_bytes() for one in companions_of(path)}
        return Asset(vertices, np.asarray(mesh.faces, dtype=np.int64), appearance_of(mesh.visual, beside) or grey)
    except Exception as error:  # a foreign file can fail in any of a parser's ways
        raise ExportError(f"{path} is not a mesh ({type(error).__name__}: {error})") from error
