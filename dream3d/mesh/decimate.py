"""Fewer faces by collapsing edges in the order of their quadric error (Garland and Heckbert 1997)."""

from __future__ import annotations

from dataclasses import dataclass

import fast_simplification
import numpy as np
from numpy.typing import NDArray

from dream3d.mesh.surface import Faces, face_volumes, is_watertight, used_vertices

AGGRESSIVENESS = (7.0, 4.0, 2.0)
"""How fast the library's threshold grows, the default first; slower growth keeps the order better, and the surface."""
STEPS_BACK = (1.0, 1.5, 2.0, 3.0)
"""Factors on the number of faces that are tried until the surface stays closed."""
VOLUME_TOLERANCE = 0.1
"""Share of the volume that a decimation may add or take: more is a surface that has collapsed."""


@dataclass(frozen=True)
class Decimated:
    """A surface with fewer faces."""

    vertices: NDArray[np.float32]
    """(V, 3)."""
    faces: Faces
    """(F, 3)."""
    note: str | None = None
    """A sentence for the user if it has not the number of faces that was asked for."""


def decimate(vertices: NDArray[np.float32], faces: Faces, count: int) -> Decimated:
    """The surface with about ``count`` faces; as it is if it has no more, or if ``count`` is 0.

    A watertight surface stays watertight: where the collapses would open it, they are done in a stricter order, and
    then fewer of them. The same surface gives the same result.
    """
    if count == 0 or len(faces) <= count:
        return Decimated(vertices, faces)
    closed, volume = is_watertight(faces), face_volumes(vertices, faces).sum()
    for factor in STEPS_BACK:
        target = round(count * factor)
        if target >= len(faces):
            break
        for aggressiveness in AGGRESSIVENESS:
            fewer = _collapsed(vertices, faces, target, aggressiveness)
            change = abs(face_volumes(fewer.vertices, fewer.faces).sum() - volume)
            if change <= VOLUME_TOLERANCE * abs(volume) and (is_watertight(fewer.faces) or not closed):
                note = f"{len(fewer.faces)} faces instead of {count}, to keep the surface closed"
                return fewer if len(fewer.faces) <= 1.1 * count else Decimated(fewer.vertices, fewer.faces, note)
    return Decimated(vertices, faces, f"all {len(faces)} faces were kept, since fewer would open the surface")


def _collapsed(vertices: NDArray[np.float32], faces: Faces, target: int, aggressiveness: float) -> Decimated:
    points, triangles = fast_simplification.simplify(
        np.ascontiguousarray(vertices, np.float32),
        np.ascontiguousarray(faces, np.int32),
        target_count=target,
        agg=aggressiveness,
    )
    used, renumbered = used_vertices(np.asarray(triangles))
    return Decimated(np.asarray(points)[used].astype(np.float32), renumbered)
