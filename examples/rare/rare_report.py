"""Cells of the evaluation to one table, and to two sheets: with labels, and for a reader who chooses blindly."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rare_cases import Case
from rare_cells import AUTO, JUDGES, TEXT, Cell, Results

from dream3d.evaluation.intervals import Interval, bootstrap_difference
from dream3d.files import write_json
from dream3d.images import Picture, write_png
from dream3d.retrieval.pictures import check_picture, square

TILE, LINE = 96, 14
"""Pixels along a picture of a sheet, and of a line of text."""
PARTS = ("alpha", "pictures", "views", "asset")
"""Of the time, in the order in which it is spent."""


@dataclass(frozen=True)
class Group:
    """All cells of one way to ask, of one prior."""

    domain: str
    kind: str
    prior: str
    arm: str

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is of it."""
        place = cell.place
        return (place.domain, place.kind, place.prior, place.arm) == (self.domain, self.kind, self.prior, self.arm)


def by_case(cells: Iterable[Cell], judge: str) -> dict[str, float]:
    """The mean similarity over seeds of every case."""
    found: dict[str, list[float]] = {}
    for cell in cells:
        found.setdefault(cell.place.case, []).append(cell.similarity[judge])
    return {case: statistics.fmean(values) for case, values in found.items()}


def gain(cells: Sequence[Cell], base: Sequence[Cell], judge: str) -> Interval | None:
    """The mean difference to others over the cases that both have, by a paired bootstrap over cases; None of none."""
    ours, theirs = by_case(cells, judge), by_case(base, judge)
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    pair = [[one[case] for case in shared] for one in (ours, theirs)]
    return bootstrap_difference(pair[0], pair[1], np.random.default_rng(0), paired=True)


def table(cells: Sequence[Cell], names: Mapping[str, str]) -> str:
    """The Markdown table of all cells; ``names`` of the :data:`JUDGES`."""
    heads = ["things", "by", "cases"]
    for judge in JUDGES:
        heads += [names[judge], "more than by text [95 %]"]
    heads += ["alpha", "seconds: " + " + ".join(PARTS)]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    groups = dict.fromkeys(Group(c.place.domain, c.place.kind, c.place.prior, c.place.arm) for c in cells)
    first = cells[0].place.prior if cells else ""
    for group in groups:
        own = [cell for cell in cells if group.holds(cell)]
        base = [cell for cell in cells if Group(group.domain, group.kind, first, TEXT.name).holds(cell)]
        what = group.arm if group.prior == first else f"{group.arm}, {group.prior}"
        row = [f"{group.domain}, {group.kind}", what, str(len(by_case(own, JUDGES[0])))]
        for judge in JUDGES:
            row.append(f"{statistics.fmean(by_case(own, judge).values()):.3f}")
            row.append("" if group.arm == TEXT.name else _said(gain(own, base, judge)))
        alphas = [cell.alpha for cell in own if cell.alpha is not None]
        row += [f"{statistics.fmean(alphas):.2f}" if alphas else "", _seconds(own)]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def table_of_things(cells: Sequence[Cell], names: Mapping[str, str]) -> str:
    """A Markdown table of every rare thing: views by text alone, and by pictures, of the first prior."""
    first = cells[0].place.prior if cells else ""
    groups = [Group("rare", "views", first, arm.name) for arm in (TEXT, AUTO)]
    columns = {
        f"{names[judge]}, {group.arm}": by_case(filter(group.holds, cells), judge)
        for judge in JUDGES
        for group in groups
    }
    lines = ["| thing | " + " | ".join(columns) + " |", "|" + " --- |" * (len(columns) + 1)]
    for thing in sorted(set.intersection(*map(set, columns.values()))):
        lines.append(f"| {thing} | " + " | ".join(f"{column[thing]:.3f}" for column in columns.values()) + " |")
    return "\n".join(lines) + "\n"


def _said(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def _seconds(cells: Sequence[Cell]) -> str:
    """The median of each part that there is."""
    parts = [[cell.seconds[part] for cell in cells if part in cell.seconds] for part in PARTS]
    return " + ".join(f"{statistics.median(part):.2f}" if part else "-" for part in parts)


def write_sheets(
    out: Path, cases: Sequence[Case], results: Results, cells: Sequence[Cell], background: Sequence[float]
) -> None:
    """``sheet.png``: of each case pictures, views by text, views by pictures, truth.

    ``blind.png`` has the first three, the middle ones in an order that ``blind.json`` tells.
    """
    rows, blind, answers = [], [], {}
    rng = np.random.default_rng(0)
    for number, case in enumerate(cases, start=1):
        strips = [_strip_of(results, cells, case, arm) for arm in (TEXT.name, AUTO.name)]
        if not all(strips):
            continue
        text, guided = (strip for strip in strips if strip)
        shown = _strip([Image.fromarray(square(check_picture(one.image).rgb, TILE)) for one in case.pictures[:4]])
        true = case.truth_over(background)[:4].movedim(1, -1).mul(255).round().byte().numpy()
        rows.append((case.name, [shown, text, guided, _strip([Image.fromarray(one) for one in true])]))
        turned = bool(rng.integers(2))
        blind.append((f"{number}. {case.name}", [shown, *((guided, text) if turned else (text, guided))]))
        first, second = (AUTO, TEXT) if turned else (TEXT, AUTO)
        answers[f"{number}. {case.name}"] = {"A": first.name, "B": second.name}
    if rows:
        write_png(out / "sheet.png", _page(rows, ("pictures", TEXT.name, AUTO.name, "the truth")))
        write_png(out / "blind.png", _page(blind, ("pictures", "A", "B")))
        write_json(out / "blind.json", answers)


def _strip_of(results: Results, cells: Sequence[Cell], case: Case, arm: str) -> Image.Image | None:
    """The views of a case's first cell of an arm."""
    own = (cell for cell in cells if cell.place.case == case.name and cell.place.arm == arm)
    cell = next((cell for cell in own if (cell.place.domain, cell.place.kind) == ("rare", "views")), None)
    if cell is None:
        return None
    views = results.views(cell.key)
    return views.resize((views.width * TILE // views.height, TILE), Image.Resampling.LANCZOS)


def _strip(tiles: Sequence[Image.Image]) -> Image.Image:
    strip = Image.new("RGB", (TILE * len(tiles), TILE), "white")
    for index, tile in enumerate(tiles):
        strip.paste(tile.resize((TILE, TILE), Image.Resampling.LANCZOS), (TILE * index, 0))
    return strip


def _page(rows: Sequence[tuple[str, Sequence[Image.Image]]], heads: Sequence[str]) -> Picture:
    """(H, W, 3): the strips of each row beside each other under the row's label, below the heads."""
    widths = [max(strips[index].width for _, strips in rows) + 8 for index in range(len(heads))]
    page = Image.new("RGB", (sum(widths), LINE + len(rows) * (TILE + LINE + 2)), "white")
    draw = ImageDraw.Draw(page)
    lefts = [sum(widths[:index]) for index in range(len(heads))]
    for left, head in zip(lefts, heads, strict=True):
        draw.text((left + 2, 1), head, fill=0)
    for number, (label, strips) in enumerate(rows):
        top = LINE + number * (TILE + LINE + 2)
        draw.text((2, top + 1), label, fill=0)
        for left, strip in zip(lefts, strips, strict=True):
            page.paste(strip, (left, top + LINE))
    return np.asarray(page)
