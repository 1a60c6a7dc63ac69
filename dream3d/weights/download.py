"""One large file over HTTP: resumed where it broke off, checked, and visible only when complete."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dream3d.errors import DownloadError
from dream3d.files import flush_to_disk
from dream3d.weights.partial import Partial
from dream3d.weights.records import Record, write_record
from dream3d.weights.transport import Dropped, NoConnection, Refused, Reply, opened

SPARE_BYTES = 64 * 2**20
"""Left free on the disk: a full disk harms more than a download."""

FileProgress = Callable[[int, int | None], None]
"""Told the bytes that are here and the whole size, None while unknown."""
Notify = Callable[[str], None]
"""Told, in one line, what happens besides: a retry, another mirror, a wait."""


@dataclass(frozen=True)
class Patience:
    """How long a download keeps trying."""

    attempts: int = 5
    """Attempts in a row, per address, without having come further."""
    first_attempts: int = 3
    """The same for an address that was never reached: without a network nobody wants to wait long."""
    first_wait: float = 1.0
    """Seconds before the second attempt; doubled before each later one."""
    timeout: float = 30.0
    """Seconds of silence after which a connection counts as dropped."""
    worth_bytes: int = 2**20
    """An attempt that gained this many bytes has come further."""


@dataclass(frozen=True)
class Wanted:
    """What to download and what it must be."""

    urls: tuple[str, ...]
    """Addresses of the same bytes, tried in turn."""
    limit: int
    """Most bytes that are accepted."""
    size: int | None = None
    """Exact size in bytes where known."""
    sha256: str | None = None
    """Hash where known."""
    hash_origin: str = ""
    """Said after a wrong hash: where the right one is from, when that is not the table."""
    at_least: int = 0
    """Fewer bytes than this are something else, such as the login page of a network."""


class UnreachableError(DownloadError):
    """No address gave the file; the message names each with its reason."""


def download_file(
    wanted: Wanted,
    destination: Path,
    progress: FileProgress = lambda done, total: None,
    notify: Notify = lambda line: None,
    patience: Patience | None = None,
) -> Record:
    """Fetch a file to ``destination``, write its record beside it, and return that.

    An earlier file of this name is replaced, and only once the new one is complete. What broke off
    stays as ``<name>.part`` for the next call. Raises :class:`DownloadError`.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with only_one(destination, notify):
            part = Partial(destination)
            url = _fetch(wanted, part, progress, notify, patience or Patience())
            return _finish(part, destination, url)
    except OSError as error:
        raise DownloadError(_disk_trouble(destination, error)) from error


