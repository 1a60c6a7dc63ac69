"""Tables in markdown, with bars that can be compared at a glance."""

from __future__ import annotations

import math
from collections.abc import Sequence

EIGHTHS = " ▏▎▍▌▋▊▉█"


def bar(share: float, width: int = 10) -> str:
    """``share`` in 0..1 as a bar of up to ``width`` characters, to an eighth of one; empty for what is not finite."""
    if not math.isfinite(share):
        return ""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    return EIGHTHS[8] * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")


def number(value: float, digits: int = 3) -> str:
    """A number with so many digits after the point; a dash for what is not finite."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def with_bar(value: float, top: float = 1.0, digits: int = 3) -> str:
    """A number and its bar, full at ``top``."""
    return f"{number(value, digits)} {bar(value / top) if top else ''}".rstrip()


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, ending with a line break; ``|`` and line breaks in cells are made harmless.

    Raises ValueError for a row of another length.
    """
    for row in rows:
        if len(row) != len(headers):
            raise ValueError(f"a row of {len(row)} cells under {len(headers)} headers")
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
