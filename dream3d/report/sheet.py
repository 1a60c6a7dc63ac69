"""Contact sheets: rows of views, each under its label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from dream3d.images import Picture, side_by_side, to_uint8

LABEL = 13
"""Pixels of a line of text."""


def labelled_sheet(rows: Sequence[tuple[str, Tensor]], columns: int = 3) -> Picture:
    """(H, W, 3) sRGB: (V, 3, S, S) views in [0, 1] beside each other under their label, in ``columns`` of such rows."""
    strips = [Image.fromarray(side_by_side(to_uint8(views.movedim(1, -1)))) for _, views in rows]
    width, height = max(strip.width for strip in strips) + 4, strips[0].height + LABEL + 1
    page = Image.new("RGB", (columns * width, -(-len(strips) // columns) * height), "white")
    for index, ((label, _), strip) in enumerate(zip(rows, strips, strict=True)):
        x, y = index % columns * width, index // columns * height
        ImageDraw.Draw(page).text((x + 2, y + 1), label, fill=0)
        page.paste(strip, (x, y + LABEL))
    return np.asarray(page)
