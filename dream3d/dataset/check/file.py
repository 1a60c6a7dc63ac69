"""The one check of a model file, whatever its format."""

from __future__ import annotations

from pathlib import Path

from dream3d.dataset.check import gltf, obj, ply
from dream3d.dataset.check.limits import LIMITS, Limits, check_size
from dream3d.errors import DatasetError

CHECKS = {".glb": gltf.check, ".gltf": gltf.check, ".obj": obj.check, ".ply": ply.check}


def check_file(path: Path, limits: Limits = LIMITS) -> None:
    """Refuse a model file that is empty, cut off, too large, of an unknown format, or refers to files it may not.

    Raises :class:`DatasetError` with the reason. Reads headers and counts lines; memory stays bounded.
    """
    check = CHECKS.get(path.suffix.lower())
    if check is None:
        raise DatasetError(f"unknown format {path.suffix[:20]!r}; known are {', '.join(CHECKS)}")
    check_size(path, limits)
    try:
        check(path, limits)
    except OSError as error:
        raise DatasetError(f"the file cannot be read ({error.strerror})") from error
