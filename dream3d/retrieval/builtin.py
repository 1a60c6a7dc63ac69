"""The corpus that comes with the package: a table, a zip of pictures, and their vectors; no database."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dream3d.errors import DatasetError, one_line
from dream3d.files import read_regular, write_atomically
from dream3d.retrieval.dedupe import LOOK_BYTES, look
from dream3d.retrieval.encoder import CorpusEncoder
from dream3d.retrieval.memory import Entry, MemoryStore
from dream3d.retrieval.pictures import MAX_KEPT_BYTES, check_picture
from dream3d.retrieval.records import Picture

BUILTIN = Path(__file__).parent.parent / "corpora" / "builtin"
"""Where it lies in the package."""
TABLE, PICTURES, VECTORS = "pictures.tsv", "pictures.zip", "vectors.safetensors"
COLUMNS = ("key", "caption", "source", "author", "licence")
"""Of the table. The picture of a key is ``KEY.webp`` in the zip."""
MAX_TABLE = 8 * 2**20
MAX_VECTORS = 64 * 2**20


def open_packed(folder: Path, encoder: CorpusEncoder) -> MemoryStore:
    """A packed corpus of a folder; :class:`DatasetError` for a damaged one.

    Vectors that another encoder made are made anew, in memory: some seconds for each thousand pictures.
    """
    entries, images = read_table(folder), _Images(folder / PICTURES)
    try:
        with safe_open(folder / VECTORS, "numpy") as file:
            is_ours = (file.metadata() or {}).get("fingerprint") == encoder.fingerprint
            names = ("captions", "pictures", "looks")
            captions, pictures, looks = (file.get_tensor(name) for name in names)
    except (OSError, SafetensorError) as error:
        raise DatasetError(f"{folder / VECTORS} cannot be read ({one_line(str(error), 200)})") from error
    if not is_ours:
        captions, pictures, looks = _embed(entries, images, encoder)
    width = (encoder.caption_width, encoder.picture_width, LOOK_BYTES)
    if [array.shape for array in (captions, pictures, looks)] != [(len(entries), size) for size in width]:
        raise DatasetError(f"{folder / VECTORS} does not belong to {TABLE}; make it again")
    return MemoryStore(entries, captions, pictures, looks.astype(np.uint8), images)


def read_table(folder: Path) -> list[Entry]:
    """The rows of a packed corpus's table."""
    try:
        text = read_regular(folder / TABLE, MAX_TABLE).decode("utf-8")
        rows = list(csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{folder / TABLE} cannot be read ({one_line(str(error), 200)})") from error
    if not rows or tuple(rows[0]) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise DatasetError(f"{folder / TABLE} is damaged: its columns should be {', '.join(COLUMNS)}")
    return [Entry(*row) for row in rows[1:]]


def write_packed(folder: Path, pictures: Sequence[Picture], encoder: CorpusEncoder) -> None:
    """Write pictures, all of them WebP, as a packed corpus into an existing folder; the same give the same bytes."""
    entries = [Entry(one.key, one.caption, one.source, one.author, one.licence) for one in pictures]
    lines = ["\t".join(COLUMNS), *("\t".join(vars(entry).values()) for entry in entries)]
    write_atomically(folder / TABLE, lambda path: path.write_text("\n".join(lines) + "\n", encoding="utf-8"))

    def fill(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for one in pictures:
                archive.writestr(zipfile.ZipInfo(f"{one.key}.webp", (2020, 1, 1, 0, 0, 0)), one.image)

    write_atomically(folder / PICTURES, fill)
    write_vectors(folder, encoder)


def write_vectors(folder: Path, encoder: CorpusEncoder) -> None:
    """Make the vectors of a packed corpus again: its pictures are the same, the encoder is another."""
    entries, images = read_table(folder), _Images(folder / PICTURES)
    captions, pictures, looks = _embed(entries, images, encoder)
    tensors = {"captions": captions.astype(np.float16), "pictures": pictures.astype(np.float16), "looks": looks}
    metadata = {"fingerprint": encoder.fingerprint}
    write_atomically(folder / VECTORS, lambda path: save_file(tensors, path, metadata))


class _Images:
    """Picture files of a zip by their keys."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetError(f"{path} cannot be read ({one_line(str(error), 200)})") from error

    def __call__(self, key: str) -> bytes:
        try:
            info = self._archive.getinfo(f"{key}.webp")
            if info.file_size > MAX_KEPT_BYTES:
                raise DatasetError(f"{self._path}: {key}.webp has {info.file_size} bytes, over {MAX_KEPT_BYTES}")
            return self._archive.read(info)
        except (KeyError, OSError, zipfile.BadZipFile, NotImplementedError) as error:
            raise DatasetError(f"{self._path}: {key}.webp cannot be read ({one_line(str(error), 200)})") from error


def _embed(
    entries: Sequence[Entry], images: _Images, encoder: CorpusEncoder
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of captions and pictures, and looks."""
    captions = encoder.captions([entry.caption for entry in entries])
    vectors, looks = [np.zeros((0, encoder.picture_width), np.float32)], []
    for start in range(0, len(entries), 256):
        checked = [check_picture(images(entry.key)).rgb for entry in entries[start : start + 256]]
        vectors.append(encoder.pictures(checked))
        looks += [np.frombuffer(look(rgb), np.uint8) for rgb in checked]
    return captions, np.concatenate(vectors), np.stack(looks) if looks else np.zeros((0, LOOK_BYTES), np.uint8)
