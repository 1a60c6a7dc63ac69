"""Webdataset tars: the members of one name, such as ``0001.jpg``, ``0001.txt`` and ``0001.json``, are one sample."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dream3d.errors import DatasetError
from dream3d.retrieval.pictures import MAX_BYTES
from dream3d.retrieval.readers.fields import CAPTION, MAX_SIDECAR, decode_json, decode_text, first_of, provenance
from dream3d.retrieval.readers.folder import ENDINGS
from dream3d.retrieval.readers.skipped import Skipped
from dream3d.retrieval.records import Picture, picture

TEXTS = (".txt", ".caption", ".cls_name")
MAX_MEMBERS = 16
"""Of one sample; the rest is ignored."""
Sample = dict[str, bytes]


def read_tar(file: Path, skipped: Skipped, part: tuple[int, int] = (0, 1)) -> Iterator[Picture]:
    """The samples of an uncompressed tar, in its order. Nothing is unpacked to the disk, and links are ignored.

    Where the file is damaged, what comes before is read and the rest counts as one that was skipped.
    Raises :class:`DatasetError` for a file that is no tar.
    """
    begun = False
    try:
        with tarfile.open(file, "r|", errorlevel=2) as tar:
            for number, (name, sample, reason) in enumerate(_samples(tar)):
                begun = True
                if number % part[1] != part[0]:
                    continue
                where = f"{file.name}, {name}"
                try:
                    if reason:
                        raise DatasetError(reason)
                    yield _picture(sample, where)
                except DatasetError as error:
                    skipped.add(where, error)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if not begun:
            raise DatasetError(f"{file} cannot be read as an uncompressed tar ({reason})") from error
        skipped.add(file.name, f"the rest of the tar cannot be read ({reason})")
    except OSError as error:
        raise DatasetError(f"{file} cannot be read ({error.strerror or error})") from error


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, Sample, str]]:
    """Name, members by ending in small letters, and what is wrong with it, of each sample."""
    name, sample, reason = "", Sample(), ""
    for member in tar:
        if not member.isreg():
            continue
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        if key != name:
            if sample or reason:
                yield name, sample, reason
            name, sample, reason = key, Sample(), ""
        ending = f".{ending.lower()}"
        limit = MAX_BYTES if ending in ENDINGS else MAX_SIDECAR
        if ending not in (*ENDINGS, *TEXTS, ".json") or len(sample) >= MAX_MEMBERS:
            continue
        if member.size > limit:
            reason = f"{base} has {member.size} bytes, over the limit of {limit}"
            continue
        content = tar.extractfile(member)
        sample[ending] = content.read() if content else b""
        if len(sample[ending]) != member.size:
            raise tarfile.ReadError("unexpected end of data")
    if sample or reason:
        yield name, sample, reason


def _picture(sample: Sample, where: str) -> Picture:
    image = next((sample[ending] for ending in ENDINGS if ending in sample), None)
    if image is None:
        raise DatasetError("no picture")
    row: dict[str, Any] = decode_json(sample[".json"], ".json") if ".json" in sample else {}
    texts = (decode_text(sample[ending], ending) for ending in TEXTS if ending in sample)
    caption = next(filter(None, texts), "") or first_of(row, CAPTION)
    return picture(image, caption, **provenance(row), where=where)
