"""The photos of a folder as a prior is shown them, and what is to be said about those that it is not shown."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream3d.dataset.decoding import FORMATS, read_rgba
from dream3d.errors import DatasetError, UsageError, shown
from dream3d.files import read_regular
from dream3d.images import Picture
from dream3d.personalise.subject import Found, Matting, Rgba, square_subject
from dream3d.retrieval.pictures import MAX_BYTES, MAX_PIXELS

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".heic", ".heif")
HEIC = (".heic", ".heif")
MOST_PHOTOS = 100
"""Files in a folder; three to ten are meant, and hundreds are most likely the wrong folder."""
FEW = 3
"""Photos below which a thing is known from too few sides."""
LOOK = 32
"""Pixels a side at which two photos are compared: what compression adds is averaged away."""
SAME = 5.0
"""Of 255: mean difference of colours around the subject below which two photos are one. The same photo again, as a poor
small JPEG, has 1.4 to 3.2, another view of a thing 7.4 and more (five renders of each of five things)."""
WORK_PIXELS = 1024
"""Along the longer side of a photo that is worked on; priors see 64 or 256."""


@dataclass(frozen=True)
class Photo:
    """One photo as the prior sees it."""

    name: str
    """Of its file."""
    rgb: NDArray[np.uint8]
    """(S, S, 3)."""
    found: Found


@dataclass(frozen=True)
class PhotoSet:
    """The photos of a folder that are used, by name, and a line about each thing that the user should know."""

    photos: tuple[Photo, ...]
    notes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the pictures as they are shown."""
        return hashlib.sha256(b"".join(photo.rgb.tobytes() for photo in self.photos)).hexdigest()

    @property
    def pictures(self) -> Picture:
        """(N, S, S, 3)."""
        return np.stack([photo.rgb for photo in self.photos])


def picture_files(folder: Path) -> list[Path]:
    """The picture files of a folder, by name. Raises UsageError for no folder, no pictures, and too many."""
    if not folder.is_dir():
        raise UsageError(f"{shown(str(folder))} is no folder; give a folder with three to ten photos of one thing")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    files = [path for path in files if not path.name.startswith(".")]
    if not files:
        known = ", ".join(ending[1:] for ending in ENDINGS)
        raise UsageError(f"{folder} holds no pictures; put three to ten photos of one thing there ({known})")
    if len(files) > MOST_PHOTOS:
        raise UsageError(
            f"{folder} holds {len(files)} pictures, over the limit of {MOST_PHOTOS}; "
            "choose three to ten that show one thing from several sides"
        )
    return files


def read_photos(
    folder: Path, side: int, background: tuple[float, float, float], matting: Matting | None = None
) -> PhotoSet:
    """The photos of a folder, each in a square of ``side`` pixels with its subject on ``background`` where possible.

    Photos that cannot be read, are much smaller than ``side`` or are nearly the same as an earlier one are left out
    and named in the notes. ``matting`` cuts subjects out of busy backgrounds. Raises UsageError as
    :func:`picture_files`, and if none is left.
    """
    files = picture_files(folder)
    photos: list[Photo] = []
    notes: list[str] = []
    used = dict[str, Rgba]()
    for path in files:
        try:
            rgba = read_photo(path)
            _check_size(rgba, side)
        except (DatasetError, OSError) as error:
            notes.append(f"{path.name} is left out: {error}")
            continue
        cutout = square_subject(rgba, side, background, matting)
        twin = next((name for name, other in used.items() if nearly_same(rgba, other, cutout.square)), None)
        if twin is not None:
            notes.append(f"{path.name} is left out: it shows nearly the same as {twin}")
            continue
        if min(rgba.shape[:2]) < side:
            notes.append(f"{path.name} has {rgba.shape[1]} x {rgba.shape[0]} pixels and is enlarged to {side}")
        photos.append(Photo(path.name, cutout.rgb, cutout.found))
        used[path.name] = rgba
    if not photos:
        raise UsageError(f"none of the {len(files)} pictures in {folder} can be used; {notes[0]}")
    return PhotoSet(tuple(photos), (*notes, *_remarks(photos)))


def nearly_same(one: Rgba, other: Rgba, square: tuple[float, float, float, float]) -> bool:
    """Whether two pictures of any sizes are one photo, by what is in the same square of both; see :class:`Cutout`."""
    looks = []
    left, top, right, bottom = (min(1.0, max(0.0, share)) for share in square)
    for rgba in (one, other):
        height, width = rgba.shape[:2]
        box = (left * width, top * height, right * width, bottom * height)
        small = Image.fromarray(rgba).convert("RGB").resize((LOOK, LOOK), Image.Resampling.BOX, box)
        looks.append(np.asarray(small, np.float32))
    return bool(np.abs(looks[0] - looks[1]).mean() < SAME)


def _check_size(rgba: Rgba, side: int) -> None:
    height, width = rgba.shape[:2]
    if min(height, width) < side // 2:
        raise DatasetError(f"{width} x {height} pixels are too few; the prior sees {side} x {side}")


def _remarks(photos: Sequence[Photo]) -> list[str]:
    """What is to be said of all photos together."""
    notes = []
    whole = [photo.name for photo in photos if photo.found == "whole picture"]
    if whole:
        notes.append(
            f"no plain background in {', '.join(whole)}: the middle is used as it is; what is behind is learnt too "
            "(--matting cuts it out)"
        )
    if len(photos) == 1:
        notes.append("there is one photo: the other sides will be made up; three to ten from several sides are better")
    elif len(photos) < FEW:
        notes.append(f"there are {len(photos)} photos; three to ten from several sides are better")
    return notes


def read_photo(path: Path) -> Rgba:
    """A photo, upright, of at most :data:`WORK_PIXELS` along its longer side.

    Raises DatasetError for what cannot be decoded, OSError for what cannot be read.
    """
    formats: tuple[str, ...] = FORMATS
    if path.suffix.lower() in HEIC:
        _add_heif()
        formats = ("HEIF",)
    rgba = read_rgba(read_regular(path, MAX_BYTES), MAX_PIXELS, formats)
    if max(rgba.shape[:2]) > WORK_PIXELS:
        image = Image.fromarray(rgba)
        image.thumbnail((WORK_PIXELS, WORK_PIXELS), Image.Resampling.BOX)
        rgba = np.asarray(image)
    return rgba


def _add_heif() -> None:
    """Let Pillow read HEIC by the plugin; DatasetError without it."""
    if importlib.util.find_spec("pillow_heif") is None:
        raise DatasetError("HEIC needs a plugin: pip install pillow-heif, or save the photo as JPEG")
    from pillow_heif import register_heif_opener

    register_heif_opener()
