"""Antialiased outlines of a mesh, differentiable in its vertices.

After Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering", antialiasing.

Which face a pixel sees jumps when an edge passes the pixel's centre, and a jump has no gradient. So where an outline
runs between the centres of two neighbouring pixels, one of them takes some of the other's colour: as much as its
place between them says. That place moves with the edge's two vertices. Unlike there, the search goes from the edges to
the pixels, not from a pixel's own face to its edges: the faces at an outline are often too narrow for any centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream3d.mesh.loops import NEAREST
from dream3d.mesh.surface import Faces

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Edges:
    """Every edge of a mesh, once."""

    ends: Ints
    """(E, 2) its vertices."""
    third: Ints
    """(E, 2) third vertices of the two faces that meet there; the second is -1 where not exactly two do."""


def edges_of(faces: Faces) -> Edges:
    """The edges of faces (F, 3)."""
    ends = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    third = faces[:, [2, 0, 1]].T.reshape(-1)
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    ends, third = ends[order], third[order]
    first = np.flatnonzero(np.r_[True, (ends[1:] != ends[:-1]).any(axis=1)])
    count = np.diff(np.r_[first, len(ends)])
    other = np.where(count == 2, third[np.minimum(first + 1, len(third) - 1)], -1)
    return Edges(ends[first], np.stack([third[first], other], axis=1))


@dataclass(frozen=True)
class Crossings:
    """Where outlines pass between the centres of two neighbouring pixels of an image (S, S), C times."""

    ends: Ints
    """(C, 2) vertices of the edge."""
    axis: Ints
    """(C,) coordinate, 0 column or 1 row, that the two centres differ in."""
    inner: Ints
    """(C,) row * S + column of the pixel that sees the edge's own surface."""
    outer: Ints
    """(C,) of the pixel beside it, which sees something further away."""


def crossings_of(edges: Edges, screen: Floats, depth: Floats, z_buffer: NDArray[np.float32], focal: float) -> Crossings:
    """The crossings that a camera sees.

    ``screen`` (V, 2) are the vertices' columns and rows in pixels, ``depth`` (V,) theirs along the viewing axis,
    ``z_buffer`` (S, S) that of what each pixel sees, inf outside; ``focal`` is the focal length in pixels. An edge
    is on an outline if its two faces lie on one side of it. Of several edges between two centres the nearest counts.
    """
    corner = screen[edges.ends]
    run = corner[:, 1] - corner[:, 0]
    side, other_side = (_cross(run, screen[edges.third[:, face]] - corner[:, 0]) for face in (0, 1))
    on_outline = (edges.third[:, 1] < 0) | (side * other_side > 0)
    on_outline &= (depth[edges.ends] > NEAREST).all(axis=1) & (side != 0)
    chosen = np.flatnonzero(on_outline)
    parts = [
        _between_centres(chosen, corner[chosen], side[chosen], depth[edges.ends[chosen]], z_buffer, focal, axis)
        for axis in (0, 1)
    ]
    edge, axis, inner, outer = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Crossings(edges.ends[edge], axis, inner, outer)


def antialiased(picture: Tensor, screen: Tensor, crossings: Crossings, size: int) -> Tensor:
    """(S * S, C) colours of a ``picture`` of that shape, S = ``size``, mixed where outlines pass between centres.

    The ``screen`` (V, 2) places of vertices, columns and rows in pixels, are what the mix depends on.
    """
    ends, axis, inner, outer = (torch.from_numpy(one) for one in vars(crossings).values())
    a, b = (screen.index_select(0, ends[:, corner]) for corner in (0, 1))
    here, there = (torch.stack([pixel % size, pixel // size], dim=1) + 0.5 for pixel in (inner, outer))

    def along(places: Tensor, other: int = 0) -> Tensor:
        return places.gather(1, (axis ^ other)[:, None])[:, 0]

    share = (along(here, 1) - along(a, 1)) / (along(b, 1) - along(a, 1))
    place = along(a) + share * (along(b) - along(a))
    offset = (place - along(here)) * (along(there) - along(here))  # 0 at the inner centre, 1 at the outer one
    beyond = offset[:, None] - 0.5  # of the border between the two pixels
    change = picture.index_select(0, inner) - picture.index_select(0, outer)
    picture = picture.index_add(0, outer, beyond.clamp(min=0) * change)
    return picture.index_add(0, inner, beyond.clamp(max=0) * change)


def _between_centres(
    edge: Ints, ends: Floats, side: Floats, depth: Floats, z_buffer: NDArray[np.float32], focal: float, axis: int
) -> tuple[Ints, Ints, Ints, Ints]:
    """Edge, axis, inner and outer pixel of the crossings between centres that differ in one coordinate.

    Only edges count that run mostly in the other coordinate: each is then counted once, and a pixel's share is the
    area that the edge cuts off.
    """
    size, other = len(z_buffer), 1 - axis
    run = ends[:, 1] - ends[:, 0]
    low, high = ends[..., other].min(axis=1), ends[..., other].max(axis=1)
    # Lines of centres, from low to below high: two edges that meet on a line cross it once.
    first = np.maximum(np.ceil(low - 0.5), 0).astype(np.int64)
    last = np.minimum(np.ceil(high - 0.5) - 1, size - 1).astype(np.int64)
    steep = np.abs(run[:, other]) > np.abs(run[:, axis]) if axis else np.abs(run[:, other]) >= np.abs(run[:, axis])
    count = np.where(steep, np.maximum(last - first + 1, 0), 0)
    which = np.repeat(np.arange(len(edge)), count)
    line = first[which] + np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    share = (line + 0.5 - ends[which, 0, other]) / run[which, other]
    place = ends[which, 0, axis] + share * run[which, axis]
    before = np.floor(place - 0.5).astype(np.int64)
    inside = (before >= 0) & (before < size - 1)
    which, line, share, before = which[inside], line[inside], share[inside], before[inside]
    stride, line_stride = (1, size) if axis == 0 else (size, 1)
    lower = line * line_stride + before * stride
    # On which side of the edge the lower of the two centres is: beside a point of the edge, towards lower values.
    towards = np.zeros((len(which), 2))
    towards[:, axis] = -1
    lower_is_inner = (_cross(run[which], towards) > 0) == (side[which] > 0)
    inner, outer = np.where(lower_is_inner, (lower, lower + stride), (lower + stride, lower))
    z = z_buffer.reshape(-1)
    z_edge = 1 / ((1 - share) / depth[which, 0] + share / depth[which, 1])
    # What is hardly a pixel's width behind the edge is the same surface going on.
    seen = (z[inner] < z[outer]) & (z[outer] > z_edge * (1 + 1 / focal))
    which, lower, inner, outer, z_edge = which[seen], lower[seen], inner[seen], outer[seen], z_edge[seen]
    order = np.lexsort((z_edge, lower))
    _, nearest = np.unique(lower[order], return_index=True)
    kept = order[nearest]
    return edge[which[kept]], np.full(len(kept), axis), inner[kept], outer[kept]


def _cross(one: Floats, other: Floats) -> Floats:
    """(N,) third component of the cross products of vectors (N, 2)."""
    product: Floats = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    return product
