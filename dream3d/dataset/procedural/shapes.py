"""Building blocks of the procedural assets: closed triangle meshes in glTF's frame (x object's left, y up, z front).

All lengths are in the design's own unit; a data set's images normalise size and place. Everything here is plain
numpy but :func:`blob`, so that an asset takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Field = Callable[[Array], Array]
"""Signed distance, negative inside, of points (..., 3); the result is (...)."""

CREASE_DEG = 40.0
"""A profile that turns by more than this keeps its edge; smaller turns are shaded smoothly."""


@dataclass(frozen=True)
class Solid:
    """Triangles without colour: ``vertices`` (V, 3) and ``faces`` (F, 3), counter-clockwise from outside.

    Vertices that triangles share are shaded smoothly.
    """

    vertices: Array
    faces: NDArray[np.int64]

    def at(self, x: float, y: float, z: float) -> Solid:
        """Moved by (x, y, z)."""
        return Solid(self.vertices + np.array([x, y, z]), self.faces)

    def scaled(self, x: float, y: float, z: float) -> Solid:
        """Stretched along the axes by positive factors."""
        return Solid(self.vertices * np.array([x, y, z]), self.faces)

    def turned(self, axis: str, degrees: float) -> Solid:
        """Rotated about the axis "x", "y" or "z" through the origin, counter-clockwise seen from its tip."""
        angle, k = np.radians(degrees), "xyz".index(axis)
        i, j = (k + 1) % 3, (k + 2) % 3
        matrix = np.eye(3)
        matrix[i, i] = matrix[j, j] = np.cos(angle)
        matrix[j, i], matrix[i, j] = np.sin(angle), -np.sin(angle)
        return Solid(self.vertices @ matrix.T, self.faces)

    def mirrored(self) -> Solid:
        """The image on the other side, x -> -x."""
        return Solid(self.vertices * np.array([-1.0, 1.0, 1.0]), self.faces[:, ::-1])

    def flat(self) -> Solid:
        """The same surface with facets: no vertex is shared."""
        return Solid(self.vertices[self.faces].reshape(-1, 3), np.arange(self.faces.size).reshape(-1, 3))

    def corners(self) -> Array:
        """Corners of the triangles, (F, 3, 3)."""
        return self.vertices[self.faces]

    def area(self) -> float:
        """Surface, in square units."""
        a, b, c = np.moveaxis(self.corners(), 1, 0)
        return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)

    def normals(self) -> Array:
        """Unit normals of the vertices, (V, 3): means over their triangles, weighted by area."""
        a, b, c = np.moveaxis(self.corners(), 1, 0)
        cross = np.cross(b - a, c - a)
        sums = np.stack(
            [np.bincount(self.faces.reshape(-1), np.repeat(cross[:, k], 3), len(self.vertices)) for k in range(3)], 1
        )
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.where(length > 1e-12, sums / np.maximum(length, 1e-12), np.array([0.0, 1.0, 0.0]))


def joined(solids: Sequence[Solid]) -> Solid:
    """Several solids as one."""
    starts = np.cumsum([0, *(len(s.vertices) for s in solids)])
    faces = [s.faces + start for s, start in zip(solids, starts, strict=False)]
    return Solid(np.concatenate([s.vertices for s in solids]), np.concatenate(faces))


def _grid(rings: Array) -> Solid:
    """The surface through rings (R, S, 3) of as many points each; rings that run upwards turn from z to x."""
    count, sides = rings.shape[:2]
    i, j = np.meshgrid(np.arange(count - 1), np.arange(sides), indexing="ij")
    a, b = i * sides + j, i * sides + (j + 1) % sides
    faces = np.concatenate([np.stack([a, b, b + sides], -1), np.stack([a, b + sides, a + sides], -1)]).reshape(-1, 3)
    return Solid(rings.reshape(-1, 3), faces)


def _circle(sides: int, phase: float = 0.0) -> Array:
    angles = 2 * np.pi * (np.arange(sides) + phase) / sides
    return np.stack([np.sin(angles), np.cos(angles)], 1)


def lathe(profile: ArrayLike, sides: int = 18, *, phase: float = 0.0) -> Solid:
    """The body that a profile [(radius, height), ...], bottom to top, sweeps about the y axis; edges stay sharp.

    End it with radius 0 at both ends for a closed body.
    """
    points = np.asarray(profile, float)
    steps = np.diff(points, axis=0)
    angles = np.degrees(np.arctan2(steps[:, 1], steps[:, 0]))
    turns = np.abs((np.diff(angles) + 180) % 360 - 180)
    cuts = [0, *(np.flatnonzero(turns > CREASE_DEG) + 1), len(points) - 1]
    circle = _circle(sides, phase)
    runs = []
    for first, last in pairwise(cuts):
        radius, height = points[first : last + 1].T
        x, z = radius[:, None] * circle[:, 0], radius[:, None] * circle[:, 1]
        runs.append(_grid(np.stack([x, np.broadcast_to(height[:, None], x.shape), z], -1)))
    return joined(runs)


def cylinder(radius: float, height: float, top: float | None = None, sides: int = 20) -> Solid:
    """A cylinder that stands on y = 0; with ``top``, another radius up there (0: a cone)."""
    return lathe([(0, 0), (radius, 0), (radius if top is None else top, height), (0, height)], sides)


def pyramid(side: float, height: float) -> Solid:
    """Square pyramid that stands on y = 0."""
    return lathe([(0, 0), (side / np.sqrt(2), 0), (0, height)], 4, phase=0.5).flat()


def ellipsoid(x: float, y: float | None = None, z: float | None = None, detail: int = 12) -> Solid:
    """An ellipsoid about the origin with these half axes; one number: a sphere."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, detail)
    ball = lathe(np.stack([np.cos(angle), np.sin(angle)], 1), 2 * detail - 6)
    return ball.scaled(x, x if y is None else y, x if z is None else z)


