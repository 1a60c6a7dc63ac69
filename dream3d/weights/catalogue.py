"""The priors that dream3d knows by name, and whether they are here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dream3d.errors import PriorError, UsageError
from dream3d.prior.layout import PACKAGED, files_of
from dream3d.prior.schema import read_json
from dream3d.weights import table
from dream3d.weights.store import absent_message, missing_files, prior_folder, size_on_disk
from dream3d.weights.table import Entry


@dataclass(frozen=True)
class PriorInfo:
    """A known prior, whether or not it is here."""

    name: str
    path: Path | None
    present: bool
    licence: str
    note: str
    size: int = 0
    """Bytes on the disk if it is here, else roughly those of its download."""

    def absence(self) -> str:
        """One line for when it is not installed: why, and every way to get it. Raises UsageError for a bad mirror."""
        entry = table.find_entry(self.name)
        return absent_message(entry) if entry else f"prior {self.name!r} is {self.note}; install the package again"


def catalogue() -> list[PriorInfo]:
    """Every prior known by name. Reads small json files only; torch is not imported."""
    mini = _packaged("mini", "small built-in prior for everyday objects; runs on a CPU")
    return [mini, *(_fetched(entry) for entry in table.ENTRIES)]


def _fetched(entry: Entry) -> PriorInfo:
    try:
        folder, missing = prior_folder(entry), missing_files(entry)
    except UsageError:  # no home folder: nothing can have been fetched, and the built-in prior needs none
        folder, missing = Path(), [entry.name]
    if missing:
        return PriorInfo(entry.name, None, False, entry.licence, entry.note, entry.sources[0].about_bytes)
    return PriorInfo(entry.name, folder, True, entry.licence, entry.note, size_on_disk(folder))


def _packaged(name: str, note: str) -> PriorInfo:
    path = PACKAGED / name
    missing = [file for file in files_of(path) if not (path / file).is_file()]
    if missing:
        return PriorInfo(name, None, False, "unknown", f"not installed: {path / missing[0]} is missing")
    try:
        licence = str(read_json(path / "prior.json").get("licence_weights", "unknown"))
    except PriorError as error:
        return PriorInfo(name, path, False, "unknown", f"damaged: prior.json is not valid ({error})")
    return PriorInfo(name, path, True, licence, note, size_on_disk(path))
