"""Pictures that an asset is to look like: given as files or found in a corpus, kept small, with whose work they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dream3d.dataset.decoding import read_rgba
from dream3d.errors import DatasetError, UsageError
from dream3d.files import read_regular
from dream3d.retrieval.pictures import MAX_BYTES, MAX_PIXELS, check_picture, on_color, square
from dream3d.retrieval.records import UNKNOWN, Found

MAX_REFERENCES = 16
"""Of one asset. Each adds tokens to every cross-attention; MV-RAG's results are best with 4."""


@dataclass(frozen=True)
class Reference:
    """A picture that an asset is to look like."""

    image: bytes
    """A picture file that can be decoded, no larger than a corpus keeps them."""
    attribution: Mapping[str, str]
    """For the asset's provenance: source, author, licence and what else is known."""

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.image).hexdigest()

    @property
    def suffix(self) -> str:
        """Ending of the file's name, by its first bytes."""
        known = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"}
        return next(suffix for mark, suffix in known.items() if self.image.startswith(mark))

    @property
    def record(self) -> dict[str, str]:
        """Plain data: the attribution and the digest."""
        return {**self.attribution, "sha256": self.sha256}


def read_images(paths: Sequence[Path]) -> tuple[list[Reference], list[str]]:
    """References from picture files, each once, and a sentence for each that cannot be used.

    Raises UsageError for a file that is not there, for too many, and if none can be used.
    """
    references: dict[str, Reference] = {}
    skipped = []
    for path in paths:
        if not os.path.isfile(path):
            raise UsageError(f"the picture {path} is not a file; name one that exists")
        try:
            checked = check_picture(read_regular(path, MAX_BYTES))
        except (DatasetError, OSError) as error:
            skipped.append(f"the picture {path}: {error.strerror if isinstance(error, OSError) else error}")
            continue
        one = Reference(checked.image, {"author": UNKNOWN, "licence": UNKNOWN, "source": f"given: {path.name}"[:300]})
        references.setdefault(one.sha256, one)
    if not references:
        raise UsageError(f"none of the pictures can be used: {'; '.join(skipped[:3])}")
    check_count(len(references))
    return list(references.values()), skipped


def references_of(found: Found) -> tuple[list[Reference], list[str]]:
    """References from what a search found, and a sentence for each picture that cannot be decoded."""
    references, skipped = [], []
    for one in found.results:
        try:
            references.append(Reference(check_picture(one.image).image, one.attribution))
        except DatasetError as error:
            skipped.append(f"the picture '{one.caption}' of the corpus: {error}")
    return references, skipped


def check_count(count: int) -> None:
    """Raises UsageError for more pictures than :data:`MAX_REFERENCES`."""
    if count > MAX_REFERENCES:
        raise UsageError(f"{count} pictures; the limit is {MAX_REFERENCES}, and four are mostly enough")


def squares(references: Sequence[Reference], side: int, padding: tuple[float, float, float]) -> Tensor:
    """(K, 3, side, side) in [0, 1]: each picture upright and as a whole, on a colour and padded with it.

    ``padding`` is sRGB in [0, 1]. Raises DatasetError for a picture that cannot be decoded.
    """
    red, green, blue = (round(255 * part) for part in padding)
    color = (red, green, blue)
    pixels = [square(on_color(read_rgba(one.image, MAX_PIXELS), color), side, color) for one in references]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
