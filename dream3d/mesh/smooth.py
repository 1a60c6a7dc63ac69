"""Smoothing that neither shrinks a surface nor changes its outline (Taubin 1995, a signal processing approach)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dream3d.mesh.surface import Faces, face_volumes

SHRINK, GROW = 0.5, -0.53
"""Steps towards the neighbours' mean and back. What the two leave alone: eigenvalues of the Laplacian below
1 / 0.5 - 1 / 0.53 = 0.11, which are waves of more than 13 edges (1 - cos(2 pi / 13) = 0.11)."""
SILHOUETTE_TOLERANCE = 0.003
"""IoU with the field's silhouettes that smoothing may cost."""
VOLUME_TOLERANCE = 0.02
"""Share of the volume that smoothing may add or take."""


def taubin(vertices: NDArray[np.float32], faces: Faces, rounds: int) -> NDArray[np.float32]:
    """(V, 3) smoothed positions inside the cube [-1, 1]^3, after ``rounds`` of a step inwards and one outwards.

    What lies on a side of the cube stays there, so that a flat cap stays flat.
    """
    if rounds == 0:
        return vertices
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    both = np.concatenate([edges, edges[:, ::-1]])
    count = len(vertices)
    adjacent = sparse.csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count))
    adjacent.data[:] = 1  # an edge counts once, however many faces name it
    valence = np.asarray(adjacent.sum(axis=1))
    has_neighbours = (valence > 0).astype(np.float64)
    positions = vertices.astype(np.float64)
    on_side = np.abs(positions) >= 1
    for _ in range(rounds):
        for factor in (SHRINK, GROW):
            mean = adjacent @ positions / np.maximum(valence, 1)
            step = factor * has_neighbours * (mean - positions)
            positions = positions + np.where(on_side, 0, step)
    return np.clip(positions, -1, 1).astype(np.float32)


def smooth(
    vertices: NDArray[np.float32], faces: Faces, rounds: int, fit: Callable[[NDArray[np.float32]], float]
) -> NDArray[np.float32]:
    """The vertices after as many rounds, of ``rounds`` at most, as the outline allows.

    ``fit`` is the agreement of a surface with these vertices and the field, an IoU. Half as many rounds are tried for
    as long as it falls by more than :data:`SILHOUETTE_TOLERANCE` or the volume changes by :data:`VOLUME_TOLERANCE`.
    """
    if rounds == 0:
        return vertices
    before, volume = fit(vertices), face_volumes(vertices, faces).sum()
    while rounds:
        smoothed = taubin(vertices, faces, rounds)
        changed = abs(face_volumes(smoothed, faces).sum() - volume)
        if changed <= VOLUME_TOLERANCE * abs(volume) and fit(smoothed) >= before - SILHOUETTE_TOLERANCE:
            return smoothed
        rounds //= 2
    return vertices
