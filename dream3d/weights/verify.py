"""Whether what is in the cache is still what it was when it came."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dream3d.errors import DownloadError
from dream3d.prior.layout import PACKAGED, files_of
from dream3d.weights.obtain import fault_in_download
from dream3d.weights.records import fault_of, read_folder_record, read_record
from dream3d.weights.store import download_path, prior_folder
from dream3d.weights.table import Entry, RemoteFile


@dataclass(frozen=True)
class Finding:
    """What was found out about one file."""

    path: Path
    state: Literal["sound", "bad", "unchecked"]
    """Unchecked: there is no recorded SHA-256, or it is not finished. Bad ones are missing or damaged."""
    detail: str = ""


def verify_packaged() -> Iterator[Finding]:
    """The files of the built-in prior: their presence (the package manager knows their hashes)."""
    folder = PACKAGED / "mini"
    for name in files_of(folder):
        path = folder / name
        yield Finding(path, "sound") if path.is_file() else Finding(path, "bad", "missing; install the package again")


def verify_entry(entry: Entry) -> Iterator[Finding]:
    """Every file of an entry that is here, or should be; nothing for one that was never pulled. Reads all bytes."""
    for source in entry.sources:
        for file in source.files:
            yield from _verify_download(entry, file)
    folder = prior_folder(entry)
    try:
        record = read_folder_record(folder)
    except DownloadError as error:
        yield Finding(folder, "bad", str(error))
        return
    if record is not None:
        for name, one in record.files.items():
            fault = fault_of(folder / name, one)
            yield Finding(folder / name, "bad", fault) if fault else Finding(folder / name, "sound")
    elif folder.is_dir():
        for name in files_of(folder):
            path = folder / name
            yield Finding(path, "unchecked", "no record") if path.is_file() else Finding(path, "bad", "missing")


def _verify_download(entry: Entry, file: RemoteFile) -> Iterator[Finding]:
    path = download_path(entry, file)
    try:
        record = read_record(path)
        if path.is_file():
            fault = fault_in_download(entry, file)
            if fault:
                yield Finding(path, "bad", fault)
            elif record or file.sha256:
                yield Finding(path, "sound")
            else:
                yield Finding(path, "unchecked", "placed by hand, no record yet")
        elif record is not None and record.kept:
            yield Finding(path, "bad", "missing (removed or renamed)")
    except DownloadError as error:
        yield Finding(path, "bad", str(error))
    part = path.with_name(f"{path.name}.part")
    if part.is_file():
        yield Finding(part, "unchecked", f"half-downloaded, {part.stat().st_size} bytes; pull resumes from there")
