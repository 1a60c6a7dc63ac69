"""Small hand-made models for the tests of the data set."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image

BOX_OBJ = """v -1 -1 -1
v 1 -1 -1
v 1 1 -1
v -1 1 -1
v -1 -1 1
v 1 -1 1
v 1 1 1
v -1 1 1
vt 0 0
vt 1 0
vt 1 1
vt 0 1
{use}
f 1/1 4/2 3/3 2/4
f 5/1 6/2 7/3 8/4
f 1/1 2/2 6/3 5/4
f 4/1 8/2 7/3 3/4
f 1/1 5/2 8/3 4/4
f 2/1 3/2 7/3 6/4
"""


def cube_glb(path: Path) -> Path:
    """A cube (glTF frame: y up, front +z) with a red front, a green left (+x), the rest blue."""
    box: Any = trimesh.creation.box()
    colors = np.tile(np.array([[0, 0, 255, 255]], np.uint8), (12, 1))
    colors[box.face_normals[:, 2] > 0.5] = (255, 0, 0, 255)
    colors[box.face_normals[:, 0] > 0.5] = (0, 255, 0, 255)
    flat: Any = trimesh.Trimesh(box.triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    flat.visual.vertex_colors = np.repeat(colors, 3, axis=0)
    path.write_bytes(flat.export(file_type="glb"))
    return path


def box_obj(path: Path, texture: str = "skin.png", use: str = "mtllib box.mtl\nusemtl skin") -> Path:
    """A cube with an orange texture; the texture and ``box.mtl`` are written beside it."""
    path.write_text(BOX_OBJ.format(use=use))
    (path.parent / "box.mtl").write_text(f"newmtl skin\nKd 1 1 1\nmap_Kd {texture}\n")
    Image.new("RGB", (4, 4), (255, 128, 0)).save(path.parent / "skin.png")
    return path


def sphere_ply(path: Path) -> Path:
    """A sphere with green vertices."""
    ball: Any = trimesh.creation.icosphere(subdivisions=3)
    ball.visual.vertex_colors = np.tile(np.array([[0, 255, 0, 255]], np.uint8), (len(ball.vertices), 1))
    path.write_bytes(ball.export(file_type="ply"))
    return path


def catalogue(path: Path, member: str = "models/box/box.obj") -> Path:
    """A furniture catalogue with one entry."""
    box_obj(path.parent / "box.obj")
    text = (
        "# furniture\nname=Small catalogue\nlicense=CC-0\nid#1=Small#box\nname#1=Bo\\u00eete\ncategory#1=Office\n"
        f"creator#1=Ann\nmodel#1=/{member}\nmodelRotation#1=1 0 0 0 1 0 0 0 1\n"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("PluginFurnitureCatalog.properties", text)
        for name in ("box.obj", "box.mtl", "skin.png"):
            archive.write(path.parent / name, f"models/box/{name}")
            (path.parent / name).unlink()
    return path
