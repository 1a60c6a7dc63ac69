"""Writing an asset, and reading it back before anyone is told that it was written.

Conventions: +Y up, front +Z, the bounding box centred on the origin with a largest side of 1. Colours are sRGB
display values up to here; the GLB stores them in linear light, as glTF demands, OBJ and PLY as they are.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from dream3d.errors import ExportError, UsageError
from dream3d.files import write_atomically
from dream3d.mesh.formats.glb import EXTRAS_KEY, glb_document, json_bytes, linear_from_srgb
from dream3d.mesh.formats.registry import EXPORTERS, Exporter, Placed
from dream3d.mesh.surface import display_values, used_vertices

POSITION_TOLERANCE = 1e-5
"""Largest difference of a position that was read back; the box has side 1, text formats have 8 digits."""
COLOR_TOLERANCE = 1 / 255


@dataclass(frozen=True)
class Asset:
    """A finished mesh in the world frame (z up, front +x)."""

    vertices: NDArray[np.floating]
    """(V, 3) world units."""
    faces: NDArray[np.integer]
    """(F, 3) vertex indices, counter-clockwise seen from outside."""
    vertex_colors: NDArray[np.floating] | NDArray[np.uint8]
    """(V, 3) sRGB display values: floats in [0, 1] or uint8."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where it came from, as JSON data: prompt, seed, recipe, versions, the prior's name and licence."""


@dataclass(frozen=True)
class Placement:
    """The change from the world frame to the file's: move the box's centre to the origin, scale, turn."""

    centre: tuple[float, float, float]
    """Centre of the bounding box, world units."""
    scale: float
    """File units per world unit."""

    def to_file(self, world: NDArray[np.floating]) -> NDArray[np.float64]:
        """(V, 3) world positions to the file's frame: (x, y, z) becomes (y, z, x), a rotation: faces stay outward."""
        moved = (np.asarray(world, dtype=np.float64) - self.centre) * self.scale
        return moved[:, [1, 2, 0]]

    def to_world(self, positions: NDArray[np.floating]) -> NDArray[np.float64]:
        """(V, 3) positions in the file's frame to the world frame, the inverse of :meth:`to_file`."""
        turned = np.asarray(positions, dtype=np.float64)[:, [2, 0, 1]]
        world: NDArray[np.float64] = turned / self.scale + self.centre
        return world


@dataclass(frozen=True)
class ExportReport:
    """What was written and read back."""

    vertices: int
    faces: int
    bytes: int
    placement: Placement


def check_ending(path: Path) -> str:
    """The lower-case ending of ``path``; raises UsageError, naming the supported endings, for any other."""
    ending = path.suffix.lower()
    if ending not in EXPORTERS:
        given = f"ending {ending!r}" if ending else "no ending"
        raise UsageError(f"cannot export to {path}: {given}; use one of {', '.join(EXPORTERS)}")
    return ending


def export(asset: Asset, path: Path) -> ExportReport:
    """Write ``asset`` to ``path`` in the format of its ending, see ``EXPORTERS``.

    The file is written under a temporary name beside ``path``, read back with trimesh (and, for a GLB, its
    provenance) and compared with the asset; only then does it take its name. On any failure an older file under
    that name is untouched. Raises UsageError for an unknown ending; ExportError for an asset that cannot be
    written (no faces, values that are not finite, provenance that is not JSON), for errors of the file system, and
    for a file that does not read back as what was written.
    """
    ending = check_ending(path)
    exporter = EXPORTERS[ending]
    mesh, placement = _place(asset)
    data = exporter.encode(mesh)

    def write_and_check(temporary: Path) -> None:
        temporary.write_bytes(data)
        _check(temporary.read_bytes(), ending, exporter, mesh, path)

    try:
        write_atomically(path, write_and_check)
    except OSError as error:
        raise ExportError(
            f"cannot write {path}: {error.strerror or error}; check that the folder exists, "
            f"can be written to and has {len(data) / 1e6:.1f} MB free"
        ) from error
    return ExportReport(len(mesh.vertices), len(mesh.faces), len(data), placement)


def read_provenance(path: Path) -> dict[str, Any]:
    """The provenance stored in a .glb of ours; raises ExportError if there is none."""
    try:
        provenance: dict[str, Any] = glb_document(path.read_bytes())["asset"]["extras"][EXTRAS_KEY]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path} holds no dream3d provenance ({error}); only .glb files keep it") from error
    return provenance


