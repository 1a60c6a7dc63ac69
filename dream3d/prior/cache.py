"""Where dream3d keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """``DREAM3D_CACHE`` if it is set, else the user's cache folder of this platform. Nothing is created."""
    chosen = os.environ.get("DREAM3D_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("dream3d"))
