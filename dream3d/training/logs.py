"""Tables of figures that a resumed run continues."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from dream3d.files import write_text


@dataclass(frozen=True)
class StepLog:
    """A CSV file with rows by step, which is their first column."""

    path: Path
    columns: tuple[str, ...]

    def rewind(self, step: int) -> None:
        """Keep the header and the whole rows up to a step."""
        rows = self.path.read_text(encoding="utf-8").splitlines()[1:] if self.path.exists() else []
        kept = [row for row in rows if row.count(",") == len(self.columns) - 1 and int(row.split(",")[0]) <= step]
        write_text(self.path, "\n".join([",".join(self.columns), *kept]) + "\n")

    def add(self, *values: object) -> None:
        """Append a row."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(values)
