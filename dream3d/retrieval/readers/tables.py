"""Tables of captions with pictures: CSV and TSV with paths, Parquet with paths or with the pictures themselves."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dream3d.errors import DatasetError, UsageError
from dream3d.retrieval.pictures import MAX_BYTES
from dream3d.retrieval.readers.fields import AUTHOR, CAPTION, LICENCE, SOURCE, first_of, provenance
from dream3d.retrieval.readers.folder import bytes_inside
from dream3d.retrieval.readers.skipped import Skipped
from dream3d.retrieval.records import Picture, picture

PATH = ("image", "file", "path", "file_name", "filename", "image_path")
"""Columns that name or hold the picture."""
ROWS_AT_ONCE = 64
"""Of a Parquet file: each row may hold a picture of :data:`MAX_BYTES`."""
MAX_CELL = 131_072
"""Characters of a cell; Python's own limit."""


def read_csv(table: Path, skipped: Skipped, part: tuple[int, int] = (0, 1)) -> Iterator[Picture]:
    """The rows of a CSV file (``.tsv``: tabs) whose first line names the columns: a caption and a picture's path.

    Paths are relative to the table's folder and stay in it. Raises :class:`DatasetError` without such columns.
    """
    delimiter = "\t" if table.suffix.lower() == ".tsv" else ","
    try:
        with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.DictReader(file, delimiter=delimiter, restkey="", strict=False)
            _check_columns(table, list(rows.fieldnames or ()))
            yield from _pictures(enumerate(rows, start=1), table, skipped, part)
    except csv.Error as error:
        skipped.add(table.name, f"the rest of the table cannot be read ({error})")
    except OSError as error:
        raise DatasetError(f"{table} cannot be read ({error.strerror})") from error


def read_parquet(table: Path, skipped: Skipped, part: tuple[int, int] = (0, 1)) -> Iterator[Picture]:
    """The rows of a Parquet file: as :func:`read_csv`, or with the pictures' bytes (also Hugging Face's ``image``)."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError(
            f"{table.name}: Parquet needs more; install it with: pip install 'dream3d[retrieve]'"
        ) from error
    try:
        with pq.ParquetFile(table) as file:
            known = {*CAPTION, *SOURCE, *AUTHOR, *LICENCE, *PATH}
            columns = [name for name in file.schema_arrow.names if name.strip().lower() in known]
            _check_columns(table, columns)
            batches = file.iter_batches(ROWS_AT_ONCE, columns=columns)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from _pictures(enumerate(rows, start=1), table, skipped, part)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DatasetError(f"{table} cannot be read as Parquet ({' '.join(str(error).split())[:200]})") from error


def _check_columns(table: Path, columns: list[str]) -> None:
    lower = {str(name).strip().lower() for name in columns}
    for names, what in ((CAPTION, "captions"), (PATH, "pictures")):
        if not lower.intersection(names):
            raise DatasetError(f"{table} has no column of {what}; name one {' or '.join(names[:3])}")


def _pictures(
    rows: Iterator[tuple[int, Mapping[str, Any]]], table: Path, skipped: Skipped, part: tuple[int, int]
) -> Iterator[Picture]:
    for number, row in rows:
        if number % part[1] != part[0]:
            continue
        where = f"{table.name}, row {number}"
        try:
            yield picture(_image(row, table.parent), first_of(row, CAPTION), **provenance(row), where=where)
        except DatasetError as error:
            skipped.add(where, error)


def _image(row: Mapping[str, Any], folder: Path) -> bytes:
    """The picture of a row: its bytes, or the file that it names."""
    lower = {str(name).strip().lower(): value for name, value in row.items()}
    for value in (lower.get(name) for name in PATH):
        if isinstance(value, Mapping):  # Hugging Face's image: {"bytes": ..., "path": ...}
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes) and value:
            if len(value) > MAX_BYTES:
                raise DatasetError(f"a picture of {len(value)} bytes, over the limit of {MAX_BYTES}")
            return value
        if isinstance(value, str) and value.strip():
            if "://" in value:
                raise DatasetError("its picture is an address; download it first, nothing is fetched")
            return bytes_inside(folder, value.strip())
    raise DatasetError("no picture")
