"""The formats that a mesh can be exported to, by file extension. A new one is a file beside this and a line here.

Every format gets the same geometry, in glTF's frame. OBJ, PLY and STL leave the frame open; one frame for all of them
means that a user who changes the file extension never has to turn the model again.
"""

from __future__ import annotations

from dream3d.mesh.formats import glb, obj, ply, stl, usdz
from dream3d.mesh.formats.base import Exporter

EXPORTERS: dict[str, Exporter] = {
    ".glb": glb.EXPORTER,
    ".obj": obj.EXPORTER,
    ".ply": ply.EXPORTER,
    ".stl": stl.EXPORTER,
    ".usdz": usdz.EXPORTER,
}
