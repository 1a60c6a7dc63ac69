"""Any source of pictures with captions, by what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dream3d.errors import UsageError
from dream3d.retrieval.readers.folder import read_folder
from dream3d.retrieval.readers.skipped import Skipped
from dream3d.retrieval.readers.tables import read_csv, read_parquet
from dream3d.retrieval.readers.tars import read_tar
from dream3d.retrieval.records import Picture

Reader = Callable[[Path, Skipped, tuple[int, int]], Iterator[Picture]]
READERS: dict[str, Reader] = {".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet, ".tar": read_tar}
"""Of files, by their ending."""


def check_sources(sources: Sequence[Path]) -> None:
    """Raises :class:`UsageError` for a source that is not there or of no kind that can be read."""
    for source in sources:
        if not source.is_dir() and not (source.is_file() and source.suffix.lower() in READERS):
            known = ", ".join(READERS)
            kind = "is neither a folder nor one of" if source.exists() else "is not there; give a folder or one of"
            raise UsageError(f"{source} {kind} {known}")


def read_pictures(
    source: Path, skipped: Skipped, part: tuple[int, int] = (0, 1), *, uncaptioned: bool = False
) -> Iterator[Picture]:
    """The pictures of a folder (with the tars that lie in it), a CSV, TSV or Parquet table, or a webdataset tar.

    What cannot be used is added to ``skipped``, and so are pictures without a caption unless ``uncaptioned``. ``part``
    (i, n) reads every n-th from the i-th on, the same ones each time, so that several workers share a source.
    """
    for one in _all(source, skipped, part):
        if one.caption or uncaptioned:
            yield one
        else:
            skipped.add(one.where, "no caption")


def _all(source: Path, skipped: Skipped, part: tuple[int, int]) -> Iterator[Picture]:
    if source.is_dir():
        yield from read_folder(source, skipped, part)
        for tar in sorted(source.glob("*.tar")):
            yield from read_tar(tar, skipped, part)
    else:
        yield from READERS[source.suffix.lower()](source, skipped, part)
