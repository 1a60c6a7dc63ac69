"""What of the catalogue is on this machine: downloads, converted folders, and what to do when they are missing."""

from __future__ import annotations

import os
from pathlib import Path

from dream3d.errors import DownloadError, UsageError
from dream3d.prior.layout import files_of
from dream3d.weights.cache import cache_root
from dream3d.weights.records import read_folder_record
from dream3d.weights.table import Entry, RemoteFile, Source, mirrored

MINI_WORKS = "'--prior mini' works now"


def is_offline() -> bool:
    """Whether ``DREAM3D_OFFLINE`` forbids the network; :class:`UsageError` if its value is neither yes nor no."""
    value = os.environ.get("DREAM3D_OFFLINE", "").strip().lower()
    if value in ("", "0", "false", "no", "off"):
        return False
    if value in ("1", "true", "yes", "on"):
        return True
    raise UsageError(f"DREAM3D_OFFLINE is {value!r}; use 1 or 0")


def download_folder(entry: Entry) -> Path:
    """Where the files of an entry are downloaded to."""
    return cache_root() / "downloads" / entry.name


def download_path(entry: Entry, file: RemoteFile) -> Path:
    """Where one file of an entry is downloaded to, or placed by hand."""
    return download_folder(entry) / file.path


def prior_folder(entry: Entry) -> Path:
    """Where the converted prior of an entry lies."""
    return cache_root() / "priors" / entry.name


def missing_files(entry: Entry) -> list[str]:
    """Files that the converted folder lacks; all that is looked at is presence. Empty: it can be loaded."""
    folder = prior_folder(entry)
    try:
        record = read_folder_record(folder)
    except DownloadError:  # verify and pull say so; whether the prior can be loaded is another question
        record = None
    names = tuple(record.files) if record else files_of(folder)
    # os.path and not Path: a cache that may not be read counts as empty, and does not stop '--prior mini'.
    return [name for name in names if not os.path.isfile(folder / name)]


def is_downloaded(entry: Entry, source: Source) -> bool:
    """Whether every file of a source is here under its final name."""
    return all(os.path.isfile(download_path(entry, file)) for file in source.files)


def size_on_disk(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def absent_message(entry: Entry) -> str:
    """One line: that a prior is not installed, and every way to get it."""
    folder, missing = prior_folder(entry), missing_files(entry)
    state = (
        f"is incomplete, {folder / missing[0]} is missing" if os.path.isdir(folder) and missing else "is not installed"
    )
    offline = f"'dream3d models pull {entry.name} --offline'"
    if any(is_downloaded(entry, source) for source in entry.sources):
        return f"prior {entry.name!r} {state}, but its download is here: run {offline}; {MINI_WORKS}"
    return (
        f"prior {entry.name!r} {state}: run 'dream3d models pull {entry.name}', "
        f"or without a network {placing(entry)} and run {offline}; {MINI_WORKS}"
    )


def placing(entry: Entry) -> str:
    """Which files to place where, for each source: part of a sentence."""
    return ", or ".join(f"place {_files_and_place(entry, source)}" for source in entry.sources)


def _files_and_place(entry: Entry, source: Source) -> str:
    if len(source.files) == 1:
        (file,) = source.files
        return f"{mirrored(file.urls[0])} at {download_path(entry, file)}"
    folder = download_folder(entry) / source.convert_from
    names = ", ".join(file.path.removeprefix(f"{source.convert_from}/") for file in source.files)
    return f"{names} of {_repository(source.files[0])} in {folder}"


def _repository(file: RemoteFile) -> str:
    return mirrored(file.urls[0]).partition("/resolve/")[0]