@contextmanager
def only_one(target: Path, notify: Notify) -> Iterator[None]:
    """Holds the lock of a file or folder; another process that wants it waits, and is told so once."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notify(f"another process is at work on {target.name}; waiting for it (Ctrl-C to give up)")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(wanted: Wanted, part: Partial, progress: FileProgress, notify: Notify, patience: Patience) -> str:
    """Fill ``part`` from the first address that serves; returns that address."""
    reasons: list[str] = []
    for url in wanted.urls:
        if reasons:
            notify(f"{reasons[-1]}; trying {url}")
        try:
            _keep_trying(url, wanted, part, progress, notify, patience)
            _check(wanted, part, url)
            return url
        except Refused as error:
            reasons.append(str(error))
    raise UnreachableError("; ".join(reasons))


def _keep_trying(
    url: str, wanted: Wanted, part: Partial, progress: FileProgress, notify: Notify, patience: Patience
) -> None:
    """Attempts at one address until the part is complete; :class:`Refused` when there is no use in more."""
    failures, best, reached = 0, part.resumable_bytes, False
    while True:
        try:
            _attempt(url, wanted, part, progress, patience.timeout)
            return
        except Dropped as error:
            reached = reached or not isinstance(error, NoConnection)
            # A server that ignores Range and always breaks off starts again and again: that is no progress.
            if part.offset >= best + patience.worth_bytes:
                failures, best = 0, part.offset
            failures += 1
            if failures >= (patience.attempts if reached else patience.first_attempts):
                kept = part.resumable_bytes
                advice = f"; {kept} bytes are kept, run the command again to go on" if kept else ""
                raise Refused(f"{url}: gave up after {failures} attempts ({_cause(url, error)}){advice}") from error
            wait = patience.first_wait * 2 ** (failures - 1)
            notify(f"{error}; trying again in {wait:g} s")
            time.sleep(wait)


def _attempt(url: str, wanted: Wanted, part: Partial, progress: FileProgress, timeout: float) -> None:
    """One request and as much of its body as comes."""
    part.load()
    if part.complete:
        return
    with opened(url, part.offset, part.validator, timeout) as reply:
        # Before anything is thrown away: another address may still serve the version that the part belongs to.
        _check_offer(url, wanted, reply, part)
        if reply.start == 0:
            part.restart(reply.validator, reply.total)
        elif reply.start != part.offset or not part.matches(reply.validator, reply.total):
            part.discard()
            raise Dropped(f"{url}: the file changed on the server")
        limit = wanted.limit if reply.total is None else reply.total
        if not _receive(reply, part, limit, progress):
            part.discard()
            raise Refused(f"{url}: sends more than {limit} bytes")
    if reply.total is not None and part.offset < reply.total:
        raise Dropped(f"{url}: the connection ended at {part.offset} of {reply.total} bytes")


def _receive(reply: Reply, part: Partial, limit: int, progress: FileProgress) -> bool:
    """Append the body to the part; False as soon as there is more of it than there may be."""
    with part.appending():
        for chunk in reply.chunks:
            if part.offset + len(chunk) > limit:
                return False
            part.append(chunk)
            progress(part.offset, reply.total)
    return True


def _check_offer(url: str, wanted: Wanted, reply: Reply, part: Partial) -> None:
    """Refuse before the body is read what can be known to be wrong."""
    if reply.total is None:
        needed = wanted.size or 0
    else:
        if wanted.size is not None and reply.total != wanted.size:
            raise Refused(f"{url}: offers {reply.total} bytes, should be {wanted.size}")
        if reply.total < wanted.at_least:
            raise Refused(f"{url}: offers {reply.total} bytes, at least {wanted.at_least} are expected")
        if reply.total > wanted.limit:
            raise Refused(f"{url}: offers {reply.total} bytes, at most {wanted.limit} are expected")
        needed = reply.total
    check_space(part.path.parent, needed - part.offset)


def check_space(folder: Path, needed: int) -> None:
    """Raise :class:`DownloadError` unless ``needed`` bytes (and a little more) are free where ``folder`` lies."""
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise DownloadError(
            f"{folder}: {_gigabytes(needed + SPARE_BYTES)} are needed and {_gigabytes(free)} are free; "
            "make room, or name another folder with DREAM3D_CACHE"
        )


def _check(wanted: Wanted, part: Partial, url: str) -> None:
    """The complete part against what is known; a wrong one is removed, since no more bytes can mend it."""
    if wanted.size is not None and part.offset != wanted.size:
        size = part.offset
        part.discard()
        raise Refused(f"{url}: sent {size} bytes, should be {wanted.size}; the file was removed")
    if wanted.sha256 is not None and part.sha256 != wanted.sha256:
        digest = part.sha256
        part.discard()
        raise Refused(f"{url}: sha256 is {digest}, should be {wanted.sha256}{wanted.hash_origin}; the file was removed")


def _finish(part: Partial, destination: Path, url: str) -> Record:
    """Give the complete part its name; the record comes first, so that no file is ever unaccounted for."""
    record = Record(part.sha256, part.offset, url)
    flush_to_disk(part.path)
    write_record(destination, record)
    os.replace(part.path, destination)
    part.discard()
    return record


def _disk_trouble(destination: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{destination.parent}: the disk is full; make room and run the command again, it goes on from there"
    return f"{destination}: cannot be written ({error.strerror or error}); name another folder with DREAM3D_CACHE"


def _cause(url: str, error: Exception) -> str:
    return str(error).removeprefix(f"{url}: ")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
