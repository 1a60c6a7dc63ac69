"""A contact sheet of what a search found: each picture as a whole, over its caption, similarity and attribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from dream3d.errors import DatasetError
from dream3d.images import Picture
from dream3d.retrieval.pictures import check_picture, square
from dream3d.retrieval.records import UNKNOWN, Retrieved

TILE = 192
LINE = 13
"""Pixels of a line of text."""
CHARACTERS = 31
"""Of a line under a picture."""
MOST_COLUMNS = 6


def contact_sheet(results: Sequence[Retrieved]) -> Picture:
    """(H, W, 3) sRGB; at least one result. A picture that cannot be decoded is a grey tile."""
    columns = min(MOST_COLUMNS, len(results))
    width, height = TILE + 8, TILE + 3 * LINE + 10
    page = Image.new("RGB", (columns * width, -(-len(results) // columns) * height), "white")
    draw = ImageDraw.Draw(page)
    for index, one in enumerate(results):
        x, y = index % columns * width + 4, index // columns * height + 4
        page.paste(Image.fromarray(_tile(one.image)), (x, y))
        lines = (
            f"{index + 1}. {one.caption}",
            f"similarity {one.similarity:.2f}",
            f"{one.licence or UNKNOWN}: {one.author or UNKNOWN}",
        )
        for number, line in enumerate(lines):
            plain = line.encode("latin-1", errors="replace").decode("latin-1")  # what Pillow's own font can draw
            draw.text((x, y + TILE + 2 + number * LINE), shortened(plain, CHARACTERS), fill=0)
    return np.asarray(page)


def shortened(text: str, limit: int) -> str:
    """Text of at most ``limit`` characters; the end of a longer one is three points."""
    return text if len(text) <= limit else f"{text[: limit - 3].rstrip()}..."


def _tile(image: bytes) -> Picture:
    try:
        return square(check_picture(image).rgb, TILE)
    except DatasetError:
        return np.full((TILE, TILE, 3), 160, np.uint8)
