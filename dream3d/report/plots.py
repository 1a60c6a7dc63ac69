"""Plots as inline SVG, in the colours of the page that they are on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 260
"""Of a plot, in its own units; a page scales it."""
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 14, 46
"""Margins around the axes, for their numbers."""
POINTS = 400
"""Of a line at most; longer series are drawn by the means of equal parts."""


@dataclass(frozen=True)
class Series:
    """A line."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    """As many as ``x``; what is not finite is left out."""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Up to ``count`` + 1 round numbers (1, 2, 2.5 or 5 times a power of ten apart) between two finite ones."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def line_plot(title: str, x_label: str, series: Sequence[Series], *, band: Sequence[Series] = ()) -> str:
    """An ``<svg>`` of lines over common axes, or "" if there is nothing to draw.

    ``band`` has two series with the same ``x``, the lower and the upper border of a filled area behind the lines.
    All text is escaped. The page gives the classes ``line0``, ``line1``, ``band``, ``grid`` and ``tick`` their looks.
    """
    lines = [_reduced(one) for one in (*band, *series)]
    points = [point for line in lines for point in line]
    if not points:
        return ""
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(y for _, y in points), max(y for _, y in points)
    y_low = 0.0 if 0 < y_low < 0.5 * y_high else y_low  # most of these numbers are shares of something
    x_span, y_span = (x_high - x_low) or 1.0, (y_high - y_low) or 1.0

    def place(point: tuple[float, float]) -> str:
        x = LEFT + (point[0] - x_low) / x_span * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (point[1] - y_low) / y_span * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>']
    for value in ticks(y_low, y_low + y_span, 4):
        y = place((x_low, value)).split(",")[1]
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    for value in ticks(x_low, x_low + x_span):
        x = place((value, y_low)).split(",")[0]
        parts.append(f'<text class="tick" x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:.6g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 7}" text-anchor="middle">{escape(x_label)}</text>')
    if band:
        around = [*lines[0], *reversed(lines[1])]
        parts.append(f'<polygon class="band" points="{" ".join(map(place, around))}"/>')
    for index, line in enumerate(lines[len(band) :]):
        parts.append(f'<polyline class="line{index}" points="{" ".join(map(place, line))}"/>')
    return "".join([*parts, "</svg>"])


def _reduced(series: Series) -> list[tuple[float, float]]:
    """The finite points of a series, or the means of at most :data:`POINTS` parts of them."""
    points = [(x, y) for x, y in zip(series.x, series.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if len(points) <= POINTS:
        return points
    size = -(-len(points) // POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
