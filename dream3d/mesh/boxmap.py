"""A surface laid flat by looking at it from six sides: crude, quick, and it always succeeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from trimesh.graph import connected_component_labels

from dream3d.mesh.layout import Layout
from dream3d.mesh.raster import covered_pixels
from dream3d.mesh.surface import Faces

ROUNDS = 4
"""Of looking for faces of one chart that lie over each other, and giving those behind charts of their own."""


def box_layout(vertices: NDArray[np.float32], faces: Faces, size: int, padding: int) -> Layout:
    """Lay out a surface, vertices (V, 3) and faces (F, 3), on an image of ``size`` pixels a side.

    A chart is a connected part whose normals point mostly to one side of a box. Where it folds over itself, which is
    measured in pixels, the part behind becomes a chart of its own. ``padding`` pixels lie between two charts.
    """
    corners = vertices[faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    axis = np.abs(normals).argmax(axis=1)
    side = 2 * axis + (np.take_along_axis(normals, axis[:, None], axis=1)[:, 0] < 0)
    keep = np.array([[1, 2], [2, 0], [0, 1]])[axis]  # the two axes that the projection keeps
    flat = np.take_along_axis(corners, keep[:, None, :].repeat(3, axis=1), axis=2)
    layer = np.zeros(len(faces), np.int64)
    for _ in range(ROUNDS):
        chart = _charts(faces, side + 6 * layer)
        placed = _packed(flat, chart, size, padding)
        hidden = _hidden(placed, chart, size)
        if not len(hidden):
            break
        layer[hidden] += 1
    chart = _charts(faces, side + 6 * layer)
    placed = _packed(flat, chart, size, padding)
    # One vertex for each chart that a vertex of the surface is in.
    pairs, corner = np.unique(np.stack([np.repeat(chart, 3), faces.reshape(-1)], axis=1), axis=0, return_inverse=True)
    corner = corner.reshape(-1)
    uv = np.zeros((len(pairs), 2))
    uv[corner] = placed.reshape(-1, 2) / size
    return Layout(pairs[:, 1], corner.reshape(-1, 3), np.clip(uv, 0, 1).astype(np.float32))


def _charts(faces: Faces, kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """(F,) number of each face's chart: faces of one kind (F,) that an edge joins are in one."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    owner = np.tile(np.arange(len(faces)), 3)
    keyed = np.column_stack([edges, kind[owner]])
    order = np.lexsort(keyed.T)
    same = (keyed[order][1:] == keyed[order][:-1]).all(axis=1)
    joined = np.stack([owner[order][1:][same], owner[order][:-1][same]], axis=1)
    labels: NDArray[np.int64] = connected_component_labels(joined, node_count=len(faces))  # type: ignore[no-untyped-call]
    return labels.astype(np.int64)


def _packed(flat: NDArray[np.float64], chart: NDArray[np.int64], size: int, padding: int) -> NDArray[np.float64]:
    """(F, 3, 2) corners in pixels: charts on shelves, the highest first, as large as all of them fit."""
    count = int(chart.max()) + 1
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, chart, flat.min(axis=1))
    np.maximum.at(high, chart, flat.max(axis=1))
    extent = high - low
    smallest, largest = 0.0, size / max(float(extent.max()), 1e-12)
    for _ in range(24):
        scale = (smallest + largest) / 2
        if _shelves(extent * scale + padding, size) is None:
            largest = scale
        else:
            smallest = scale
    corner = _shelves(extent * smallest + padding, size)
    if corner is None:  # more charts than there is room for their padding: they share texels
        corner = np.zeros((count, 2))
    return (flat - low[chart][:, None]) * smallest + corner[chart][:, None] + padding / 2


def _shelves(boxes: NDArray[np.float64], size: int) -> NDArray[np.float64] | None:
    """(C, 2) upper left corners of boxes (C, 2) in a square; None if they do not fit."""
    corner = np.zeros_like(boxes)
    x = y = shelf = 0.0
    for index in np.argsort(-boxes[:, 1], kind="stable"):
        width, height = boxes[index]
        if x + width > size:
            x, y, shelf = 0.0, y + shelf, 0.0
        shelf = max(shelf, height)
        if width > size or y + height > size:
            return None
        corner[index] = x, y
        x += width
    return corner


def _hidden(placed: NDArray[np.float64], chart: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The faces with a pixel's centre inside that another face of their chart has too, all but the first of these."""
    owner = np.full(size * size, -1, np.int64)
    hidden = []
    inside = 1e-6  # not those on the edge that two neighbours share
    for face, pixel, weights, _ in covered_pixels(placed, np.ones(placed.shape[:2]), size, size):
        sure = (weights > inside).all(axis=1)
        face, pixel = face[sure], pixel[sure]
        # numpy keeps the last of several assignments to one place: reversed, the lowest face.
        free = owner[pixel] < 0
        owner[pixel[free][::-1]] = face[free][::-1]
        hidden.append(face[owner[pixel] != face])
    return np.unique(np.concatenate(hidden)) if hidden else np.zeros(0, np.int64)
