"""Files that appear whole or not at all, and files that are read within bounds."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def read_regular(path: Path, limit: int) -> bytes:
    """All of a regular file of at most ``limit`` bytes.

    OSError for one that is larger, and for what is none: a pipe or a device would keep us waiting.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes")
    return content


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it there in one step.

    The temporary name keeps the file extension, since writers choose a format by it. On any failure the
    temporary file is removed and an existing ``path`` is left as it was.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        flush_to_disk(temporary)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 is for secrets; these are the user's files
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Text as UTF-8, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: object) -> None:
    """JSON with a line for each item, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


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
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}-", dir=path.parent))
    try:
        (staging / "new").mkdir()
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


LEFTOVER = re.compile(r"\.(.{1,40})-[a-z0-9_]{8}(\.[A-Za-z0-9]+)?")
"""Temporary names of :func:`write_atomically`, :func:`build_folder` and :func:`replace_folder`."""


def remove_leftovers(folder: Path, stem: str | None = None, folders: bool = False) -> None:
    """Remove temporary files that a killed :func:`write_atomically` left in a folder, where nobody else is writing.

    Only those of files called ``stem`` if it is given. With ``folders`` also those of the functions that build folders.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        found = LEFTOVER.fullmatch(path.name)
        if not found or stem not in (None, found[1]):
            continue
        if path.is_file():
            path.unlink(missing_ok=True)
        elif folders:
            shutil.rmtree(path, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file's bytes are on the disk: a power cut after a move must not leave a name without content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
