"""Where each face of a surface lies in its texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dream3d.mesh.surface import Faces


@dataclass(frozen=True)
class Layout:
    """A surface cut open along seams and laid flat. Vertices on a seam are there once for each side of it."""

    source: NDArray[np.int64]
    """(W,) the vertex of the surface that each of the layout's is."""
    faces: Faces
    """(F, 3) vertices of the layout, for each face of the surface in the same order."""
    uv: NDArray[np.float32]
    """(W, 2) place of each vertex in the image: (0, 0) is its upper left corner, (1, 1) the lower right one."""

    def fits(self, faces: Faces) -> bool:
        """Whether this is a layout of the surface with ``faces`` (F, 3), whole and inside the image."""
        return (
            self.faces.shape == faces.shape
            and np.array_equal(self.source[self.faces], faces)
            and bool(np.isfinite(self.uv).all() and (self.uv >= 0).all() and (self.uv <= 1).all())
        )
