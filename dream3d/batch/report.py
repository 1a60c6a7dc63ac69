"""What a batch made, for people: ``summary.csv`` and a gallery page that works without a server."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from dream3d.batch.jobs import Job
from dream3d.batch.places import Place
from dream3d.batch.work import Result

State = Literal["finished", "failed", "waiting"]
FIGURES = ("seconds", "vertices", "faces", "silhouette_iou", "haze")
COLUMNS = ("key", "prompt", "seed", "settings", "state", *FIGURES, "reason")
EVERY_SECONDS = 5.0
"""Between two writings of the report while results come in: one of thousands of assets is not small."""
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222 }
h1 { font-size: 1.3rem } .sum { color: #666 }
ul { list-style: none; padding: 0; display: grid; gap: 1.2rem }
ul { grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)) }
li { border: 1px solid #ddd; border-radius: 8px; overflow: hidden } li div { padding: .5rem .8rem }
img { display: block; width: 100%; background: #6b8fc7 } small { color: #666 } .failed { border-color: #c66 }
.failed small { color: #a33 } a { color: #2457a6 }
"""


@dataclass(frozen=True)
class Row:
    """One job in the summary."""

    job: Job
    state: State
    reason: str
    facts: Mapping[str, object]
    """The result in its ``run.json``: seconds, vertices, faces, silhouette_iou, haze."""

    def cells(self) -> list[str]:
        """The row of ``summary.csv``."""
        settings = " ".join(f"{name}={value}" for name, value in sorted(self.job.changes.items()))
        plain = [self.job.key, self.job.prompt, str(self.job.seed), settings, self.state]
        figures = [self._figure(name) for name in FIGURES]
        return [*plain, *figures, self.reason]

    def _figure(self, name: str) -> str:
        value = self.facts.get(name)
        return f"{value:.6g}" if isinstance(value, int | float) else ""


class Report:
    """Rows of all jobs, kept up to date."""

    def __init__(self, jobs: Sequence[Job], place: Place) -> None:
        """Looks at what is there."""
        self._place = place
        self._rows = {job.key: _row(job, place) for job in jobs}
        self._written = -EVERY_SECONDS

    @property
    def rows(self) -> list[Row]:
        """One for each job, in their order."""
        return list(self._rows.values())

    def missing(self) -> list[Job]:
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
        """Write ``summary.csv`` and ``index.html``."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *(row.cells() for row in self.rows)])
        self._place.write("summary.csv", text.getvalue().encode())
        self._place.write("index.html", page(self.rows).encode())
        self._written = time.monotonic()


def _row(job: Job, place: Place) -> Row:
    result = job.result(place)
    return Row(job, "waiting", "", {}) if result is None else Row(job, "finished", "", result)


def page(rows: Sequence[Row]) -> str:
    """The gallery: finished assets with their pictures, then the failures, as one HTML page with relative links."""
    order = {"finished": 0, "failed": 1, "waiting": 2}
    items = "\n".join(_item(row) for row in sorted(rows, key=lambda row: order[row.state]))
    counts = ", ".join(f"{sum(row.state == state for row in rows)} {state}" for state in order)
    title = f"dream3d: {len(rows)} assets"
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
        f"<style>{_STYLE}</style>\n<h1>{title}</h1><p class=sum>{counts}</p>\n<ul>\n{items}\n</ul></html>\n"
    )


def _item(row: Row) -> str:
    job, prompt = row.job, html.escape(row.job.prompt)
    settings = "".join(f", {html.escape(name)} {html.escape(value)}" for name, value in sorted(job.changes.items()))
    line = f"<b>{prompt}</b><br><small>seed {job.seed}{settings}</small>"
    if row.state != "finished":
        return f"<li class={row.state}><div>{line}<br><small>{html.escape(row.reason or row.state)}</small></div></li>"
    links = [("mesh", job.mesh), ("turntable", f"{job.run}/turntable.mp4"), ("run", f"{job.run}/run.json")]
    anchors = " · ".join(f'<a href="{quote(target)}">{name}</a>' for name, target in links)
    picture = f'<img src="{quote(job.run)}/preview.png" alt="four views of {prompt}" loading=lazy>'
    return f"<li>{picture}<div>{line}<br>{anchors}</div></li>"
