"""Wavefront OBJ: colours behind the vertices' positions, which most programs read, or a texture in files beside it.

A normal map is named by ``norm``, the key of the PBR extension of MTL files.
"""

from __future__ import annotations

import hashlib

import numpy as np
from trimesh.exchange.obj import export_obj

from dream3d.images import png_bytes
from dream3d.mesh.appearance import Texture, VertexColors
from dream3d.mesh.companions import NORMAL_MAP
from dream3d.mesh.formats.base import Exporter, ExportMesh, as_trimesh, comment
from dream3d.mesh.surface import vertex_normals


def encode(mesh: ExportMesh) -> bytes:
    """A whole .obj file; prompt and seed stand in a comment."""
    if isinstance(mesh.appearance, Texture):
        return _textured(mesh, mesh.appearance).encode("ascii")
    text: str = export_obj(as_trimesh(mesh), include_normals=False, header=comment(mesh.provenance))  # type: ignore[no-untyped-call]
    return text.encode("ascii")


def beside(mesh: ExportMesh) -> dict[str, bytes]:
    """The material and the image of a texture, by the names that the .obj file knows them by."""
    if not isinstance(mesh.appearance, Texture):
        return {}
    name = _stem(mesh, mesh.appearance)
    material = f"# dream3d\nnewmtl surface\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {name}.png\n"
    files = {f"{name}.png": png_bytes(mesh.appearance.image)}
    if mesh.appearance.normals is not None:
        normals = f"{name}{NORMAL_MAP}"
        files[normals] = png_bytes(mesh.appearance.normals)
        material += f"norm {normals}\n"  # not map_Bump, which is for heights
    return files | {f"{name}.mtl": material.encode("ascii")}


def _stem(mesh: ExportMesh, texture: Texture) -> str:
    """With a digest of the images: another texture has another name, and an .obj file never finds a wrong one."""
    digest = hashlib.sha256(np.ascontiguousarray(texture.image).tobytes())
    if texture.normals is not None:
        digest.update(np.ascontiguousarray(texture.normals).tobytes())
    return f"{mesh.name}-{digest.hexdigest()[:12]}"


def _textured(mesh: ExportMesh, texture: Texture) -> str:
    """Places are written once, whatever the texture's seams: other programs find a closed surface."""
    places, place = np.unique(mesh.vertices, axis=0, return_inverse=True)
    corners = np.stack([place.reshape(-1)[mesh.faces], mesh.faces], axis=-1) + 1
    lines = [f"# {comment(mesh.provenance)}", f"mtllib {_stem(mesh, texture)}.mtl"]
    lines += [f"v {x:.8f} {y:.8f} {z:.8f}" for x, y, z in places.tolist()]
    lines += [f"vt {u:.8f} {1 - v:.8f}" for u, v in texture.uv.tolist()]  # counted from the lower left corner
    bent = texture.normals is not None
    if bent:  # the normals that the map bends; without them each face would be flat to some programs
        normals = vertex_normals(places, corners[..., 0] - 1)
        lines += [f"vn {x:.6f} {y:.6f} {z:.6f}" for x, y, z in normals.tolist()]
    lines += ["usemtl surface"]
    for face in corners.tolist():
        lines.append("f " + " ".join(f"{one}/{uv}/{one}" if bent else f"{one}/{uv}" for one, uv in face))
    return "\n".join(lines) + "\n"


EXPORTER = Exporter(encode, (VertexColors, Texture), beside=beside)
