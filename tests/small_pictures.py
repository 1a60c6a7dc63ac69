"""The end of a run with small pictures: tests of how it is stopped and resumed do not depend on their size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from dream3d import finish
from dream3d.mesh.shading import write_turntable


@contextmanager
def small_pictures(silhouette_size: int = 32) -> Iterator[None]:
    """While this is open, silhouettes, preview and turntable take a tenth of their time.

    The mesh depends on the silhouettes: where it is compared with one of a usual run, give their usual size.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "SILHOUETTE_SIZE", silhouette_size)
        patch.setattr(finish, "PREVIEW_SIZE", 32)
        patch.setattr(finish, "write_turntable", partial(write_turntable, frames=4, size=32))
        yield
