"""The files that a prior is converted from: those that are here and sound, or downloads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dream3d.errors import DownloadError, OfflineError
from dream3d.files import hash_file
from dream3d.weights.download import DownloadSpec, Notify, RetryPolicy, UnreachableError, download_file
from dream3d.weights.records import Record, fault_of, read_record, record_path, write_record
from dream3d.weights.store import MINI_WORKS, download_path, is_downloaded, placing
from dream3d.weights.table import Entry, RemoteFile, Source, mirrored


@dataclass(frozen=True)
class Reporter:
    """Who is told what a pull does."""

    notify: Notify = lambda line: None
    progress: Callable[[str, int, int | None], None] = lambda name, done, total: None
    """File, bytes here, whole size where known."""


def obtain(entry: Entry, offline: bool, retries: RetryPolicy | None, reporter: Reporter) -> Source:
    """The first source whose files are here and sound, or can be downloaded.

    Raises :class:`OfflineError` with the files to place by hand if ``offline`` forbids the network and they are not
    here, :class:`DownloadError` if no source can be had.
    """
    faults: list[str] = []
    for source in entry.sources:
        if is_downloaded(entry, source):
            found = _faults(entry, source, reporter.notify)
            if not found:
                return source
            faults += found
    if offline:
        reason = f"{faults[0]}; " if faults else ""
        raise OfflineError(f"prior {entry.name!r} cannot be pulled without the network: {reason}{_by_hand(entry)}")
    for fault in faults:
        reporter.notify(f"{fault}; downloading it again")
    reasons: list[str] = []
    for source in entry.sources:
        if reasons:
            reporter.notify(f"{reasons[-1]}; trying the {source.title}")
        try:
            for file in source.files:
                _download(entry, file, retries, reporter)
            return source
        except UnreachableError as error:
            reasons.append(str(error))
    raise DownloadError(f"{'; '.join(reasons)}; {_by_hand(entry)}")


def _by_hand(entry: Entry) -> str:
    return f"{placing(entry)}, then run 'dream3d models pull {entry.name} --offline'; {MINI_WORKS}"


def _download(entry: Entry, file: RemoteFile, retries: RetryPolicy | None, reporter: Reporter) -> None:
    path = download_path(entry, file)
    record = read_record(path)
    if record and path.is_file() and fault_of(path, record) is None:
        return
    first_seen = f" as at the first download (delete {record_path(path)} if the file was replaced by its publisher)"
    spec = DownloadSpec(
        urls=tuple(mirrored(url) for url in file.urls),
        limit=file.limit,
        size=file.size,
        sha256=file.sha256 or (record.sha256 if record else None),
        hash_origin="" if file.sha256 else first_seen,
        at_least=file.at_least,
    )

    def progress(done: int, total: int | None) -> None:
        reporter.progress(file.path, done, total)

    download_file(spec, path, progress, reporter.notify, retries)


def _faults(entry: Entry, source: Source, notify: Notify) -> list[str]:
    """What is wrong with files that are here."""
    faults = []
    for file in source.files:
        path = download_path(entry, file)
        notify(f"checking {path}")
        fault = fault_in_download(entry, file)
        if fault:
            advice = f" (delete {record_path(path)} if this version is meant)" if read_record(path) else ""
            faults.append(f"{path} is {fault}{advice}")
    return faults


def fault_in_download(entry: Entry, file: RemoteFile) -> str | None:
    """What is wrong with a file that is here, or None: by the table's hash, else by the record, else by size."""
    path = download_path(entry, file)
    size, record = path.stat().st_size, read_record(path)
    if not file.at_least <= size <= file.limit:
        return f"damaged: {size} bytes, should be {file.size or file.about_bytes}"
    if file.sha256:
        return fault_of(path, Record(file.sha256, size if file.size is None else file.size, file.urls[0]))
    return fault_of(path, record) if record else None


def keep_record(entry: Entry, source: Source) -> None:
    """Record files that were placed by hand, once their conversion showed that they are what they should be."""
    for file in source.files:
        path = download_path(entry, file)
        if read_record(path) is None:
            write_record(path, Record(hash_file(path), path.stat().st_size, "placed by hand"))


def discard(entry: Entry, source: Source) -> None:
    """Remove downloaded files. Their hashes stay: a later download must still be the same."""
    for file in source.files:
        path = download_path(entry, file)
        record = read_record(path)
        if record:
            write_record(path, Record(record.sha256, record.bytes, record.origin, kept=False))
        path.unlink(missing_ok=True)