def _place(asset: Asset) -> tuple[Placed, Placement]:
    """The asset in the file's frame, after checking that it can be written at all."""
    vertices, faces = np.asarray(asset.vertices), np.asarray(asset.faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ExportError(f"a mesh has (V, 3) vertices and (F, 3) faces, got {vertices.shape} and {faces.shape}")
    if len(faces) == 0:
        raise ExportError("the mesh has no faces, so there is nothing to export; try another seed or a lower level")
    if not np.isfinite(vertices).all():
        count = int((~np.isfinite(vertices).all(axis=1)).sum())
        raise ExportError(
            f"{count} of {len(vertices)} vertices are not finite; the optimisation diverged: try another seed"
        )
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ExportError(f"faces name vertices {faces.min()}..{faces.max()}, but there are {len(vertices)}")
    # Vertices without a face must not stretch the box, and readers are free to drop them.
    used, faces = used_vertices(faces)
    vertices, colors = vertices[used], _display_colors(asset)[used]
    low, high = vertices.min(axis=0).astype(np.float64), vertices.max(axis=0).astype(np.float64)
    extent = float((high - low).max())
    if not extent > 0:
        raise ExportError("all vertices are in one point, so the mesh has no size; try another seed")
    try:
        provenance = json.loads(json_bytes(asset.provenance))
    except (TypeError, ValueError) as error:
        raise ExportError(f"the provenance is not plain JSON data: {error}") from error
    centre = (low + high) / 2
    placement = Placement((float(centre[0]), float(centre[1]), float(centre[2])), 1 / extent)
    placed = Placed(
        placement.to_file(vertices).astype(np.float32),
        faces,
        colors,
        provenance,
        {"world_centre": list(placement.centre), "world_scale": placement.scale},
    )
    return placed, placement


def _display_colors(asset: Asset) -> NDArray[np.float32]:
    colors = np.asarray(asset.vertex_colors)
    if colors.shape != (len(asset.vertices), 3):
        raise ExportError(f"vertex colours must have shape ({len(asset.vertices)}, 3), got {colors.shape}")
    display = display_values(colors)
    # Written so that NaN fails too.
    if not ((display >= 0) & (display <= 1)).all():
        raise ExportError(f"vertex colours must be in [0, 1], got {display.min():.3g}..{display.max():.3g}")
    return display


def _check(data: bytes, ending: str, exporter: Exporter, mesh: Placed, path: Path) -> None:
    """Raise ExportError unless ``data``, read by trimesh, is the mesh that was to be written."""
    try:
        # process=False: the reader must not merge or reorder what is being compared.
        scene = trimesh.load_scene(io.BytesIO(data), file_type=ending[1:], process=False)
        (read,) = scene.geometry.values()
        problem = _difference(read, exporter, mesh)
        if ending == ".glb" and glb_document(data)["asset"]["extras"][EXTRAS_KEY] != mesh.provenance:
            problem = "the provenance differs"
    except Exception as error:  # whatever a parser trips over, the file is not what it should be
        raise ExportError(f"{path} was not written: it did not read back ({error}); please report this") from error
    if problem:
        raise ExportError(f"{path} was not written: read back, {problem}; please report this")


def _difference(read: Any, exporter: Exporter, mesh: Placed) -> str | None:
    """What is wrong with the mesh that was read, or None."""
    vertices = np.asarray(read.vertices)
    if len(read.faces) != len(mesh.faces):
        return f"it has {len(read.faces)} faces instead of {len(mesh.faces)}"
    if exporter.shares_vertices and len(vertices) != len(mesh.vertices):
        return f"it has {len(vertices)} vertices instead of {len(mesh.vertices)}"
    if not np.isfinite(vertices).all():
        return "vertices are not finite"
    # Compared corner by corner: readers may number vertices anew, the order of the faces is kept.
    off = np.abs(vertices[read.faces] - mesh.vertices[mesh.faces]).max()
    if off > POSITION_TOLERANCE:
        return f"its positions are off by {off:.2g}"
    if not exporter.has_color:
        return None
    # A mesh with a material keeps its vertex colours as an attribute, and there only GLB has a material.
    attributes = getattr(read.visual, "vertex_attributes", {})
    if "color" in attributes:
        found, wanted = np.asarray(attributes["color"]), linear_from_srgb(mesh.colors)
    elif read.visual.kind == "vertex":
        found, wanted = np.asarray(read.visual.vertex_colors) / 255, mesh.colors.astype(np.float64)
    else:
        return "its colours are gone"
    off = np.abs(found[read.faces, :3] - wanted[mesh.faces]).max()
    return f"its colours are off by {off:.2g}" if off > COLOR_TOLERANCE else None
