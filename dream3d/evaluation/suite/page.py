"""The table of an evaluation, for the terminal and for its page with pictures: one file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from dream3d.evaluation.intervals import Interval
from dream3d.evaluation.suite.store import MAX_PICTURED, Result
from dream3d.evaluation.suite.summary import FIGURES, Summary
from dream3d.images import enlarged, png_bytes, side_by_side
from dream3d.report.page import data_uri, html_page

PICTURE_SIDE = 96
_STYLE = """
main { max-width: 1300px; margin: 0 auto; padding: 1.6rem 1.2rem 3rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2.2rem 0 .7rem }
p { max-width: 75ch } .sub, small, .hint { color: var(--faint) }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top }
th:first-child, td:first-child { text-align: left } td small { display: block; white-space: nowrap }
.best { font-weight: 700 } .sure { color: var(--accent) }
.pictures th, .pictures td { text-align: left; padding-right: 1.2rem }
.pictures img { display: block; border-radius: 6px }
.note { border-left: 3px solid var(--second); padding: .1rem .7rem }
"""


def shown_figures(summaries: Sequence[Summary]) -> list[str]:
    """The figures that any subject has, in the order of the table."""
    return [key for key in FIGURES if any(key in one.figures for one in summaries)]


def cell(key: str, value: Interval | None) -> str:
    """A figure with its interval; empty if there is none."""
    if value is None:
        return ""
    digits = FIGURES[key].digits
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def table_of(summaries: Sequence[Summary]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of plain text: a row for each figure, a column for each subject."""
    headers = ["figure", *(one.name for one in summaries)]
    rows = [["prompts", *(str(one.prompts) for one in summaries)]]
    for key in shown_figures(summaries):
        arrow = {"more": " (more)", "less": " (less)"}.get(FIGURES[key].better, "")
        rows.append([FIGURES[key].title + arrow, *(cell(key, one.figures.get(key)) for one in summaries)])
    return headers, rows


def evaluation_page(title: str, lines: Sequence[str], notes: Sequence[str], summaries: Sequence[Summary]) -> str:
    """The whole page. ``lines`` say what was done, ``notes`` what a reader has to know; all text is plain."""
    said = "".join(f"<p class=sub>{escape(line)}</p>" for line in lines)
    warned = "".join(f"<p class=note>{escape(note)}</p>" for note in notes)
    meanings = "".join(
        f"<tr><td>{escape(FIGURES[key].title)}</td><td style='text-align:left'>{escape(FIGURES[key].meaning)}</td></tr>"
        for key in shown_figures(summaries)
    )
    body = (
        f"<main><h1>{escape(title)}</h1>{said}{warned}{_table(summaries)}"
        f"<h2>What the figures mean</h2><table>{meanings}</table>{_failures(summaries)}{_pictures(summaries)}</main>"
    )
    return html_page(title, _STYLE, body)


def _table(summaries: Sequence[Summary]) -> str:
    heads = "".join(f"<th>{escape(one.name)}</th>" for one in summaries)
    counts = "".join(f"<td>{one.prompts}</td>" for one in summaries)
    rows = [f"<tr><td>prompts</td>{counts}</tr>"]
    for key in shown_figures(summaries):
        figure = FIGURES[key]
        best = _best(key, summaries)
        cells = "".join(_cell(key, one, one.name == best) for one in summaries)
        hint = f"<small>{figure.better} is better</small>" if figure.better else ""
        rows.append(f"<tr><td>{escape(figure.title)}{hint}</td>{cells}</tr>")
    return (
        f'<h2>Figures</h2><div class="wide"><table><tr><th></th>{heads}</tr>{"".join(rows)}</table></div>'
        "<p class=hint>In brackets: 95 % intervals over prompts. In colour: the difference to the first column, on the "
        "prompts that both have, where its interval leaves out 0.</p>"
    )


def _best(key: str, summaries: Sequence[Summary]) -> str | None:
    better = FIGURES[key].better
    values: Mapping[str, float] = {one.name: one.figures[key].value for one in summaries if key in one.figures}
    if not better or len(values) < 2:
        return None
    return (max if better == "more" else min)(values, key=lambda name: values[name])


def _cell(key: str, summary: Summary, is_best: bool) -> str:
    value = summary.figures.get(key)
    if value is None:
        return "<td></td>"
    digits = FIGURES[key].digits
    text = f'<span class="{"best" if is_best else ""}">{value.value:.{digits}f}</span>'
    text += f"<small>[{value.low:.{digits}f}, {value.high:.{digits}f}]</small>"
    difference = summary.differences.get(key)
    if difference is not None:
        kind = "sure" if difference.excludes_zero else ""
        text += f'<small class="{kind}">{difference.value:+.{digits}f}</small>'
    return f"<td>{text}</td>"


def _failures(summaries: Sequence[Summary]) -> str:
    lines = [
        f"<li>{escape(summary.name)}, {escape(one.prompt)}: {escape(one.failure)}</li>"
        for summary in summaries
        for one in summary.results
        if one.failure
    ]
    return f"<h2>What could not be used</h2><ul>{''.join(lines[:MAX_PICTURED])}</ul>" if lines else ""


def _pictures(summaries: Sequence[Summary]) -> str:
    """A row for each prompt, with the first answer of every subject."""
    answers = [{one.prompt: one for one in reversed(summary.results) if len(one.views)} for summary in summaries]
    prompts = list(dict.fromkeys(one.prompt for summary in summaries for one in summary.results))
    pictured = [prompt for prompt in prompts if any(prompt in found for found in answers)]
    heads = "".join(f"<th>{escape(one.name)}</th>" for one in summaries)
    rows = []
    for prompt in pictured:
        cells = "".join(f"<td>{_strip(found[prompt]) if prompt in found else ''}</td>" for found in answers)
        rows.append(f"<tr><td>{escape(prompt)}</td>{cells}</tr>")
    more = (
        f"<p class=hint>The first {MAX_PICTURED} of {len(prompts)} prompts.</p>" if len(prompts) > MAX_PICTURED else ""
    )
    table = f'<div class="wide"><table class="pictures"><tr><th></th>{heads}</tr>{"".join(rows)}</table></div>'
    return f"<h2>What was judged</h2>{more}{table}"


def _strip(result: Result) -> str:
    pixels = np.ascontiguousarray(result.views.movedim(1, -1).numpy())
    strip = side_by_side(enlarged(pixels, PICTURE_SIDE))
    figures = f"text-image {result.figures['text_image']:.3f}, Janus {result.figures['janus']:.2f}"
    image = (
        f'<img height="{PICTURE_SIDE}" src="{data_uri("image/png", png_bytes(strip))}" alt="{escape(result.prompt)}">'
    )
    return f"{image}<small>{escape(figures)}</small>"
