"""Folders of pictures: captions from files beside them, or from the names of folders and files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dream3d.errors import DatasetError
from dream3d.files import read_regular
from dream3d.retrieval.pictures import MAX_BYTES
from dream3d.retrieval.readers.fields import CAPTION, MAX_SIDECAR, decode_json, decode_text, first_of, provenance
from dream3d.retrieval.readers.skipped import Skipped
from dream3d.retrieval.records import Picture, picture

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


def read_folder(folder: Path, skipped: Skipped, part: tuple[int, int] = (0, 1)) -> Iterator[Picture]:
    """The pictures of a folder and the folders in it, by the order of their paths.

    A caption is the text of ``NAME.txt`` or the field ``caption`` of ``NAME.json`` beside the picture, which may also
    name source, author and licence; else the name of the folder that it lies in below ``folder``; else the words of the
    file's name; "" where that has none. Links that leave the folder are not followed. ``part`` (i, n) reads every n-th
    picture from the i-th.
    """
    root = folder.resolve()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    for path in paths[part[0] :: part[1]]:
        where = path.relative_to(folder).as_posix()
        try:
            yield _read(path, folder, root, where)
        except DatasetError as error:
            skipped.add(where, error)


def _read(path: Path, folder: Path, root: Path, where: str) -> Picture:
    row = _sidecars(path, root)
    caption = first_of(row, CAPTION) or (words_of(path.parent.name) if path.parent != folder else words_of(path.stem))
    return picture(_bytes(path, root, MAX_BYTES), caption, **provenance(row), where=where)


def _sidecars(path: Path, root: Path) -> dict[str, Any]:
    """What the JSON and the text file beside a picture say; the text file's caption comes first."""
    row: dict[str, Any] = {}
    beside = path.with_suffix(".json")
    if beside.is_file():
        row = decode_json(_bytes(beside, root, MAX_SIDECAR), beside.name)
    text = path.with_suffix(".txt")
    if text.is_file():
        row = {**row, CAPTION[0]: decode_text(_bytes(text, root, MAX_SIDECAR), text.name) or first_of(row, CAPTION)}
    return row


def _bytes(path: Path, root: Path, limit: int) -> bytes:
    if not Path(os.path.realpath(path)).is_relative_to(root):
        raise DatasetError(f"{path.name} is a link that leaves the folder")
    try:
        return read_regular(path, limit)
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read ({error.strerror})") from error


def words_of(name: str) -> str:
    """The words of a name, without the numbers that only tell files apart: "red_chair-02" is "red chair"."""
    return " ".join(word for word in re.findall(r"[^\W_]+", name.lower()) if not word.isdigit())


def bytes_inside(folder: Path, name: str) -> bytes:
    """A file that a table names, relative to the table's folder; :class:`DatasetError` if it lies elsewhere."""
    if "\0" in name or len(name) > 4096:
        raise DatasetError("the picture's path is no path")
    return _bytes(folder / name, folder.resolve(), MAX_BYTES)
