"""What is remembered of files in the cache: size and sha256, in a small json beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from dream3d.errors import DownloadError
from dream3d.files import write_atomically

CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Record:
    """A file as it was when it was complete."""

    sha256: str
    bytes: int
    origin: str
    """Address it came from, or "placed by hand"."""
    kept: bool = True
    """False once the file was thrown away on purpose: its absence is then no damage."""


def record_path(file: Path) -> Path:
    """Where the record of a file lies."""
    return file.with_name(f"{file.name}.sha256.json")


def read_record(file: Path) -> Record | None:
    """The record of a file, None if there is none; :class:`DownloadError` if it cannot be read."""
    path = record_path(file)
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Record(str(data["sha256"]), int(data["bytes"]), str(data["origin"]), bool(data["kept"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DownloadError(
            f"{path} is damaged ({type(error).__name__}); delete it and run the command again"
        ) from error


def write_record(file: Path, record: Record) -> None:
    """Remember a file. The folder exists."""
    write_json(record_path(file), asdict(record))


def write_json(path: Path, content: dict[str, object]) -> None:
    """A json file that appears whole or not at all."""
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def hash_file(file: Path, progress: Callable[[int], None] = lambda done: None) -> str:
    """Sha256 of a file in hexadecimal; ``progress`` is told the bytes read so far. Raises OSError."""
    digest, done = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress(done)
    return digest.hexdigest()


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
