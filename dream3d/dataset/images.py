"""Captioned images without cameras: what keeps a multi-view prior's knowledge of single images alive."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image, ImageOps

from dream3d.bounds import Between, Options, Seed
from dream3d.dataset.backgrounds import random_background
from dream3d.dataset.compositing import composite
from dream3d.dataset.decoding import read_rgba
from dream3d.dataset.records import MAX_TEXT, json_lines, text_field
from dream3d.dataset.shards import (
    MAX_SIDE,
    CaptionedImage,
    ObjectViews,
    image_members,
    read_objects,
    shard_name,
    shards,
    write_tar,
)
from dream3d.errors import DatasetError, UsageError
from dream3d.files import read_regular

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
MAX_BYTES = 64 * 2**20
"""Bytes of one image file or one metadata.jsonl."""
MAX_PIXELS = 64_000_000
MAX_CAPTION_BYTES = 64 * 1024


@dataclass(frozen=True)
class ImageOptions(Options):
    """How captioned images are made."""

    size: Annotated[int, Between(16, MAX_SIDE)] = 256
    """Pixels along a side."""
    per_shard: Annotated[int, Between(1, 1_000_000)] = 1000
    """Images in a shard."""
    seed: Seed = 0
    per_object: Annotated[int, Between(1, 10_000)] = 4
    """Images of one object, each of a random view; only for images of rendered objects."""


@dataclass
class Skipped:
    """Images that were left out; filled while they are read."""

    reasons: list[str] = field(default_factory=list)
    """One line each, with the file's name."""


def images_from_folder(folder: Path, size: int, skipped: Skipped) -> Iterator[CaptionedImage]:
    """The images of a folder and the folders in it, centre-cropped, (size, size, 3), in the order of their paths.

    A caption is the line of ``metadata.jsonl`` with the image's ``file_name`` (Hugging Face's imagefolder), else the
    text file of the same stem, else the words of the file name. Links that leave the folder are not followed. A
    image that cannot be used is added to ``skipped``. Raises :class:`UsageError` if there is no folder and
    :class:`DatasetError` for a damaged ``metadata.jsonl``.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give one with images")
    texts = _metadata(folder)
    root = folder.resolve()
    for index, path in enumerate(sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS)):
        name = path.relative_to(folder).as_posix()
        try:
            if not _stays(path, root):
                raise DatasetError("a link that leaves the folder")
            caption = texts.get(name) or _sidecar(path, root) or _words_of(path.stem)
            if not caption:
                raise DatasetError(f"no caption: no line in metadata.jsonl, no {path.stem}.txt, no words in its name")
            whole = _read_image(path)
        except DatasetError as error:
            skipped.reasons.append(f"{name}: {error}")
            continue
        square = ImageOps.fit(whole, (size, size), Image.Resampling.LANCZOS)
        yield CaptionedImage(f"image-{index:07d}", (caption,), np.asarray(square))


def images_from_objects(objects: Iterable[ObjectViews], options: ImageOptions) -> Iterator[CaptionedImage]:
    """Random views of rendered objects over random backgrounds, with the captions of the object.

    The same objects and options give the same images, whatever other objects there are.
    """
    for views in objects:
        record, size = views.record, (options.size, options.size)
        rng = np.random.default_rng([options.seed, *record.key.encode()])
        for number in range(options.per_object):
            view = views.rgba[rng.integers(views.rgba.shape[0]), rng.integers(views.rgba.shape[1])]
            filled = Image.fromarray(composite(view, random_background(view.shape[0], rng)))
            pixels = np.asarray(filled.resize(size, Image.Resampling.LANCZOS))
            key = f"{record.key[:70]}-{number:03d}"
            yield CaptionedImage(key, record.captions, pixels, record.licence, record.author)


def training_objects(folder: Path) -> Iterator[ObjectViews]:
    """The objects of a folder's training shards; held-out ones must not be learnt from as images either.

    Raises :class:`DatasetError` if there are none or one is damaged.
    """
    files = shards(folder, "train")
    if not files:
        raise DatasetError(f"{folder} holds no train-00000.tar; give a folder that 'dataset render' wrote")
    for path in files:
        yield from read_objects(path)


def write_image_shards(images: Iterable[CaptionedImage], out: Path, per_shard: int) -> int:
    """Write images as ``images-00000.tar`` and so on; how many images were written.

    Raises :class:`UsageError` if ``out`` holds image shards already: those of another run would be mixed in.
    """
    if shards(out, "images"):
        raise UsageError(f"{out} holds image shards already; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    source, count, number = iter(images), 0, 0
    while group := list(islice(source, per_shard)):
        write_tar(out / shard_name("images", number), (member for image in group for member in image_members(image)))
        count += len(group)
        number += 1
    return count


def _metadata(folder: Path) -> dict[str, str]:
    """Captions by file name from ``metadata.jsonl``; empty if there is none."""
    path = folder / "metadata.jsonl"
    if not path.is_file():
        return {}
    texts = {}
    for where, row in json_lines(path, MAX_BYTES):
        try:
            texts[text_field(row["file_name"])] = " ".join(text_field(row["text"]).split())
        except (KeyError, TypeError) as error:
            raise DatasetError(f'{where}: not {{"file_name": ..., "text": ...}} ({error})') from error
    return texts


def _sidecar(path: Path, root: Path) -> str:
    """The caption in the text file beside an image; empty if there is none."""
    text = path.with_suffix(".txt")
    if not text.is_file():
        return ""
    if not _stays(text, root):
        raise DatasetError(f"{text.name} is a link that leaves the folder")
    try:
        with text.open("rb") as file:
            return " ".join(file.read(MAX_CAPTION_BYTES).decode("utf-8").split())[:MAX_TEXT]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{text.name} cannot be read ({type(error).__name__})") from error


def _words_of(stem: str) -> str:
    """The words of a file name, without the numbers that only tell files apart: "red_chair-02" is "red chair"."""
    return " ".join(word for word in re.findall(r"[^\W_]+", stem.lower()) if not word.isdigit())


def _stays(path: Path, root: Path) -> bool:
    """Whether a path, its links followed, lies in the folder ``root``; a loop of links leads nowhere else."""
    return Path(os.path.realpath(path)).is_relative_to(root)


def _read_image(path: Path) -> Image.Image:
    """An image as upright RGB, transparent parts on white; :class:`DatasetError` with the reason if it cannot be."""
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror})") from error
    upright = Image.fromarray(read_rgba(content, MAX_PIXELS))
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright).convert("RGB")
