"""Views of other systems as pictures: four squares beside each other in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.dataset.compositing import composite
from dream3d.dataset.decoding import read_rgba
from dream3d.errors import DatasetError
from dream3d.evaluation.suite.cases import VIEWS, Color
from dream3d.files import read_regular

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_BYTES = 2**26
MAX_PIXELS = 2**26


def read_sheet(path: Path, side: int, background: Color) -> Tensor:
    """(:data:`VIEWS`, 3, S, S) in [0, 1]: squares from left to right, transparent parts over a colour.

    S is the file's, or ``side`` if that is smaller. :class:`DatasetError` for anything else.
    """
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read ({error.strerror})") from error
    rgba = read_rgba(content, MAX_PIXELS)
    height, width = rgba.shape[:2]
    if width != VIEWS * height:
        raise DatasetError(f"{width} x {height} pixels are not {VIEWS} square views beside each other")
    pixels = np.stack(np.split(composite(rgba, np.array(background) * 255), VIEWS, axis=1))
    views = torch.from_numpy(pixels).movedim(-1, 1).float() / 255
    if height > side:
        views = F.interpolate(views, (side, side), mode="bilinear", antialias=True).clamp(0, 1)
    return views
