"""One large file over HTTP: resumed where it broke off, checked, and visible only when complete."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from dream3d.errors import DownloadError
from dream3d.files import flush_to_disk
from dream3d.locks import held
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
class RetryPolicy:
    """How long a download keeps trying."""

    attempts: int = 5
    """Attempts in a row, per address, without having come further."""
    first_attempts: int = 3
    """The same for an address that was never reached: without a network nobody wants to wait long."""
    first_wait: float = 1.0
    """Seconds before the second attempt; doubled before each later one."""
    timeout: float = 10.0
    """Seconds of silence after which a connection counts as dropped; three times that for one that is too slow."""
    worth_bytes: int = 2**20
    """An attempt that gained this many bytes has come further."""


@dataclass(frozen=True)
class DownloadSpec:
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
    at_least: int = 1
    """Fewer bytes than this are something else, such as the login page of a network."""


class UnreachableError(DownloadError):
    """No address gave the file; the message names each with its reason."""


def download_file(
    spec: DownloadSpec,
    destination: Path,
    progress: FileProgress = lambda done, total: None,
    notify: Notify = lambda line: None,
    retries: RetryPolicy | None = None,
) -> Record:
    """Fetch a file to ``destination``, write its record beside it, and return that.

    An earlier file of this name is replaced, and only once the new one is complete. What broke off
    stays as ``<name>.part`` for the next call. Raises :class:`DownloadError`.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(destination, notify):
            part = Partial(destination)
            url = _fetch(spec, part, progress, notify, retries or RetryPolicy())
            return _finish(part, destination, url)
    except OSError as error:
        raise DownloadError(_disk_trouble(destination, error)) from error


def exclusive(target: Path, notify: Notify) -> AbstractContextManager[None]:
    """Holds the lock of a file or folder; another process that wants it waits, and is told so once."""
    busy = f"another process is at work on {target.name}; waiting for it (Ctrl-C to give up)"
    return held(target.with_name(f".{target.name}.lock"), busy, notify)


def _fetch(spec: DownloadSpec, part: Partial, progress: FileProgress, notify: Notify, retries: RetryPolicy) -> str:
    """Fill ``part`` from the first address that serves; returns that address."""
    reasons: list[str] = []
    for url in spec.urls:
        if reasons:
            notify(f"{reasons[-1]}; trying {url}")
        try:
            _keep_trying(url, spec, part, progress, notify, retries)
            _check(spec, part, url)
            return url
        except Refused as error:
            reasons.append(str(error))
    raise UnreachableError("; ".join(reasons))


def _keep_trying(
    url: str, spec: DownloadSpec, part: Partial, progress: FileProgress, notify: Notify, retries: RetryPolicy
) -> None:
    """Attempts at one address until the part is complete; :class:`Refused` when there is no use in more."""
    failures, best, reached = 0, part.resumable_bytes, False
    while True:
        try:
            _attempt(url, spec, part, progress, retries.timeout)
            return
        except Dropped as error:
            reached = reached or not isinstance(error, NoConnection)
            # A server that ignores Range and always breaks off starts again and again: that is no progress.
            if part.offset >= best + retries.worth_bytes:
                failures, best = 0, part.offset
            failures += 1
            if failures >= (retries.attempts if reached else retries.first_attempts):
                kept = part.resumable_bytes
                cause = str(error).removeprefix(f"{url}: ")
                advice = f"; {kept} bytes are kept, run the command again to go on" if kept else ""
                raise Refused(f"{url}: gave up after {failures} attempts ({cause}){advice}") from error
            wait = retries.first_wait * 2 ** (failures - 1)
            notify(f"{error}; trying again in {wait:g} s")
            time.sleep(wait)


def _attempt(url: str, spec: DownloadSpec, part: Partial, progress: FileProgress, timeout: float) -> None:
    """One request and as much of its body as comes."""
    part.load()
    if part.complete:
        return
    with opened(url, part.offset, part.validator, timeout, spec.limit) as reply:
        # Before anything is thrown away: another address may still serve the version that the part belongs to.
        _check_offer(url, spec, reply, part)
        if reply.start == 0:
            part.restart(reply.validator, reply.total)
        elif reply.start != part.offset or not part.matches(reply.validator, reply.total):
            part.discard()
            raise Dropped(f"{url}: the file changed on the server")
        limit = spec.limit if reply.total is None else reply.total
        if not part.receive(reply.chunks, limit, lambda done: progress(done, reply.total)):
            part.discard()
            raise Refused(f"{url}: sends more than {limit} bytes")
    if reply.total is not None and part.offset < reply.total:
        raise Dropped(f"{url}: the connection ended at {part.offset} of {reply.total} bytes")


def _check_offer(url: str, spec: DownloadSpec, reply: Reply, part: Partial) -> None:
    """Refuse before the body is read what can be known to be wrong."""
    if reply.total is None:
        needed = spec.size or 0
    else:
        if spec.size is not None and reply.total != spec.size:
            raise Refused(f"{url}: offers {reply.total} bytes, should be {spec.size}")
        if reply.total < spec.at_least:
            raise Refused(f"{url}: offers {reply.total} bytes, at least {spec.at_least} are expected")
        if reply.total > spec.limit:
            raise Refused(f"{url}: offers {reply.total} bytes, at most {spec.limit} are expected")
        needed = reply.total
    check_space(part.path.parent, needed - part.offset)


def check_space(folder: Path, needed: int) -> None:
    """Raise :class:`DownloadError` unless ``needed`` bytes (and a little more) are free where ``folder`` lies."""
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise DownloadError(
            f"{folder}: {(needed + SPARE_BYTES) / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; "
            "make room, or name another folder with DREAM3D_CACHE"
        )


def _check(spec: DownloadSpec, part: Partial, url: str) -> None:
    """The complete part against what is known; a wrong one is removed, since no more bytes can mend it."""
    size, least = part.offset, spec.at_least
    if size < least or spec.size not in (None, size):
        part.discard()
        should = f"at least {least}" if spec.size is None else spec.size
        raise Refused(f"{url}: sent {size} bytes, should be {should}; the file was removed")
    if spec.sha256 is not None and part.sha256 != spec.sha256:
        digest = part.sha256
        part.discard()
        raise Refused(f"{url}: sha256 is {digest}, should be {spec.sha256}{spec.hash_origin}; the file was removed")


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
        return f"{destination.parent}: the disk is full; make room and run the command again, it resumes from there"
    return f"{destination}: cannot be written ({error.strerror or error}); name another folder with DREAM3D_CACHE"
