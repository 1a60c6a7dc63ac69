"""What tests of downloads ask for, and how they look at the outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

from dream3d.errors import DownloadError
from dream3d.weights.download import DownloadSpec, RetryPolicy, download_file

BODY = bytes(range(256)) * 1024  # 256 KiB
OTHER = BODY[::-1]
HASTY = RetryPolicy(first_wait=0.0, timeout=5.0)


def wanted(*urls: str, size: int | None = None, digest: str | None = None) -> DownloadSpec:
    return DownloadSpec(urls, limit=size or 2 * len(BODY), size=size, sha256=digest)


def names(folder: Path) -> set[str]:
    """What lies in a folder, lock files aside."""
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def refuse(target: Path, asked: DownloadSpec) -> str:
    with pytest.raises(DownloadError) as caught:
        download_file(asked, target, retries=HASTY)
    assert not target.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)
