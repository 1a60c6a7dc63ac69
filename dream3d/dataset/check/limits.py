"""What an asset may ask of this machine: files are judged by their headers before anything is loaded."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote

from dream3d.dataset.decoding import FORMATS, opened
from dream3d.errors import DatasetError

MAX_MEMBERS = 4096
"""Files beside one model in an archive."""


@dataclass(frozen=True)
class Limits:
    """Bounds on one asset; what goes beyond them is skipped."""

    max_file_bytes: int = 512 * 2**20
    """Of a model file, and of a material file."""
    max_triangles: int = 2_000_000
    max_archive_bytes: int = 512 * 2**20
    """Of one model's files, unpacked."""
    max_ratio: int = 200
    """Unpacked bytes for one packed byte; text of numbers stays below 20."""
    max_texture_pixels: int = 64 * 2**20
    """Of one texture (8192 x 8192)."""


LIMITS = Limits()


def check_size(path: Path, limits: Limits) -> int:
    """Bytes of a file; :class:`DatasetError` if it is missing, empty or too large."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DatasetError(f"the file {path.name[:90]!r} is missing") from error
    if not path.is_file():
        raise DatasetError(f"{path.name[:90]!r} is not a file")
    if size == 0:
        raise DatasetError(f"the file {path.name[:90]!r} is empty")
    if size > limits.max_file_bytes:
        raise DatasetError(f"the file has {size} bytes, more than {limits.max_file_bytes}")
    return size


def check_triangles(count: int, limits: Limits) -> None:
    """:class:`DatasetError` for more triangles than the limit, or for none."""
    if count > limits.max_triangles:
        raise DatasetError(f"it has {count} triangles, more than {limits.max_triangles}")
    if count < 1:
        raise DatasetError("it has no surface: not one triangle")


def is_inside(name: str) -> bool:
    """Whether a relative path, with either slash, stays in its folder: not absolute, no "..", no scheme or drive."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return bool(parts) and parts[0][0] != "/" and ".." not in parts and ":" not in name and "\0" not in name


def beside(model: Path, reference: str, what: str, limits: Limits) -> Path:
    """The file that a model refers to; :class:`DatasetError` if it lies outside the model's folder or is not there."""
    if not is_inside(reference):
        raise DatasetError(f"its {what} {reference[:90]!r} lies outside its folder")
    file = model.parent / reference.replace("\\", "/")
    if not file.is_file():
        raise DatasetError(f"its {what} {reference[:90]!r} is missing")
    if not file.resolve().is_relative_to(model.parent.resolve()):
        raise DatasetError(f"its {what} {reference[:90]!r} is a link out of its folder")
    check_size(file, limits)
    return file


TEXTURES = (*FORMATS, "TGA", "TIFF")


def check_texture(content: Path | IO[bytes], what: str, limits: Limits) -> None:
    """:class:`DatasetError` for an image that is damaged or has too many pixels; only its header is read."""
    try:
        with opened(content, limits.max_texture_pixels, TEXTURES):
            pass
    except DatasetError as error:
        raise DatasetError(f"its texture {what[:90]!r}: {error}") from error


def archive_size(members: Iterable[zipfile.ZipInfo], limits: Limits) -> None:
    """:class:`DatasetError` if members of a zip would unpack to more than the limits; zipfile never gives more."""
    some = list(members)
    unpacked = sum(info.file_size for info in some)
    packed = sum(info.compress_size for info in some)
    if len(some) > MAX_MEMBERS or unpacked > limits.max_archive_bytes:
        raise DatasetError(f"its {len(some)} files unpack to {unpacked} bytes, more than {limits.max_archive_bytes}")
    if unpacked > limits.max_ratio * max(packed, 1) + 2**20:
        raise DatasetError(f"it is a zip bomb: {packed} bytes unpack to {unpacked}")


def local_uri(uri: str) -> str:
    """The relative path in a glTF uri, which may be percent-encoded."""
    return unquote(re.sub(r"^\./", "", uri))
