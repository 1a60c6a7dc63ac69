"""What a batch made, for people: ``summary.csv`` and a gallery page that works without a server."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dream3d.batch.jobs import BatchJob, result_of
from dream3d.batch.places import Place
from dream3d.batch.work import Result
from dream3d.files import parse_json
from dream3d.mesh.surface import CUT_OFF
from dream3d.names import free_name
from dream3d.report.gallery import GalleryItem, gallery_page

State = Literal["finished", "failed", "waiting"]
FIGURES = ("seconds", "vertices", "faces", "silhouette_iou", "floaters", "cap_area", "prompt_similarity", "prompt_rank")
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
COLUMNS = ("key", "prompt", "seed", "settings", "state", *FIGURES, "reason")
NAMES = ".dream3d.json"
"""Which files of a batch's folder are its report, by their usual names: any others of these names are the user's."""
EVERY_SECONDS = 5.0
"""Between two writings of the report while results come in: one of thousands of assets is not small."""


@dataclass(frozen=True)
class Row:
    """One job in the summary."""

    job: BatchJob
    state: State
    reason: str
    facts: Mapping[str, object]
    """The result in its ``run.json``: :data:`FIGURES`; older runs have fewer."""
    has_page: bool = False
    """Whether the run has a ``report.html``."""

    def cells(self) -> list[str]:
        """The row of ``summary.csv``. No text in it is a formula to a spreadsheet: an apostrophe comes before such."""
        settings = " ".join(f"{name}={value}" for name, value in sorted(self.job.settings.items()))
        plain = [self.job.key, self.job.prompt, str(self.job.seed), settings, self.state]
        figures = [self._figure(name) for name in FIGURES]
        cells = [*plain, *figures, self.reason]
        return [f"'{cell}" if cell.lstrip().startswith(FORMULA) else cell for cell in cells]

    def _figure(self, name: str) -> str:
        value = self.facts.get(name, self.facts.get("haze") if name == "floaters" else None)  # its older name
        return f"{value:.6g}" if isinstance(value, int | float) else ""


class Report:
    """Rows of all jobs, kept up to date."""

    def __init__(self, jobs: Sequence[BatchJob], place: Place) -> None:
        """Looks at what is there."""
        self._place = place
        self._rows = {job.key: _row(job, place) for job in jobs}
        self._written = -EVERY_SECONDS
        self.summary, self.gallery = (_own_name(name, place) for name in ("summary.csv", "index.html"))

    @property
    def rows(self) -> list[Row]:
        """One for each job, in their order."""
        return list(self._rows.values())

    def missing(self) -> list[BatchJob]:
        """The jobs that are not finished."""
        return [row.job for row in self.rows if row.state != "finished"]

    def add(self, result: Result) -> None:
        """Take in how a job ended, and write if it is time. What cannot be written now is written with the next one."""
        job = self._rows[result.key].job
        self._rows[result.key] = Row(job, "failed", result.reason, {}) if result.reason else _row(job, self._place)
        if time.monotonic() - self._written > EVERY_SECONDS:
            with contextlib.suppress(Exception):  # a full disk, a store that is away: no reason to end the other jobs
                self.write()

    def write(self) -> None:
        """Write :attr:`summary` and :attr:`gallery`, after the record that they are ours."""
        names = {"summary.csv": self.summary, "index.html": self.gallery}
        self._place.write(NAMES, json.dumps(names).encode())
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *(row.cells() for row in self.rows)])
        self._place.write(self.summary, text.getvalue().encode())
        self._place.write(self.gallery, page(self.rows).encode())
        self._written = time.monotonic()


def _own_name(name: str, place: Place) -> str:
    """The name that a batch recorded for its file of a folder; else one that nobody has."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        own = parse_json(place.read(NAMES)).get(name)
        if isinstance(own, str) and re.fullmatch(r"\w+(-\d+)?\.\w+", own):
            return own
    return free_name(name, place.has)


def _row(job: BatchJob, place: Place) -> Row:
    record = job.record(place)
    if record is None:
        return Row(job, "waiting", "", {})
    files = record.get("files")
    has_page = isinstance(files, list) and "report.html" in files
    return Row(job, "finished", "", result_of(record), has_page)


def page(rows: Sequence[Row]) -> str:
    """The gallery page: finished assets with their images, then the failures, then what is waiting."""
    order = {"finished": 0, "failed": 1, "waiting": 2}
    items = [_item(row) for row in sorted(rows, key=lambda row: order[row.state])]
    counts = ", ".join(f"{sum(row.state == state for row in rows)} {state}" for state in order)
    return gallery_page(f"dream3d: {len(rows)} assets", counts, items)


def _item(row: Row) -> GalleryItem:
    job = row.job
    details = ", ".join([f"seed {job.seed}", *(f"{name} {value}" for name, value in sorted(job.settings.items()))])
    if row.state != "finished":
        return GalleryItem(job.prompt, details, row.state, row.reason or row.state)
    links = {"mesh": job.mesh, "turntable": f"{job.run}/turntable.mp4", "run": f"{job.run}/run.json"}
    similarity, rank, cap = (row.facts.get(name) for name in ("prompt_similarity", "prompt_rank", "cap_area"))
    notes = [f"similarity to the prompt {similarity:.2f}, rank {rank}"] if isinstance(similarity, float) else []
    notes += [f"{cap:.1%} cut off at the border"] if isinstance(cap, float) and cap > CUT_OFF else []
    page = f"{job.run}/report.html" if row.has_page else ""
    links |= {"report": page} if page else {}
    image = f"{job.run}/preview.png"
    return GalleryItem(job.prompt, details, note="; ".join(notes), image=image, links=links, page=page)
