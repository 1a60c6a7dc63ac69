"""Where downloaded and converted weights are kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """Folder of everything that can be fetched again: ``DREAM3D_CACHE``, or the user's cache folder of dream3d.

    The folder may not exist yet. Raises nothing.
    """
    chosen = os.environ.get("DREAM3D_CACHE", "")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("dream3d"))
