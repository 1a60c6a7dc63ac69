"""A surface laid flat by xatlas, in a process of its own: on some surfaces it takes hours, and none may end a run."""

from __future__ import annotations

import io
import zipfile

import numpy as np
from numpy.typing import NDArray

from dream3d.mesh import lay_flat
from dream3d.mesh.boxmap import box_layout
from dream3d.mesh.layout import Layout
from dream3d.mesh.surface import Faces
from dream3d.processes import ProgramError, run_program

UNWRAP_SECONDS = 120.0
"""That xatlas gets. Twenty thousand faces take it about ten seconds."""


def unwrap(
    vertices: NDArray[np.float32], faces: Faces, size: int, seconds: float | None = None
) -> tuple[Layout, str | None]:
    """Lay a surface, vertices (V, 3) and faces (F, 3), out on a texture of ``size`` pixels a side.

    By xatlas if it is done after ``seconds``, by default :data:`UNWRAP_SECONDS`, else by
    :func:`dream3d.mesh.boxmap.box_layout`; then the second is a sentence for the user that says so. The same surface
    gives the same layout, as far as xatlas is in time.
    """
    given = io.BytesIO()
    np.savez(given, vertices=vertices, faces=faces, size=size)
    try:
        answer = run_program(lay_flat.__name__, given.getvalue(), UNWRAP_SECONDS if seconds is None else seconds)
        return _layout_of(answer, faces), None
    except (ProgramError, ValueError) as error:
        layout = box_layout(vertices, faces, size, lay_flat.PADDING)
        return layout, f"xatlas {error}; the texture is laid out by box projection, with more seams"


def _layout_of(answer: bytes, faces: Faces) -> Layout:
    """The layout in what the program wrote; ValueError if it is none of a surface with ``faces``."""
    try:
        parts = np.load(io.BytesIO(answer), allow_pickle=False)
        layout = Layout(
            parts["source"].astype(np.int64), parts["faces"].astype(np.int64), parts["uv"].astype(np.float32)
        )
    except (EOFError, OSError, LookupError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError("gave no layout") from error
    if not layout.fits(faces):
        raise ValueError("gave a layout of another surface")
    return layout
