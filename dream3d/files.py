"""Files that appear whole or not at all, and files of anybody, read within bounds."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

_tag: ContextVar[str] = ContextVar("tag", default="")


@contextmanager
def tagged(tag: str) -> Iterator[None]:
    """Temporary files made in this context bear ``tag``, 12 hexadecimal digits: :func:`remove_leftovers` knows them."""
    before = _tag.get()
    _tag.set(tag)
    try:
        yield
    finally:
        _tag.set(before)


def is_read_only(path: Path) -> bool:
    """Whether a file is there that nobody is meant to write, whoever could."""
    return os.path.isfile(path) and not path.stat().st_mode & 0o222


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it there in one step.

    The temporary name keeps the file extension, since writers choose a format by it. On any failure the
    temporary file is removed and an existing ``path`` is left as it was. PermissionError for one that is read-only.
    """
    if is_read_only(path):  # moving over it would not ask
        raise PermissionError(errno.EACCES, "the file is read-only", str(path))
    handle, name = tempfile.mkstemp(prefix=_prefix(path.stem), suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        flush_to_disk(temporary)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 is for secrets; these are the user's files
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def copy_file(source: Path, path: Path) -> None:
    """A copy of a file, whole or not at all."""
    write_atomically(path, lambda temporary: shutil.copyfile(source, temporary))


def write_text(path: Path, text: str) -> None:
    """Text as UTF-8, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: object, ascii_only: bool = False) -> None:
    """JSON with a line for each item, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=ascii_only, indent=1) + "\n")


def build_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Let ``fill`` fill a new folder beside ``path``, then move it there in one step.

    On any failure nothing is left behind. ``path`` must not exist or be an empty folder: OSError otherwise.
    """
    with _staging(path) as staging:
        fill(staging / "new")
        os.replace(staging / "new", path)


def replace_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Like :func:`build_folder`, in place of the folder that may be at ``path``.

    The old folder goes only when the new one is complete, and comes back if that cannot be moved in. A process that is
    killed between the two moves leaves both beside ``path``, for :func:`remove_leftovers`.
    """
    with _staging(path) as staging:
        new, old = staging / "new", staging / "old"
        fill(new)
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise


@contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` with a folder ``new`` in it, whose rights are those of the user's folders."""
    staging = Path(tempfile.mkdtemp(prefix=_prefix(path.name), dir=path.parent))
    try:
        (staging / "new").mkdir()
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


LEFTOVER = re.compile(r"\.(.{1,40})-dream3d([0-9a-f]{12})?-[a-z0-9_]{8}(\.[A-Za-z0-9]+)?")
"""Temporary names of all functions here that write: name, tag (:func:`tagged`), something random, file extension."""


def _prefix(name: str) -> str:
    return f".{name[:40]}-dream3d{_tag.get()}-"


def remove_leftovers(folder: Path, stem: str | None = None, folders: bool = False) -> None:
    """Remove temporary files that a killed :func:`write_atomically` left in a folder, where nobody else is writing.

    Only those with the tag of this context (:func:`tagged`), and only those of files called ``stem`` if it is given.
    With ``folders`` also those of the functions that build folders.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        found = LEFTOVER.fullmatch(path.name)
        if not found or (found[2] or "") != _tag.get() or stem not in (None, found[1]):
            continue
        if path.is_file():
            path.unlink(missing_ok=True)
        elif folders:
            shutil.rmtree(path, ignore_errors=True)


def open_regular(path: Path, limit: int) -> BinaryIO:
    """Open a regular file of at most ``limit`` bytes for reading; OSError for anything else, such as a pipe."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
        return file
    file.close()
    wrong = f"larger than {limit} bytes" if stat.S_ISREG(status.st_mode) else "not a regular file"
    raise OSError(errno.EINVAL, f"it is {wrong}", str(path))


def read_regular(path: Path, limit: int) -> bytes:
    """All of a regular file of at most ``limit`` bytes; OSError as for :func:`open_regular`."""
    with open_regular(path, limit) as file:
        return file.read(limit)


def parse_json(content: str | bytes, depth: int = 32) -> Any:
    """Plain data from JSON of anybody, nested at most ``depth`` levels deep.

    ValueError for anything else: numbers that are not finite, whole ones of more than 64 bits, text beyond Unicode.
    """
    try:
        data = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level = [data]
    for _ in range(depth):
        level = [part for item in level for part in _parts(item)]
        if not level:
            return data
    raise ValueError(f"it is nested more than {depth} levels deep")


def _parts(item: Any) -> list[Any]:
    """What is in a table or a list; ValueError for a value that is not plain."""
    if isinstance(item, dict):
        return [*item.keys(), *item.values()]
    if isinstance(item, str):
        item.encode()
    elif (isinstance(item, int) and abs(item) >= 2**64) or (isinstance(item, float) and not math.isfinite(item)):
        raise ValueError("a number in it is not finite, or has more than 64 bits")
    return item if isinstance(item, list) else []


def json_table(content: str | bytes, where: object, error: type[Exception], advice: str = "") -> dict[str, Any]:
    """The JSON object in what :func:`parse_json` takes; an ``error`` that names ``where`` for anything else."""
    try:
        data = parse_json(content)
    except ValueError as reason:
        raise error(f"{where} cannot be read, since it is not valid JSON ({reason}){advice}") from reason
    if not isinstance(data, dict):
        raise error(f"{where} cannot be read, since it holds a {type(data).__name__}, not a JSON object{advice}")
    return data


def hash_file(file: Path) -> str:
    """Sha256 of a file in hexadecimal. Raises OSError."""
    with file.open("rb") as stream:
        return hash_stream(stream)


def hash_stream(stream: BinaryIO, before: bytes = b"") -> str:
    """Sha256, in hexadecimal, of ``before`` and what is left of a stream."""
    digest = hashlib.sha256(before)
    while chunk := stream.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()


def flush_to_disk(path: Path) -> None:
    """Wait until a file's bytes are on the disk: a power cut after a move must not leave a name without content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
