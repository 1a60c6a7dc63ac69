"""What is remembered of files and folders in the cache: sizes and sha256, in a small json beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from dream3d.errors import DownloadError
from dream3d.files import hash_file, parse_json, read_regular, write_json
from dream3d.weights.table import check_relative

CHUNK_BYTES = 2**20
MAX_RECORD_BYTES = 2**20
MAX_TEXT = 2000
"""Characters of a text in a record: an address, mostly."""
_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True)
class Record:
    """A file as it was when it was complete."""

    sha256: str
    bytes: int
    origin: str
    """Address it came from, or "placed by hand"."""
    kept: bool = True
    """False once the file was thrown away on purpose: its absence is then no damage."""


@dataclass(frozen=True)
class FolderRecord:
    """A converted folder as it was when it was complete."""

    origin: str
    """Title of the source that it was converted from."""
    dtype: str
    files: dict[str, Record]
    """By path in the folder, with forward slashes."""


def record_path(file: Path) -> Path:
    """Where the record of a file lies."""
    return file.with_name(f"{file.name}.sha256.json")


def read_record(file: Path) -> Record | None:
    """The record of a file, None if there is none; :class:`DownloadError` if it cannot be read."""
    return _read(record_path(file), _parse)


def write_record(file: Path, record: Record) -> None:
    """Remember a file. The folder exists."""
    write_json(record_path(file), asdict(record))


def fault_of(file: Path, record: Record) -> str | None:
    """What differs between a file and its record, or None. Reads the whole file unless its size is wrong already."""
    if not file.is_file():
        return "missing (removed or renamed)"
    size = file.stat().st_size
    if size != record.bytes:
        return f"damaged: {size} bytes, should be {record.bytes}"
    digest = hash_file(file)
    if digest != record.sha256:
        return f"damaged: sha256 {digest[:12]}..., should be {record.sha256[:12]}..."
    return None


def read_folder_record(folder: Path) -> FolderRecord | None:
    """The record of a converted folder, None if there is none; :class:`DownloadError` if it cannot be read."""
    return _read(_folder_record(folder), _parse_folder)


def write_folder_record(folder: Path, origin: str, dtype: str) -> None:
    """Hash every file of a converted folder and remember them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {
        path.relative_to(folder).as_posix(): Record(hash_file(path), path.stat().st_size, "converted") for path in paths
    }
    write_json(_folder_record(folder), asdict(FolderRecord(origin, dtype, files)))


def _folder_record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.files.json")  # beside it, since the folder itself is the loader's


def _read(path: Path, parse: Callable[[Any], _Parsed]) -> _Parsed | None:
    # os.path and not Path: a cache that may not be looked into has no records.
    if not os.path.isfile(path):
        return None
    try:
        return parse(parse_json(read_regular(path, MAX_RECORD_BYTES)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise DownloadError(f"{path} is damaged ({kind}); delete it and run the command again") from error


def checked_text(value: object) -> str:
    """A short printable text; ValueError for anything else, such as what a terminal would obey."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_TEXT:
        raise ValueError("not a plain text")
    return value


def checked_size(value: object) -> int:
    """A number of bytes; ValueError for anything else."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("not a number of bytes")
    return value


def _parse(data: Any) -> Record:
    digest = data["sha256"]
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError("not a sha256")
    return Record(digest, checked_size(data["bytes"]), checked_text(data["origin"]), bool(data.get("kept", True)))


def _parse_folder(data: Any) -> FolderRecord:
    files = {name: _parse(one) for name, one in data["files"].items()}
    for name in files:
        check_relative(name)
    return FolderRecord(checked_text(data["origin"]), checked_text(data["dtype"]), files)
