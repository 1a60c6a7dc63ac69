"""Writing an asset, and reading it back before anyone is told that it was written.

Conventions: +Y up, front +Z, the bounding box centred on the origin with a largest side of 1. Colours are sRGB
display values up to here; the GLB stores them in linear light, as glTF demands, OBJ and PLY as they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream3d.errors import ExportError, UsageError
from dream3d.files import parse_json, read_regular, write_atomically
from dream3d.mesh.appearance import Appearance, Texture
from dream3d.mesh.companions import companion_stem, written_beside
from dream3d.mesh.formats.base import ExportMesh
from dream3d.mesh.formats.glb import json_bytes, provenance_of
from dream3d.mesh.formats.readback import find_difference
from dream3d.mesh.formats.registry import EXPORTERS
from dream3d.mesh.surface import used_vertices

MAX_PROVENANCE_FILE_BYTES = 2**30
"""Of a .glb whose provenance is read."""


@dataclass(frozen=True)
class Asset:
    """A finished mesh in the world frame (z up, front +x)."""

    vertices: NDArray[np.floating]
    """(V, 3) world units."""
    faces: NDArray[np.integer]
    """(F, 3) vertex indices, counter-clockwise seen from outside."""
    appearance: Appearance
    """Vertex colours or a texture, one entry per vertex."""
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
        return np.asarray(positions, dtype=np.float64)[:, [2, 0, 1]] / self.scale + self.centre


@dataclass(frozen=True)
class ExportReport:
    """What was written and read back."""

    vertices: int
    faces: int
    bytes: int
    """With the files beside the mesh's."""
    placement: Placement


def check_extension(path: Path) -> str:
    """The lower-case file extension of ``path``; raises UsageError, naming the supported ones, for any other."""
    extension = path.suffix.lower()
    if extension not in EXPORTERS:
        given = f"the file extension is {extension!r}" if extension else "it has no file extension"
        raise UsageError(f"cannot export to {path}: {given}; use one of {', '.join(EXPORTERS)}")
    return extension


def keeps_texture(path: Path) -> bool:
    """Whether a mesh at ``path`` can have a texture; UsageError as :func:`check_extension`."""
    return Texture in EXPORTERS[check_extension(path)].appearances


def export(asset: Asset, path: Path) -> ExportReport:
    """Write ``asset`` to ``path``; the file extension sets the format, see ``EXPORTERS``.

    The file is written under a temporary name beside ``path``, read back with trimesh (and, for a GLB, its
    provenance) and compared with the asset; only then does it take its name. On any failure an older file under
    that name is untouched. Raises UsageError for an unknown file extension; ExportError for an asset that cannot be
    written (no faces, values that are not finite, provenance that is not JSON, a texture in a format without), for
    errors of the file system, and for a file that does not read back as what was written. A textured OBJ has its
    material and its image in files beside it, with a digest in their names, see :mod:`dream3d.mesh.companions`.
    """
    extension = check_extension(path)
    exporter = EXPORTERS[extension]
    mesh, placement = _place(asset)
    if exporter.appearances and not isinstance(mesh.appearance, exporter.appearances):
        kept = ", ".join(name for name, one in EXPORTERS.items() if type(mesh.appearance) in one.appearances)
        raise ExportError(f"cannot export to {path}: a texture does not fit into {extension}; use {kept}")
    mesh = replace(mesh, name=companion_stem(path))
    data, beside = exporter.encode(mesh), exporter.beside(mesh) if exporter.beside else {}
    size = len(data) + sum(map(len, beside.values()))

    def write_and_check(temporary: Path) -> None:
        temporary.write_bytes(data)
        try:
            problem = find_difference(temporary.read_bytes(), extension, exporter, mesh, beside)
        except Exception as error:  # whatever a parser trips over, the file is not what it should be
            raise ExportError(f"{path} was not written: it did not read back ({error}); please report this") from error
        if problem:
            raise ExportError(f"{path} was not written: read back, {problem}; please report this")

    try:
        with written_beside(path, beside):
            write_atomically(path, write_and_check)
    except OSError as error:
        raise ExportError(
            f"cannot write {path}: {error.strerror or error}; check that the folder exists, "
            f"can be written to and has {size / 1e6:.1f} MB free"
        ) from error
    return ExportReport(len(mesh.vertices), len(mesh.faces), size, placement)


def asset_glb(asset: Asset) -> bytes:
    """The asset as the bytes of a GLB, not read back. Raises ExportError for one that cannot be written."""
    mesh, _ = _place(asset)
    return EXPORTERS[".glb"].encode(mesh)


def read_provenance(path: Path) -> dict[str, Any]:
    """The provenance stored in a .glb of ours; raises ExportError if there is none."""
    try:
        content = read_regular(path, MAX_PROVENANCE_FILE_BYTES)
    except OSError as error:
        raise ExportError(f"{path} holds no dream3d provenance ({error}); only .glb files keep it") from error
    return provenance_in(content, path)


def provenance_in(content: bytes, name: object) -> dict[str, Any]:
    """The provenance in the bytes of a .glb of ours, plain data; ExportError, with the file's ``name``, for none."""
    try:
        found = provenance_of(content)
        if not isinstance(found, dict):
            raise TypeError(f"it is a {type(found).__name__}")
        return parse_json(json_bytes(found))  # within bounds, whoever wrote it
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ExportError(f"{name} holds no dream3d provenance ({error}); only .glb files keep it") from error


def _place(asset: Asset) -> tuple[ExportMesh, Placement]:
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
    appearance = asset.appearance.select(used, len(vertices))
    vertices = vertices[used]
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
    extras = {"world_centre": list(placement.centre), "world_scale": placement.scale}
    positions = placement.to_file(vertices).astype(np.float32)
    return ExportMesh(positions, faces, appearance, provenance, extras), placement
