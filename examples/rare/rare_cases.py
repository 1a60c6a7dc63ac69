"""What is asked for in the evaluation: a thing by its name, pictures of it, and what it really looks like."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dream3d.dataset.captions.templates import with_article
from dream3d.dataset.decoding import read_rgba
from dream3d.errors import DatasetError, UsageError
from dream3d.files import read_regular
from dream3d.retrieval.pictures import MAX_PIXELS, on_color
from dream3d.retrieval.readers.folder import bytes_inside
from dream3d.retrieval.references import Reference

TABLES = ("pictures.csv", "truth.csv")
"""As render_pictures.py writes them."""
MAX_TABLE_BYTES = 2**22


@dataclass(frozen=True, eq=False)
class Case:
    """A thing."""

    name: str
    pictures: tuple[Reference, ...]
    """To draw by, in the order in which they are taken."""
    truth: tuple[bytes, ...]
    """Picture files of its views, transparent where nothing is."""

    @property
    def prompt(self) -> str:
        """As "a bunk bed"."""
        return with_article(self.name)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that is known of it."""
        parts = (self.name.encode(), *(one.image for one in self.pictures), *self.truth)
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def truth_over(self, background: Sequence[float]) -> Tensor:
        """(N, 3, S, S) in [0, 1]: its views on a colour, sRGB in [0, 1]."""
        red, green, blue = (round(255 * part) for part in background)
        pixels = [on_color(read_rgba(one, MAX_PIXELS), (red, green, blue)) for one in self.truth]
        return torch.from_numpy(np.stack(pixels)).movedim(-1, 1) / 255


def read_cases(folder: Path) -> list[Case]:
    """The cases of a folder, by their names.

    Raises UsageError for a folder without tables, DatasetError for damaged ones.
    """
    pictures, truth = (_rows(folder / table) for table in TABLES)
    cases = []
    for name in sorted(truth):
        if name not in pictures:
            raise DatasetError(f"{folder / TABLES[0]} has no picture of {name!r}; render the folder again")
        shown = tuple(
            Reference(bytes_inside(folder, row["image"]), {key: row[key] for key in ("author", "licence", "source")})
            for row in pictures[name]
        )
        cases.append(Case(name, shown, tuple(bytes_inside(folder, row["image"]) for row in truth[name])))
    return cases


def _rows(table: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of a table by their captions."""
    try:
        text = read_regular(table, MAX_TABLE_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{table} cannot be read ({error}); render_pictures.py makes such a folder") from error
    rows: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(io.StringIO(text), restval=""):
        if not {"image", "caption", "author", "licence", "source"} <= row.keys():
            raise DatasetError(f"{table} lacks a column; render the folder again")
        rows.setdefault(row["caption"], []).append(row)
    if not rows:
        raise DatasetError(f"{table} has no rows; render the folder again")
    return rows
