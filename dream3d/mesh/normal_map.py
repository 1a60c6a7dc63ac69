"""What a reduced surface has lost of its shape, as an image: the normals of the surface that it was made from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dream3d.mesh.bake import Texels
from dream3d.mesh.layout import Layout
from dream3d.mesh.surface import Faces, FloatArray, Surface, vertex_normals
from dream3d.mesh.tangents import bitangents, encoded, tangents_of, to_frame, unit

NEIGHBOURS = 8
"""Vertices of the fine surface that a normal is mixed from."""
CHUNK = 1 << 16
"""Normals at once."""


def normal_colors(
    fine: Surface, vertices: FloatArray, faces: Faces, layout: Layout, texels: Texels
) -> NDArray[np.float32]:
    """(T, 3) colours in [0, 1] of a normal map at the texels of a surface, vertices (V, 3) and faces (F, 3).

    They say where the normals of the ``fine`` surface point, seen from the frames that the texture's file has.
    """
    normals = vertex_normals(vertices, faces)[layout.source]
    tangents = tangents_of(vertices[layout.source], normals, layout.faces, layout.uv)
    upwards = bitangents(normals, tangents)
    tree, fine_normals = cKDTree(fine.vertices), vertex_normals(fine.vertices, fine.faces)
    parts = []
    for start in range(0, len(texels.pixel), CHUNK):
        chunk = slice(start, start + CHUNK)
        corner, weight = layout.faces[texels.face[chunk]], texels.weights[chunk]
        mixed = (np.einsum("tk,tkc->tc", weight, values[corner]) for values in (tangents[:, :3], upwards, normals))
        tangent, bitangent, normal = (unit(one.astype(np.float64)) for one in mixed)
        wanted = _normals_near(tree, fine_normals, texels.positions[chunk], normal)
        mapped: NDArray[np.float64] = to_frame(wanted, (tangent, bitangent, normal))
        parts.append(encoded(mapped))
    return np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)


def _normals_near(
    tree: cKDTree, normals: NDArray[np.float32], positions: FloatArray, facing: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N, 3) unit normals of a surface's vertices around positions (N, 3); those that face away do not count.

    Shepard's method as modified by Franke and Little (Franke 1982): weights ((R - d) / (R d))^2, which fall to 0 at the
    distance R of the furthest neighbour, so that nothing jumps where another one becomes the nearest. Where none of
    them ``facing`` (N, 3) is found, on the other side of a thin wall for one, that direction is the answer.
    """
    count = min(NEIGHBOURS, len(normals))
    distance, found = tree.query(positions, count)
    distance, found = distance.reshape(len(positions), count), found.reshape(len(positions), count)
    reach = np.maximum(distance[:, -1:], 1e-12) * (1 + 1e-6)
    near = normals[found].astype(np.float64)
    weight = ((reach - distance) / (reach * np.maximum(distance, 1e-9))) ** 2
    weight = weight * (np.einsum("nkc,nc->nk", near, facing) > 0)
    total = np.einsum("nk,nkc->nc", weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-30), near)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-6, unit(total), facing)
