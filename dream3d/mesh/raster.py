"""A z-buffer rasteriser in numpy: which face every pixel sees, without OpenGL and the drivers that it needs.

All triangles are expanded into the pixels of their bounding boxes in one vectorised pass (in batches of bounded
memory). Extracted meshes have triangles of about a pixel, so boxes waste little, and most triangles lie between
pixel centres and drop out at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dream3d.cameras import Cameras
from dream3d.mesh.surface import Faces, FloatArray

NEAREST = 1e-4
"""Triangles with a corner closer to the camera plane than this (world units), or behind it, are not drawn."""
EDGE_TOLERANCE = 1e-9
"""Barycentric slack, so that a pixel centre on the edge of two triangles cannot fall between them."""
BATCH = 1 << 20
"""Candidate pixels handled at once."""


@dataclass(frozen=True)
class Fragments:
    """What each pixel sees; all arrays start with (N, H, W): views, rows from the top, columns from the left."""

    face: NDArray[np.int64]
    """(N, H, W) index of the nearest face, -1 where there is none. On equal depth the lower index wins."""
    barycentric: NDArray[np.float32]
    """(N, H, W, 3) perspective-correct weights of the face's corners, 0 outside."""
    depth: NDArray[np.float32]
    """(N, H, W) distance from the camera along the unit ray of ``Cameras.rays``, inf outside."""


def rasterize(vertices: FloatArray, faces: Faces, cameras: Cameras, height: int, width: int) -> Fragments:
    """Draw a mesh, both sides of its faces: vertices (V, 3) in world units, faces (F, 3).

    A pixel belongs to the face that contains its centre, the point that the ray of ``Cameras.rays`` passes.
    Raises ValueError if a vertex is not finite.
    """
    if not np.isfinite(vertices).all():
        raise ValueError("cannot draw a mesh with vertices that are not finite")
    shape = (len(cameras), height, width)
    face = np.full(shape, -1, dtype=np.int64)
    barycentric = np.zeros((*shape, 3), dtype=np.float32)
    depth = np.full(shape, np.inf, dtype=np.float32)
    for view, (screen, z) in enumerate(_projections(vertices, cameras, height, width)):
        z_buffer = np.full(height * width, np.inf)
        flat_face, flat_barycentric = face[view].reshape(-1), barycentric[view].reshape(-1, 3)
        for index, pixel, weights, pixel_z in covered_pixels(screen[faces], z[faces], height, width):
            nearer = pixel_z < z_buffer[pixel]
            index, pixel, weights, pixel_z = index[nearer], pixel[nearer], weights[nearer], pixel_z[nearer]
            np.minimum.at(z_buffer, pixel, pixel_z)
            # Of several assignments to one pixel numpy keeps the last: reversed, the lowest face index.
            first = np.flatnonzero(pixel_z == z_buffer[pixel])[::-1]
            flat_face[pixel[first]] = index[first]
            flat_barycentric[pixel[first]] = weights[first]
        depth[view] = z_buffer.reshape(height, width)
    # The z-buffer holds depth along the viewing axis; divided by the ray's cosine it is the distance along the ray.
    _, rays_d = cameras.rays(height, width)
    cosine = -(rays_d * cameras.c2w[:, None, None, :3, 2]).sum(dim=-1)
    return Fragments(face, barycentric, depth / cosine.float().cpu().numpy())


def silhouettes(vertices: FloatArray, faces: Faces, cameras: Cameras, height: int, width: int) -> NDArray[np.bool_]:
    """(N, H, W) True where a pixel's centre sees the mesh."""
    return rasterize(vertices, faces, cameras, height, width).face >= 0


def interpolate(fragments: Fragments, faces: Faces, values: FloatArray) -> NDArray[np.float32]:
    """(N, H, W, C) per-vertex ``values`` (V, C) at every pixel, perspective-correct; 0 where there is no face."""
    result = np.zeros((*fragments.face.shape, values.shape[1]), dtype=np.float32)
    seen = fragments.face >= 0
    result[seen] = np.einsum("pk,pkc->pc", fragments.barycentric[seen], values[faces[fragments.face[seen]]])
    return result


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
    drawable = (corner_z > NEAREST).all(axis=1) & (low <= high).all(axis=1) & (np.abs(area) > 1e-12)
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
