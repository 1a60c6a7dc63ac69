"""Where a batch's results lie: a folder of this machine, or one of an object store, which workers anywhere reach."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dream3d.errors import Dream3DError, UsageError
from dream3d.files import LEFTOVER, read_regular, write_atomically
from dream3d.run.folder import LOCK

PROTOCOLS = ("s3", "gs")
"""Object stores: a file appears there whole or not at all. Each is also the name of our extra for it."""


MAX_READ_BYTES = 2**28
"""Of a file that is read whole: a record or a table."""


class WorkingDirectory(Protocol):
    """A folder of this machine in which one job is done."""

    @property
    def folder(self) -> Path:
        """Laid out like the place itself."""
        ...

    def keep(self) -> None:
        """Put what is new where the results lie. Cheap if nothing is."""
        ...


class Place(Protocol):
    """Names are relative, with forward slashes. Plain data: it is sent to other processes and machines."""

    def __str__(self) -> str:
        """As the user gave it."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        ...

    def read(self, name: str) -> bytes:
        """A file; FileNotFoundError if there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """A file, whole or not at all."""
        ...

    def working_directory(self, mesh: str, run: str) -> contextlib.AbstractContextManager[WorkingDirectory]:
        """A folder to make ``mesh`` in, with what an earlier worker left of the folder ``run``.

        Left, it has been kept; an error of that is a Dream3DError.
        """
        ...


@dataclass(frozen=True)
class LocalPlace:
    """A folder of this machine, or one that it shares with others."""

    folder: Path

    def __str__(self) -> str:
        """The folder."""
        return str(self.folder)

    def has(self, name: str) -> bool:
        """See :class:`Place`."""
        return (self.folder / name).is_file()

    def read(self, name: str) -> bytes:
        """See :class:`Place`."""
        return read_regular(self.folder / name, MAX_READ_BYTES)

    def write(self, name: str, data: bytes) -> None:
        """See :class:`Place`."""
        write_atomically(self.folder / name, lambda path: path.write_bytes(data))

    @contextlib.contextmanager
    def working_directory(self, mesh: str, run: str) -> Iterator[WorkingDirectory]:
        """The folder itself."""
        yield self

    def keep(self) -> None:
        """Files are where they belong already."""


@dataclass(frozen=True)
class RemotePlace:
    """A folder of an object store, by its URL."""

    url: str

    def __str__(self) -> str:
        """The URL, which holds no secret."""
        return self.url

    def store(self) -> tuple[Any, str]:
        """The fsspec file system and the path in it. Credentials come from the environment, as the store's own do."""
        import fsspec

        # What is listed must be what is there now: other machines write too.
        found: tuple[Any, str] = fsspec.url_to_fs(self.url, use_listings_cache=False)
        return found

    def has(self, name: str) -> bool:
        """See :class:`Place`."""
        store, root = self.store()
        return bool(store.isfile(f"{root}/{name}"))

    def read(self, name: str) -> bytes:
        """See :class:`Place`."""
        store, root = self.store()
        return bytes(store.cat_file(f"{root}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        """See :class:`Place`."""
        store, root = self.store()
        store.pipe_file(f"{root}/{name}", data)

    @contextlib.contextmanager
    def working_directory(self, mesh: str, run: str) -> Iterator[WorkingDirectory]:
        """A temporary folder. It stays, and the error says where, if what is in it could not be kept."""
        folder = Path(tempfile.mkdtemp(prefix="dream3d-"))
        work = RemoteWorkingDirectory(self, folder, mesh, run)
        try:
            work.fetch()
            try:
                yield work
            finally:
                work.keep()
        except Exception as error:
            if work.is_kept:
                raise
            raise Dream3DError(f"{self} does not take what was made ({brief(error)}); it is in {folder}") from error
        finally:
            if work.is_kept:
                shutil.rmtree(folder, ignore_errors=True)


@dataclass
class RemoteWorkingDirectory:
    """A temporary folder whose files are copied to a store."""

    place: RemotePlace
    folder: Path
    mesh: str
    run: str
    is_kept: bool = True
    """Whether the store has all that is here."""
    _sent: dict[str, tuple[int, int]] = field(default_factory=dict)

    def fetch(self) -> None:
        """What the store has of the run, unless it never began."""
        store, root = self.place.store()
        if not store.isfile(f"{root}/{self.run}/run.json"):
            return
        for path in store.find(f"{root}/{self.run}"):
            name = path.removeprefix(root).lstrip("/")
            target = self.folder / name
            if name.startswith(f"{self.run}/") and ".." not in Path(name).parts:
                target.parent.mkdir(parents=True, exist_ok=True)
                store.get_file(path, str(target))
                self._sent[name] = _state(target)

    def keep(self) -> None:
        """See :class:`WorkingDirectory`. ``run.json``, which says whether the mesh counts, comes last."""
        store, root = self.place.store()
        here = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if _counts(path)}
        last = f"{self.run}/run.json"
        self.is_kept = False
        for name in sorted(here, key=lambda name: (name == last, name == self.mesh, name)):
            state = _state(here[name])
            if self._sent.get(name) != state:
                store.put_file(str(here[name]), f"{root}/{name}")
                self._sent[name] = state
        for name in self._sent.keys() - here.keys():  # old checkpoints
            store.rm_file(f"{root}/{name}")
            del self._sent[name]
        self.is_kept = True


def parse_place(text: str) -> LocalPlace | RemotePlace:
    """A folder's path, or a URL such as ``s3://bucket/folder``. UsageError if it is neither."""
    if "://" not in text and "::" not in text:
        return LocalPlace(Path(text).absolute())
    found = re.fullmatch(r"([a-z0-9]+)://([^\s?#]+?)/*", text)
    if found is None or found[1] not in PROTOCOLS or ".." in found[2].split("/"):
        known = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise UsageError(f"{_without_secret(text)!r} is not a folder; give a path, or one that begins with {known}")
    if "@" in found[2]:
        raise UsageError(f"{_without_secret(text)!r}: no keys in addresses; put them where the store's own tools look")
    place = RemotePlace(f"{found[1]}://{found[2]}")
    try:
        place.store()
    except ImportError as error:
        raise UsageError(f"{found[1]}:// needs more; install it with: pip install 'dream3d[{found[1]}]'") from error
    return place


def _without_secret(text: str) -> str:
    return re.sub(r"//[^/@]*@", "//...@", text)[:80]


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _counts(path: Path) -> bool:
    return path.is_file() and path.name != LOCK and LEFTOVER.fullmatch(path.name) is None


def brief(error: Exception) -> str:
    """A store's error in a line: every store has a hierarchy of its own."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
