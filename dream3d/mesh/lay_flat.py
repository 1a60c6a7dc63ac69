"""xatlas, as a program of its own: a surface in on standard input, its layout out on standard output, as npz."""

from __future__ import annotations

import contextlib
import io
import os
import sys

import numpy as np

PADDING = 4
"""Texels between two charts."""


def main() -> None:
    """Read ``vertices``, ``faces`` and ``size``; write ``source``, ``faces`` and ``uv`` of a layout, or end with 1."""
    import xatlas

    given = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    if hasattr(os, "sched_setaffinity"):  # the library starts a thread for each core; one gives one order of its sums
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    atlas = xatlas.Atlas()
    atlas.add_mesh(given["vertices"].astype(np.float32), given["faces"].astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding = int(given["size"]), PADDING
    atlas.generate(xatlas.ChartOptions(), packing)
    if atlas.atlas_count != 1:
        sys.exit(f"it made {atlas.atlas_count} images")
    source, faces, uv = atlas[0]
    answer = io.BytesIO()
    np.savez(answer, source=source, faces=faces, uv=uv)
    sys.stdout.buffer.write(answer.getvalue())


if __name__ == "__main__":
    main()
