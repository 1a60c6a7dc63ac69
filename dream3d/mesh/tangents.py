"""Tangent frames of a textured surface, and directions in them: what a normal map's pixels mean.

The convention is glTF 2.0's (specification, 3.7.2.1 and 3.9.3): x points to the right of the image, y to its top, z
out of the surface; tangent and bitangent are interpolated over a face like the normal, and normalised there.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dream3d.mesh.surface import Faces, FloatArray

Float = TypeVar("Float", np.float32, np.float64)

SMALLEST_UP = 0.05
"""Of a mapped direction's z: a normal map shows the front of a surface, and 8 bits tell no lower slope apart."""


def tangents_of(vertices: FloatArray, normals: FloatArray, faces: Faces, uv: FloatArray) -> NDArray[np.float32]:
    """(V, 4) unit tangents in which the image's right runs, at right angles to unit ``normals`` (V, 3), and a sign.

    Vertices (V, 3), faces (F, 3), places in the image (V, 2) counted from its upper left corner. The bitangent, along
    which the image's top lies, is the sign (1 or -1) times normal x tangent. A vertex has the mean of its faces'
    directions, weighted by their area in the image; one without any gets some direction along the surface.
    """
    (p, q, r), (a, b, c) = (values[faces].astype(np.float64).swapaxes(0, 1) for values in (vertices, uv))
    edge_1, edge_2, (u_1, v_1), (u_2, v_2) = q - p, r - p, (b - a).T, (c - a).T
    area = u_1 * v_2 - u_2 * v_1  # twice the area in the image, signed
    # dP/du times the area, whose sign has to go again.
    right = np.sign(area)[:, None] * (edge_1 * v_2[:, None] - edge_2 * v_1[:, None])
    # Seen from outside, v grows downwards: a face whose corners run counter-clockwise has a negative area.
    total = np.zeros((len(vertices), 4))
    for column, values in enumerate((*right.T, -area)):
        total[:, column] = np.bincount(faces.reshape(-1), np.repeat(values, 3), minlength=len(vertices))
    normal = normals.astype(np.float64)
    tangent = _across(total[:, :3], normal)
    lost = np.linalg.norm(tangent, axis=1) < 1e-12
    # The axis that is most at right angles to the normal.
    tangent[lost] = _across(np.eye(3)[np.abs(normal[lost]).argmin(axis=1)], normal[lost])
    sign = np.where(total[:, 3:] < 0, -1.0, 1.0)
    return np.concatenate([unit(tangent), sign], axis=1).astype(np.float32)


def bitangents(normals: FloatArray, tangents: NDArray[Float]) -> NDArray[Float]:
    """(V, 3) of unit normals (V, 3) and :func:`tangents_of` (V, 4)."""
    across: NDArray[Float] = np.cross(normals, tangents[:, :3]).astype(tangents.dtype)
    return across * tangents[:, 3:]


def to_frame(directions: NDArray[Float], frames: tuple[NDArray[Float], ...]) -> NDArray[Float]:
    """(N, 3) unit directions in frames of a tangent, a bitangent and a normal, (N, 3) each: what the map has to say.

    The frames need not be orthogonal: those between vertices are not. What points into the surface is bent up to
    :data:`SMALLEST_UP`; a frame that is flat says straight up.
    """
    tangent, bitangent, normal = frames
    axes = np.stack([np.cross(bitangent, normal), np.cross(normal, tangent), np.cross(tangent, bitangent)], axis=1)
    volume = np.einsum("nc,nc->n", tangent, axes[:, 0])
    found = np.einsum("nkc,nc->nk", axes, directions) / np.where(np.abs(volume) < 1e-6, 1, volume)[:, None]
    found[np.abs(volume) < 1e-6] = 0, 0, 1
    found[:, 2] = np.maximum(found[:, 2], SMALLEST_UP)
    return unit(found).astype(directions.dtype)


def from_frame(mapped: NDArray[Float], frames: tuple[NDArray[Float], ...]) -> NDArray[Float]:
    """(N, 3) unit directions of what a map says (N, 3), the inverse of :func:`to_frame` up to its length."""
    tangent, bitangent, normal = frames
    return unit(mapped[:, :1] * tangent + mapped[:, 1:2] * bitangent + mapped[:, 2:] * normal)


def encoded(directions: FloatArray) -> NDArray[np.float32]:
    """Unit directions as colours in [0, 1] of a normal map: (0, 0, 1) is (0.5, 0.5, 1)."""
    return ((np.asarray(directions) + 1) / 2).astype(np.float32)


def decoded(colors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of :func:`encoded`, up to the length."""
    return colors * 2 - 1


def unit(vectors: NDArray[Float]) -> NDArray[Float]:
    """(N, 3) vectors of length 1; zeros stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _across(vectors: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of vectors (N, 3) at right angles to unit normals (N, 3)."""
    along: NDArray[np.float64] = (vectors * normal).sum(axis=1, keepdims=True)
    return vectors - along * normal