def box(x: float, y: float, z: float, taper: float = 1.0, taper_z: float | None = None) -> Solid:
    """A box that stands on y = 0, centred in x and z; its top is ``taper`` (and ``taper_z``) times as wide."""
    tz = taper if taper_z is None else taper_z
    corners = np.array([(sx, sy, sz) for sy in (0, 1) for sx, sz in ((-1, -1), (1, -1), (1, 1), (-1, 1))], float)
    corners[:, 0] *= np.where(corners[:, 1] > 0, taper, 1.0) * x / 2
    corners[:, 2] *= np.where(corners[:, 1] > 0, tz, 1.0) * z / 2
    corners[:, 1] *= y
    quads = [(0, 1, 2, 3), (7, 6, 5, 4), (0, 4, 5, 1), (1, 5, 6, 2), (2, 6, 7, 3), (3, 7, 4, 0)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    return Solid(corners, faces).flat()


def torus(radius: float, thickness: float, sides: int = 20) -> Solid:
    """A ring in the xz plane about the origin; ``thickness`` is the radius of its tube."""
    circle = _circle(10)
    around = np.concatenate([_circle(sides), _circle(1)])
    reach = radius + thickness * circle[:, 1]
    x, z = around[:, :1] * reach, around[:, 1:] * reach
    y = np.broadcast_to(thickness * circle[:, 0], x.shape)
    solid = _grid(np.stack([x, y, z], -1))
    return solid if _volume(solid) > 0 else Solid(solid.vertices, solid.faces[:, ::-1])


def tube(points: ArrayLike, radii: ArrayLike, sides: int = 10, flatten: float = 1.0) -> Solid:
    """A round-ended tube along points (N, 3) with a radius at each; a curve through them smooths the way.

    ``flatten`` below 1 makes its section an ellipse that is narrower across the first direction of its frame.
    """
    knots = np.asarray(points, float)
    radius = np.broadcast_to(np.asarray(radii, float), (len(knots),))
    path, radius = _curved(knots, radius) if len(knots) > 2 else (knots, radius)
    steps = np.gradient(path, axis=0)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    # Half spheres at both ends: rings that close towards the pole.
    polar = np.array([0.0, 0.5, 0.85])
    back, front = np.sqrt(1 - polar[::-1] ** 2), np.sqrt(1 - polar**2)
    path = np.concatenate(
        [
            path[:1] - steps[:1] * radius[0],
            path[0] - steps[0] * radius[0] * polar[::-1, None],
            path[1:-1],
            path[-1] + steps[-1] * radius[-1] * polar[:, None],
            path[-1:] + steps[-1:] * radius[-1],
        ]
    )
    steps = np.concatenate([np.repeat(steps[:1], 4, 0), steps[1:-1], np.repeat(steps[-1:], 4, 0)])
    radius = np.concatenate([[0], radius[0] * back, radius[1:-1], radius[-1] * front, [0]])
    u = _carried(steps)
    v = np.cross(steps, u)
    circle = _circle(sides)
    rings = path[:, None] + radius[:, None, None] * (
        flatten * circle[None, :, 1:] * u[:, None] + circle[None, :, :1] * v[:, None]
    )
    return _grid(rings)


def _curved(knots: Array, radius: Array, per: int = 4) -> tuple[Array, Array]:
    """Catmull-Rom curve through knots, ``per`` points a piece; radii follow in straight lines."""
    ends = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, per, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    where = np.linspace(0, len(knots) - 1, per * (len(knots) - 1) + 1)
    return np.concatenate([*pieces, knots[-1:]]), np.interp(where, np.arange(len(knots)), radius)


def _carried(steps: Array) -> Array:
    """A unit normal for every direction, carried along so that the tube does not twist."""
    start = np.eye(3)[int(np.argmin(np.abs(steps[0])))]
    normals = []
    for step in steps:
        start = start - step * (start @ step)
        start = start / np.linalg.norm(start)
        normals.append(start)
    return np.array(normals)


def prism(outline: ArrayLike, depth: float) -> Solid:
    """An outline (N, 2) in the xy plane, counter-clockwise and star-shaped about its mean, thick along z."""
    points = np.asarray(outline, float)
    count = len(points)
    layers = [np.column_stack([points, np.full(count, side * depth / 2)]) for side in (-1, 1)]
    centres = np.array([[*points.mean(0), -depth / 2], [*points.mean(0), depth / 2]])
    i = np.arange(count)
    j = (i + 1) % count
    back, front = np.full(count, 2 * count), np.full(count, 2 * count + 1)
    faces = np.concatenate(
        [
            np.stack([front, i + count, j + count], 1),
            np.stack([back, j, i], 1),
            np.stack([i, j, j + count], 1),
            np.stack([i, j + count, i + count], 1),
        ]
    )
    return Solid(np.concatenate([*layers, centres]), faces).flat()


def round_cone(a: ArrayLike, b: ArrayLike, ra: float, rb: float) -> Field:
    """About the distance to a capsule from ``a`` to ``b`` whose radius goes from ``ra`` to ``rb``."""
    start, along = np.asarray(a, float), np.asarray(b, float) - np.asarray(a, float)

    def distance(points: Array) -> Array:
        t = np.clip((points - start) @ along / (along @ along), 0, 1)
        return np.linalg.norm(points - start - t[..., None] * along, axis=-1) - (ra + (rb - ra) * t)

    return distance


def ball(centre: ArrayLike, half_axes: ArrayLike) -> Field:
    """About the distance to an ellipsoid."""
    middle, axes = np.asarray(centre, float), np.broadcast_to(np.asarray(half_axes, float), (3,))
    return lambda points: (np.linalg.norm((points - middle) / axes, axis=-1) - 1) * axes.min()


def blob(fields: Sequence[Field], holes: Sequence[Field], bounds: ArrayLike, step: float, melt: float) -> Solid:
    """The smooth union of ``fields`` less ``holes``, as triangles of about ``step``.

    ``bounds`` is ((x, y, z), (x, y, z)) around it; ``melt`` is how far joints are rounded.
    """
    from skimage.measure import marching_cubes

    low, high = np.asarray(bounds, float)
    axes = [np.arange(a, b + step, step) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    value = fields[0](points)
    for field in fields[1:]:
        other = field(points)
        blend = np.clip(0.5 + 0.5 * (other - value) / melt, 0, 1)
        value = other * (1 - blend) + value * blend - melt * blend * (1 - blend)
    for hole in holes:
        value = np.maximum(value, -hole(points))
    vertices, faces, _, _ = marching_cubes(value, 0.0, spacing=(step,) * 3)  # type: ignore[no-untyped-call]
    solid = Solid(vertices.astype(float) + low, faces.astype(np.int64))
    return solid if _volume(solid) > 0 else Solid(solid.vertices, solid.faces[:, ::-1])


def _volume(solid: Solid) -> float:
    a, b, c = np.moveaxis(solid.corners(), 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)
