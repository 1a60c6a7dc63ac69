"""What of the catalogue is on this machine: downloads, converted folders, and what to do when they are missing."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from dream3d.errors import DownloadError, UsageError
from dream3d.weights.cache import cache_root
from dream3d.weights.records import Record, hash_file, write_json
from dream3d.weights.table import Entry, RemoteFile, Source, mirrored

ESSENTIAL_FILES = (
    "prior.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)
"""What any converted folder holds; used for one that was copied here by hand and has no record."""

MINI_WORKS = "'--prior mini' works now"


@dataclass(frozen=True)
class FolderRecord:
    """A converted folder as it was when it was complete."""

    origin: str
    """Title of the source that it was converted from."""
    dtype: str
    files: dict[str, Record]
    """By path in the folder, with forward slashes."""


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
    names = tuple(record.files) if record else ESSENTIAL_FILES
    # os.path and not Path: a cache that may not be read counts as empty, and does not stop '--prior mini'.
    return [name for name in names if not os.path.isfile(folder / name)]


def is_downloaded(entry: Entry, source: Source) -> bool:
    """Whether every file of a source is here under its final name."""
    return all(os.path.isfile(download_path(entry, file)) for file in source.files)


def size_on_disk(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def folder_record_path(folder: Path) -> Path:
    """Where the record of a converted folder lies: beside it, since the folder itself is the loader's."""
    return folder.with_name(f"{folder.name}.files.json")


def read_folder_record(folder: Path) -> FolderRecord | None:
    """The record of a converted folder, None if there is none; :class:`DownloadError` if it cannot be read."""
    path = folder_record_path(folder)
    if not os.path.isfile(path):
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        files = {
            str(name): Record(str(one["sha256"]), int(one["bytes"]), str(one["origin"]))
            for name, one in data["files"].items()
        }
        return FolderRecord(str(data["origin"]), str(data["dtype"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = type(error).__name__
        raise DownloadError(f"{path} is damaged ({what}); delete it and run the command again") from error


def write_folder_record(folder: Path, origin: str, dtype: str) -> None:
    """Hash every file of a converted folder and remember them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {
        path.relative_to(folder).as_posix(): Record(hash_file(path), path.stat().st_size, "converted") for path in paths
    }
    write_json(folder_record_path(folder), asdict(FolderRecord(origin, dtype, files)))


def absent_message(entry: Entry) -> str:
    """One line: that a prior is not here, and every way to get it."""
    folder, missing = prior_folder(entry), missing_files(entry)
    state = f"is incomplete, {folder / missing[0]} is missing" if os.path.isdir(folder) and missing else "is not here"
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
