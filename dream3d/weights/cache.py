"""Where dream3d keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from dream3d.errors import UsageError


def cache_root() -> Path:
    """``DREAM3D_CACHE`` if it is set, else the user's cache folder of this platform. Nothing is created.

    Raises UsageError for a user without a home folder (a container, a service): a folder called ``~`` is nobody's wish.
    """
    chosen = os.environ.get("DREAM3D_CACHE")
    try:
        root = os.path.expanduser(chosen or platformdirs.user_cache_dir("dream3d"))
    except RuntimeError:
        root = "~"
    if root.startswith("~"):
        raise UsageError("this user has no home folder for weights; set DREAM3D_CACHE to a folder")
    return Path(root)
