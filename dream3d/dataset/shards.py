"""Shards on the disk: webdataset tar files of PNG and json, which other tools read too.

A multi-view shard ``{split}-{number:05d}.tar`` holds, for each object, ``{key}.json`` (:class:`ObjectRecord`) and
``{key}.{pass:02d}-{view:02d}.png`` (RGBA, straight alpha), optionally with a ``.depth.png`` and a ``.normal.png``
of that name (see ``dream3d.dataset.rendering.scene``). An image shard ``images-{number:05d}.tar`` holds ``{key}.json``
(captions, licence, author) and ``{key}.png`` (RGB).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream3d.dataset.decoding import read_rgba
from dream3d.dataset.records import KEY, ObjectRecord, Split, object_from_json, text_field, texts
from dream3d.errors import DatasetError
from dream3d.files import json_table, write_atomically

MAX_MEMBER_BYTES = 64 * 2**20
MAX_SIDE = 2048
"""Pixels along a side of an image in a shard."""
MAX_OBJECT_PIXELS = 2**29
"""Of all images of an object: twice 32 views of that size, twice over."""


@dataclass(frozen=True)
class ObjectViews:
    """One object's record and images."""

    record: ObjectRecord
    rgba: NDArray[np.uint8]
    """(passes, views, S, S, 4), straight alpha, sRGB."""


@dataclass(frozen=True)
class CaptionedImage:
    """An image for the image mode: no camera."""

    key: str
    captions: tuple[str, ...]
    rgb: NDArray[np.uint8]
    """(S, S, 3), sRGB."""
    licence: str = ""
    author: str = ""


def view_member(key: str, number: int, view: int, kind: str = "") -> str:
    """Name inside a shard of one image: pass ``number``, view ``view``; ``kind`` is "", "depth" or "normal"."""
    return f"{key}.{number:02d}-{view:02d}.{kind + '.' if kind else ''}png"


def shard_name(split: Split | str, number: int) -> str:
    """File name of a shard."""
    return f"{split}-{number:05d}.tar"


def png_bytes(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """A PNG file of (H, W), (H, W, 3) or (H, W, 4) pixels; quick compression, since shards are many small images."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar file of named contents, whole or not at all; the same contents give the same bytes."""

    def write(temporary: Path) -> None:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

    write_atomically(path, write)


def object_members(views: ObjectViews) -> Iterator[tuple[str, bytes]]:
    """The members of a shard that hold one object."""
    key = views.record.key
    yield f"{key}.json", views.record.to_json().encode()
    for p, group in enumerate(views.rgba):
        for v, image in enumerate(group):
            yield view_member(key, p, v), png_bytes(image)


def image_members(image: CaptionedImage) -> Iterator[tuple[str, bytes]]:
    """The members of an image shard that hold one image."""
    facts = {"captions": image.captions, "licence": image.licence, "author": image.author}
    yield f"{image.key}.json", json.dumps(facts, ensure_ascii=False).encode()
    yield f"{image.key}.png", png_bytes(image.rgb)


def shards(folder: Path, split: Split | str) -> list[Path]:
    """The shards of one split in a folder, in order."""
    return sorted(path for path in folder.glob(f"{split}-[0-9][0-9][0-9][0-9][0-9].tar") if path.is_file())


def read_objects(path: Path) -> Iterator[ObjectViews]:
    """The objects of a multi-view shard. Raises :class:`DatasetError` for what is damaged or missing in it."""
    for key, members in _samples(path):
        where = f"{path.name}: {key}"
        if ".json" not in members:
            raise DatasetError(f"{where} has no json; the shard is incomplete, render it again")
        record = object_from_json(members[".json"], where)
        groups = []
        for p, orbit in enumerate(record.passes):
            names = [view_member("", p, v) for v in range(len(orbit.azimuths_deg))]
            missing = [name for name in names if name not in members]
            if missing:
                raise DatasetError(f"{where}{missing[0]} is missing; the shard is incomplete, render it again")
            groups.append([decode_image(members[name], "RGBA", where) for name in names])
            if sum(image[..., 0].size for group in groups for image in group) > MAX_OBJECT_PIXELS:
                raise DatasetError(f"{where}: its images have more than {MAX_OBJECT_PIXELS} pixels")
        if len({image.shape for group in groups for image in group}) > 1 or len({len(g) for g in groups}) > 1:
            raise DatasetError(f"{where}: images of several sizes, or passes of several lengths")
        yield ObjectViews(record, np.array(groups))


def read_images(path: Path) -> Iterator[CaptionedImage]:
    """The images of an image shard. Raises :class:`DatasetError` for what is damaged or missing in it."""
    for key, members in _samples(path):
        where = f"{path.name}: {key}"
        if ".json" not in members or ".png" not in members:
            raise DatasetError(f"{where} lacks its json or png; the shard is incomplete, make it again")
        facts = json_table(members[".json"], where, DatasetError)
        try:
            captions = texts(facts["captions"])
            licence, author = text_field(facts.get("licence", "")), text_field(facts.get("author", ""))
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{where}: {error}") from error
        yield CaptionedImage(key, captions, decode_image(members[".png"], "RGB", where), licence, author)


def decode_image(content: bytes, mode: str, where: str) -> NDArray[np.uint8]:
    """Pixels of a PNG, (H, W, 4) or without its alpha (H, W, 3); :class:`DatasetError` if it cannot be used.

    ``mode`` is "RGBA" or "RGB".
    """
    try:
        pixels = read_rgba(content, MAX_SIDE**2, ("PNG",))
    except DatasetError as error:
        raise DatasetError(f"{where}: an image {error}") from error
    if max(pixels.shape) > MAX_SIDE:
        raise DatasetError(f"{where}: an image of {pixels.shape[1]} x {pixels.shape[0]} pixels")
    return np.ascontiguousarray(pixels[..., : len(mode)])


def _samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key, and contents by what follows it in the member's name; members of one key stand together."""
    current, members = "", dict[str, bytes]()
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                key, dot, rest = info.name.partition(".")
                if not info.isreg() or not KEY.fullmatch(key) or info.size > MAX_MEMBER_BYTES:
                    raise DatasetError(f"{path.name}: member {info.name[:90]!r} is not one of a data shard")
                file = tar.extractfile(info)
                assert file is not None  # a regular file has content
                if key != current and members:
                    yield current, members
                    members = {}
                current, members[dot + rest] = key, file.read()
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is damaged or not a tar file ({error}); make it again") from error
    if members:
        yield current, members
