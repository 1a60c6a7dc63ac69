"""What a batch made, for people: ``summary.csv`` and a gallery page that works without a server."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from dream3d.batch.jobs import RUNS, Job
from dream3d.files import write_atomically
from dream3d.run import read_run

State = Literal["finished", "failed", "waiting"]
FIGURES = ("seconds", "vertices", "faces", "silhouette_iou", "haze")
COLUMNS = ("key", "prompt", "seed", "settings", "state", *FIGURES, "reason")
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


def rows_of(jobs: Sequence[Job], folder: Path, reasons: Mapping[str, str]) -> list[Row]:
    """Where every job stands; ``reasons`` are those of the jobs that failed in this call."""
    rows = []
    for job in jobs:
        if reasons.get(job.key):
            rows.append(Row(job, "failed", reasons[job.key], {}))
        elif job.is_done(folder):
            result = read_run(job.run(folder)).get("result")
            rows.append(Row(job, "finished", "", result if isinstance(result, dict) else {}))
        else:
            rows.append(Row(job, "waiting", "", {}))
    return rows


def write_report(jobs: Sequence[Job], folder: Path, reasons: Mapping[str, str]) -> list[Row]:
    """Write ``summary.csv`` and ``index.html`` of the jobs as they stand."""
    rows = rows_of(jobs, folder, reasons)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *(row.cells() for row in rows)])
    for name, content in (("summary.csv", text.getvalue()), ("index.html", page(rows, folder))):
        write_atomically(folder / name, lambda path, content=content: path.write_text(content, encoding="utf-8"))  # type: ignore[misc]
    return rows


def page(rows: Sequence[Row], folder: Path) -> str:
    """The gallery: finished assets with their pictures, then the failures, as one HTML page with relative links."""
    order = {"finished": 0, "failed": 1, "waiting": 2}
    items = "\n".join(_item(row, folder) for row in sorted(rows, key=lambda row: order[row.state]))
    counts = ", ".join(f"{sum(row.state == state for row in rows)} {state}" for state in order)
    title = f"dream3d: {len(rows)} assets"
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
        f"<style>{_STYLE}</style>\n<h1>{title}</h1><p class=sum>{counts}</p>\n<ul>\n{items}\n</ul></html>\n"
    )


def _item(row: Row, folder: Path) -> str:
    job, prompt = row.job, html.escape(row.job.prompt)
    settings = "".join(f", {html.escape(name)} {html.escape(value)}" for name, value in sorted(job.changes.items()))
    line = f"<b>{prompt}</b><br><small>seed {job.seed}{settings}</small>"
    if row.state != "finished":
        return f"<li class={row.state}><div>{line}<br><small>{html.escape(row.reason or row.state)}</small></div></li>"
    run = f"{RUNS}/{job.key}"
    links = [("mesh", job.mesh(folder).name), ("turntable", f"{run}/turntable.mp4"), ("run", f"{run}/run.json")]
    anchors = " · ".join(f'<a href="{quote(target)}">{name}</a>' for name, target in links)
    picture = f'<img src="{quote(run)}/preview.png" alt="four views of {prompt}" loading=lazy>'
    return f"<li>{picture}<div>{line}<br>{anchors}</div></li>"
