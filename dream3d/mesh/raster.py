"""A z-buffer rasteriser on the CPU: which face every pixel sees, without OpenGL and the drivers that it needs.

:func:`rasterize` goes over the triangles in a compiled loop (:mod:`dream3d.mesh.loops`). :func:`covered_pixels` says
the same of all pixels that a triangle covers, seen or not, with array operations: it expands the triangles into the
pixels of their bounding boxes, in batches of bounded memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dream3d.cameras import Cameras
from dream3d.mesh.loops import EDGE_TOLERANCE, NEAREST, SMALLEST_AREA, cover, mix_corners
from dream3d.mesh.surface import Faces, FloatArray

BATCH = 1 << 20
"""Candidate pixels handled at once."""


@dataclass(frozen=True)
class Fragments:
    """What each pixel sees; all arrays start with (N, H, W): views, rows from the top, columns from the left."""

    face: NDArray[np.int64]
    """(N, H, W) index of the nearest face, -1 where there is none. On equal depth the lower index wins."""
    barycentric: NDArray[np.float32]
    """(N, H, W, 3) perspective-correct weights of the face's corners, 0 outside."""
    z: NDArray[np.float32]
    """(N, H, W) depth along the viewing axis, world units, inf outside."""

    def depth(self, cameras: Cameras) -> NDArray[np.float32]:
        """(N, H, W) distance from the cameras along the unit rays of ``Cameras.rays``, inf outside."""
        _, rays_d = cameras.rays(*self.z.shape[1:])
        cosine = -(rays_d * cameras.c2w[:, None, None, :3, 2]).sum(dim=-1)
        return self.z / cosine.float().cpu().numpy()


def rasterize(vertices: FloatArray, faces: Faces, cameras: Cameras, height: int, width: int) -> Fragments:
    """Draw a mesh, both sides of its faces: vertices (V, 3) in world units, faces (F, 3).

    A pixel belongs to the face that contains its centre, the point that the ray of ``Cameras.rays`` passes.
    Raises ValueError if a vertex is not finite.
    """
    if not np.isfinite(vertices).all():
        raise ValueError("cannot draw a mesh with vertices that are not finite")
    shape = (len(cameras), height, width)
    faces = np.ascontiguousarray(faces, np.int64)
    face = np.full(shape, -1, dtype=np.int64)
    barycentric = np.zeros((*shape, 3), dtype=np.float32)
    z = np.full(shape, np.inf, dtype=np.float32)
    for view, (screen, corner_z) in enumerate(_projections(vertices, cameras, height, width)):
        z_buffer, weights = np.full(shape[1:], np.inf), np.zeros((*shape[1:], 3))
        cover(screen, corner_z, faces, True, z_buffer, face[view], weights)
        barycentric[view], z[view] = weights, z_buffer
    return Fragments(face, barycentric, z)


def silhouettes(vertices: FloatArray, faces: Faces, cameras: Cameras, height: int, width: int) -> NDArray[np.bool_]:
    """(N, H, W) True where a pixel's centre sees the mesh."""
    return rasterize(vertices, faces, cameras, height, width).face >= 0


def interpolate(fragments: Fragments, faces: Faces, values: FloatArray) -> NDArray[np.float32]:
    """(N, H, W, C) per-vertex ``values`` (V, C) at every pixel, perspective-correct; 0 where there is no face."""
    result = np.zeros((*fragments.face.shape, values.shape[1]), dtype=np.float32)
    seen = fragments.face >= 0
    result[seen] = interpolate_at(seen, fragments, faces, values)
    return result


def interpolate_at(
    pixels: NDArray[np.bool_], fragments: Fragments, faces: Faces, values: FloatArray
) -> NDArray[np.float32]:
    """(P, C) per-vertex ``values`` (V, C), perspective-correct, at P pixels of a mask (N, H, W) that all see a face."""
    owner = fragments.face[pixels]
    mixed = np.empty((len(owner), values.shape[1]), np.float32)
    numbers = np.ascontiguousarray(values, np.float32)
    mix_corners(owner, fragments.barycentric[pixels], np.ascontiguousarray(faces, np.int64), numbers, mixed)
    return mixed


def _projections(
    vertices: FloatArray, cameras: Cameras, height: int, width: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Per camera: (V, 2) image positions (column, row) in pixels and (V,) depths along the viewing axis."""
    poses = cameras.c2w.double().cpu().numpy()
    for pose, fovy_deg in zip(poses, cameras.fovy_deg.double().cpu().numpy(), strict=True):
        local = (vertices.astype(np.float64) - pose[:3, 3]) @ pose[:3, :3]
        z = -local[:, 2]
        half_pixels = height / 2 / math.tan(math.radians(float(fovy_deg)) / 2)  # pixels per unit of x / z
        safe = np.where(z > NEAREST, z, 1.0)  # those in front only; the rest is never drawn
        column = width / 2 + local[:, 0] / safe * half_pixels
        row = height / 2 - local[:, 1] / safe * half_pixels
        yield np.stack([column, row], axis=-1), z


def covered_pixels(
    corners: NDArray[np.float64], corner_z: NDArray[np.float64], height: int, width: int
) -> Iterator[tuple[Faces, NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
    """Batches of (face, pixel, perspective-correct weights (M, 3), depth along the axis) for covered pixel centres.

    ``corners`` (F, 3, 2) are image positions, ``corner_z`` (F, 3) depths. Pixel (row, column) has its centre at
    (row + 0.5, column + 0.5). Faces come in increasing order.
    """
    low = np.maximum(np.ceil(corners.min(axis=1) - 0.5), 0).astype(np.int64)
    high = np.minimum(np.floor(corners.max(axis=1) - 0.5), (width - 1, height - 1)).astype(np.int64)
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge_1[:, 0] * edge_2[:, 1] - edge_1[:, 1] * edge_2[:, 0]
    drawable = (corner_z > NEAREST).all(axis=1) & (low <= high).all(axis=1) & (np.abs(area) > SMALLEST_AREA)
    faces = np.flatnonzero(drawable)
    columns = (high - low + 1)[faces, 0]
    count = columns * (high - low + 1)[faces, 1]
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    for batch in np.split(np.arange(len(faces)), np.searchsorted(ends, np.arange(BATCH, total, BATCH))):
        which = np.repeat(batch, count[batch])
        offset = np.arange(len(which)) - np.repeat(np.cumsum(count[batch]) - count[batch], count[batch])
        face = faces[which]
        column = low[face, 0] + offset % columns[which]
        row = low[face, 1] + offset // columns[which]
        x, y = column + 0.5 - corners[face, 0, 0], row + 0.5 - corners[face, 0, 1]
        weight_1 = (x * edge_2[face, 1] - y * edge_2[face, 0]) / area[face]
        weight_2 = (y * edge_1[face, 0] - x * edge_1[face, 1]) / area[face]
        flat = np.stack([1 - weight_1 - weight_2, weight_1, weight_2], axis=-1)
        inside = (flat >= -EDGE_TOLERANCE).all(axis=1)
        # 1 / z is linear on the image, z is not: divide by z, interpolate, and divide back.
        over_z = flat[inside] / corner_z[face[inside]]
        inverse_z = over_z.sum(axis=1)
        yield face[inside], (row * width + column)[inside], over_z / inverse_z[:, None], 1 / inverse_z
