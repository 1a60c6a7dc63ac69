"""Tables of figures that a resumed run continues."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from dream3d.run.folder import keep_rows


@dataclass(frozen=True)
class StepLog:
    """A CSV file with rows by step, which is their first column."""

    path: Path
    columns: tuple[str, ...]

    def rewind(self, step: int) -> None:
        """Keep the header and the whole rows up to a step."""
        keep_rows(self.path, self.columns, step + 1)

    def add(self, *values: object) -> None:
        """Append a row."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(values)
