"""From a name of the table to a prior folder: download, check, convert, and nothing half-done in between."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dream3d.errors import DownloadError, OfflineError, PriorError
from dream3d.weights.download import (
    Notify,
    Patience,
    UnreachableError,
    Wanted,
    check_space,
    download_file,
    only_one,
)
from dream3d.weights.records import Record, fault_of, hash_file, read_record, record_path, write_record
from dream3d.weights.store import (
    ESSENTIAL_FILES,
    MINI_WORKS,
    download_folder,
    download_path,
    is_downloaded,
    missing_files,
    placing,
    prior_folder,
    read_folder_record,
    write_folder_record,
)
from dream3d.weights.table import Entry, RemoteFile, Source, mirrored

Dtype = Literal["fp16", "fp32"]


@dataclass(frozen=True)
class PullOptions:
    """What the user decides of a pull."""

    dtype: Dtype | None = None
    """Number format; None takes what is here, and fp16 for what is not."""
    offline: bool = False
    """Use what is here and never the network."""
    discard_download: bool = False
    """Remove the downloaded files after the conversion; their hashes stay on record."""
    patience: Patience | None = None


@dataclass(frozen=True)
class Watch:
    """Who is told what a pull does."""

    notify: Notify = lambda line: None
    progress: Callable[[str, int, int | None], None] = lambda name, done, total: None
    """File, bytes here, whole size where known."""


def pull(entry: Entry, options: PullOptions, watch: Watch) -> Path:
    """The prior's folder, after whatever it takes to have it there whole.

    Raises :class:`DownloadError`, :class:`OfflineError` with the files to place by hand, or the
    converter's :class:`PriorError`. An earlier folder is replaced only by a complete one.
    """
    folder = prior_folder(entry)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with only_one(folder, watch.notify):
            if _is_sound(entry, options.dtype, watch.notify):
                return folder
            _pull(entry, options, watch)
            return folder
    except OSError as error:
        reason = error.strerror or error
        raise DownloadError(
            f"{folder}: cannot be written ({reason}); name another folder with DREAM3D_CACHE"
        ) from error


def _pull(entry: Entry, options: PullOptions, watch: Watch) -> None:
    source = _obtain(entry, options, watch)
    folder, dtype = prior_folder(entry), options.dtype or "fp16"
    for left in folder.parent.glob(f".{folder.name}-*.tmp"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    check_space(folder.parent, entry.converted_bytes * (2 if dtype == "fp32" else 1))
    watch.notify(f"converting {source.convert_from} to {dtype}")
    try:
        place_converted(download_folder(entry) / source.convert_from, folder, dtype)
    except PriorError as error:
        raise PriorError(f"{error} (delete {download_folder(entry)} and pull again)") from error
    write_folder_record(folder, source.title, dtype)
    _remember(entry, source)
    if options.discard_download:
        _discard(entry, source)


def place_converted(source: Path, folder: Path, dtype: Dtype) -> None:
    """Convert into a hidden folder beside ``folder`` and put it in place once it is complete.

    Raises :class:`PriorError`; ``folder`` is then as it was.
    """
    from dream3d.prior.official.convert import convert  # torch comes with it

    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}-", suffix=".tmp", dir=folder.parent, ignore_cleanup_errors=True
    ) as name:
        fresh, old = Path(name) / "new", Path(name) / "old"
        convert(source, fresh, dtype)
        missing = [file for file in ESSENTIAL_FILES if not (fresh / file).is_file()]
        if missing:
            raise PriorError(f"the conversion of {source} did not write {missing[0]}")
        if folder.exists():
            folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise


def _is_sound(entry: Entry, dtype: Dtype | None, notify: Notify) -> bool:
    """Whether the converted folder is here, whole and of the wanted number format. Reads all of it."""
    folder = prior_folder(entry)
    record = read_folder_record(folder)
    if record is None:
        if missing_files(entry):
            return False
        notify(f"{folder} was placed by hand and is taken as it is")
        return True
    if not folder.is_dir():
        return False
    if dtype is not None and record.dtype != dtype:
        notify(f"{folder} is {record.dtype}; it will be replaced by {dtype}")
        return False
    faults = {name: fault_of(folder / name, one) for name, one in record.files.items()}
    bad = [f"{folder / name} is {fault}" for name, fault in faults.items() if fault]
    notify(f"{bad[0]}; converting again" if bad else f"{folder} is here and sound")
    return not bad


def _obtain(entry: Entry, options: PullOptions, watch: Watch) -> Source:
    """The first source whose files are here and sound, or can be downloaded."""
    faults: list[str] = []
    for source in entry.sources:
        if is_downloaded(entry, source):
            found = _faults(entry, source, watch.notify)
            if not found:
                return source
            faults += found
    if options.offline:
        found_text = f"{faults[0]}; " if faults else ""
        raise OfflineError(
            f"prior {entry.name!r} cannot be pulled without the network: {found_text}{placing(entry)}, "
            f"then run 'dream3d models pull {entry.name} --offline'; {MINI_WORKS}"
        )
    for fault in faults:
        watch.notify(f"{fault}; downloading it again")
    return _download(entry, options, watch)


def _download(entry: Entry, options: PullOptions, watch: Watch) -> Source:
    reasons: list[str] = []
    for source in entry.sources:
        if reasons:
            watch.notify(f"{reasons[-1]}; trying the {source.title}")
        try:
            for file in source.files:
                _download_one(entry, file, options, watch)
            return source
        except UnreachableError as error:
            reasons.append(str(error))
    raise DownloadError(
        f"{'; '.join(reasons)}; {placing(entry)}, then run 'dream3d models pull {entry.name} --offline'; {MINI_WORKS}"
    )


def _download_one(entry: Entry, file: RemoteFile, options: PullOptions, watch: Watch) -> None:
    path = download_path(entry, file)
    record = read_record(path)
    if record and path.is_file() and fault_of(path, record) is None:
        return
    first_seen = f" as at the first download (delete {record_path(path)} if the file was replaced by its publisher)"
    wanted = Wanted(
        urls=tuple(mirrored(url) for url in file.urls),
        limit=file.limit,
        size=file.size,
        sha256=file.sha256 or (record.sha256 if record else None),
        hash_origin="" if file.sha256 else first_seen,
        at_least=file.at_least,
    )

    def progress(done: int, total: int | None) -> None:
        watch.progress(file.path, done, total)

    download_file(wanted, path, progress, watch.notify, options.patience)


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


def _remember(entry: Entry, source: Source) -> None:
    """Record what was placed by hand, now that its conversion showed that it is what it should be."""
    for file in source.files:
        path = download_path(entry, file)
        if read_record(path) is None:
            write_record(path, Record(hash_file(path), path.stat().st_size, "placed by hand"))


def _discard(entry: Entry, source: Source) -> None:
    """Remove downloaded files. Their hashes stay: a later download must still be the same."""
    for file in source.files:
        path = download_path(entry, file)
        record = read_record(path)
        if record:
            write_record(path, Record(record.sha256, record.bytes, record.origin, kept=False))
        path.unlink(missing_ok=True)
