"""From a name of the table to a prior folder: download, check, convert, and nothing half-done in between."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dream3d.errors import DownloadError, PriorError
from dream3d.files import remove_leftovers
from dream3d.prior.layout import Dtype
from dream3d.weights.download import Notify, RetryPolicy, check_space, exclusive
from dream3d.weights.obtain import Reporter, discard, keep_record, obtain
from dream3d.weights.records import fault_of, read_folder_record, write_folder_record
from dream3d.weights.store import download_folder, missing_files, prior_folder
from dream3d.weights.table import Entry


@dataclass(frozen=True)
class PullOptions:
    """What the user decides of a pull."""

    dtype: Dtype | None = None
    """Number format; None takes what is here, and fp16 for what is not."""
    offline: bool = False
    """Use what is here and never the network."""
    discard_download: bool = False
    """Remove the downloaded files after the conversion; their hashes stay on record."""
    retries: RetryPolicy | None = None


def pull(entry: Entry, options: PullOptions, reporter: Reporter) -> Path:
    """The prior's folder, after whatever it takes to have it there whole.

    Raises :class:`DownloadError`, :class:`OfflineError` with the files to place by hand, or the
    converter's :class:`PriorError`. An earlier folder is replaced only by a complete one.
    """
    folder = prior_folder(entry)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(folder, reporter.notify):
            if not _is_sound(entry, options.dtype, reporter.notify):
                _pull(entry, options, reporter)
            return folder
    except OSError as error:
        reason = error.strerror or error
        raise DownloadError(
            f"{folder}: cannot be written ({reason}); name another folder with DREAM3D_CACHE"
        ) from error


def _pull(entry: Entry, options: PullOptions, reporter: Reporter) -> None:
    source = obtain(entry, options.offline, options.retries, reporter)
    folder, dtype = prior_folder(entry), options.dtype or "fp16"
    remove_leftovers(folder.parent, folder.name, folders=True)  # of a process that was killed: we hold the lock
    check_space(folder.parent, entry.converted_bytes * (2 if dtype == "fp32" else 1))
    reporter.notify(f"converting {source.convert_from} to {dtype}")
    from dream3d.prior.official.convert import convert  # torch comes with it

    try:
        convert(download_folder(entry) / source.convert_from, folder, dtype, replace=True)
    except PriorError as error:
        raise PriorError(f"{error} (delete {download_folder(entry)} and pull again)") from error
    write_folder_record(folder, source.title, dtype)
    keep_record(entry, source)
    if options.discard_download:
        discard(entry, source)


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
