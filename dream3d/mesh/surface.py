"""Triangle surfaces: volumes, normals, and the removal of what nobody wants in an asset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from trimesh.graph import connected_component_labels

FloatArray = NDArray[np.floating]
Faces = NDArray[np.int64]

CUT_OFF = 0.002
"""Share of a surface's area on the border of the volume from which an object counts as cut off."""


@dataclass(frozen=True)
class Surface:
    """A closed triangle surface in the world frame (z up, front +x)."""

    vertices: NDArray[np.float32]
    """(V, 3) world units."""
    faces: Faces
    """(F, 3) vertex indices, counter-clockwise seen from outside."""
    voxel: float
    """Side of the grid cells that it was made from, world units."""


def face_volumes(vertices: FloatArray, faces: Faces) -> NDArray[np.float64]:
    """(F,) signed volumes of the tetrahedra between each face and the origin; a closed surface's sum is its volume.

    Positive when faces run counter-clockwise seen from outside.
    """
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    return np.einsum("ij,ij->i", a, np.cross(b, c)) / 6


def cap_area(surface: Surface) -> float:
    """Share, 0..1, of a surface's area that lies flat on a side of the cube [-1, 1]^3: where an object was cut off."""
    corners = surface.vertices[surface.faces].astype(np.float64)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    flat = (np.abs(corners.mean(axis=1)) > 1 - surface.voxel / 10).any(axis=1)
    return float(area[flat].sum() / max(area.sum(), 1e-30))


def vertex_normals(vertices: FloatArray, faces: Faces) -> NDArray[np.float32]:
    """(V, 3) unit normals, the average of the adjacent faces' normals weighted by face area.

    Area is the right weight here: marching cubes makes slivers, whose direction is noise and whose area is nearly
    nothing. A vertex without any area around it gets (0, 0, 1), because file formats demand unit length.
    """
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    doubled_area = np.cross(b - a, c - a)
    total = np.zeros((len(vertices), 3))
    for axis in range(3):
        total[:, axis] = np.bincount(
            faces.reshape(-1), weights=np.repeat(doubled_area[:, axis], 3), minlength=len(vertices)
        )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    tiny = length[:, 0] < 1e-30
    total[tiny], length[tiny] = (0.0, 0.0, 1.0), 1.0
    return (total / length).astype(np.float32)


def seamless_normals(vertices: FloatArray, faces: Faces) -> NDArray[np.float32]:
    """(V, 3) unit normals as :func:`vertex_normals`, the same for all vertices in one place.

    A texture's seams give a place several vertices; with normals of their own the seams would show as edges.
    """
    places, place = np.unique(vertices, axis=0, return_inverse=True)
    place = place.reshape(-1)
    return vertex_normals(places, place[faces])[place]


def is_watertight(faces: NDArray[np.integer]) -> bool:
    """Whether faces (F, 3) close a volume: at each edge exactly two meet, and they run along it in opposite ways."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    if len(edges) == 0 or (edges[:, 0] == edges[:, 1]).any():
        return False
    span = int(edges.max()) + 1
    there, back = np.sort(edges[:, 0] * span + edges[:, 1]), np.sort(edges[:, 1] * span + edges[:, 0])
    return bool((there[1:] != there[:-1]).all() and np.array_equal(there, back))


def used_vertices(faces: NDArray[np.integer]) -> tuple[NDArray[np.int64], Faces]:
    """The increasing indices (U,) of the vertices that faces (F, 3) use, and the faces numbered after them."""
    used, renumbered = np.unique(faces, return_inverse=True)
    return used.astype(np.int64), renumbered.reshape(-1, 3).astype(np.int64)


def drop_small_components(
    vertices: NDArray[np.float32], faces: Faces, min_component_fraction: float
) -> tuple[NDArray[np.float32], Faces]:
    """The components that hold at least ``min_component_fraction`` of the largest one's volume.

    Volumes are signed, so walls of inner cavities (negative volume, no camera ever sees them) go as well. The
    largest component always stays. Vertices that no face uses are dropped; faces are renumbered.
    """
    if len(faces) == 0:
        return vertices[:0], faces
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    label_of_vertex = connected_component_labels(edges, node_count=len(vertices))  # type: ignore[no-untyped-call]
    label = label_of_vertex[faces[:, 0]]
    volume = np.bincount(label, weights=face_volumes(vertices, faces))
    keep = volume >= min_component_fraction * volume.max()
    keep &= volume > 0
    keep[volume.argmax()] = True
    used, faces = used_vertices(faces[keep[label]])
    return vertices[used], faces
