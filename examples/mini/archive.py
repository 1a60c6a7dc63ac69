"""Rendered data in one small file, for a machine that can neither download nor render.

python archive.py pack data.zip games=5 things=3 images/emoji=2 --captions 4
python archive.py unpack data.zip data/

Packing keeps the first passes of every object (of images: the first copies), the images lossy (WebP), some
captions, and the token states of all captions in eight bits. Unpacking writes shards again, and "captions.pt": a dict
of "captions" (a list, the empty one first) and "states" (captions, tokens, width; half precision).
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dream3d.dataset.images import write_image_shards
from dream3d.dataset.records import SPLITS, object_from_json
from dream3d.dataset.shards import (
    CaptionedImage,
    ObjectViews,
    object_members,
    read_images,
    read_objects,
    shard_name,
    shards,
    write_tar,
)
from dream3d.prior.text import PromptEncoder
from dream3d.weights.loading import find_folder

QUALITY, ALPHA_QUALITY = 50, 40
"""Of WebP: 1.3 of 255 steps of mean error over the prior's background, in 560 bytes a view."""
PER_SHARD = 64
STEPS = 127


def webp(pixels: NDArray[np.uint8]) -> bytes:
    """A lossy WebP of (H, W, 3 or 4) pixels."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=QUALITY, alpha_quality=ALPHA_QUALITY, method=4)
    return out.getvalue()


def sheet_of(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Views (passes, views, S, S, 4) as one image, a pass a row."""
    passes, views, size = rgba.shape[:3]
    return rgba.transpose(0, 2, 1, 3, 4).reshape(passes * size, views * size, 4)


def views_of(sheet: NDArray[np.uint8], passes: int, views: int) -> NDArray[np.uint8]:
    """The views that :func:`sheet_of` laid out; colour is 0 where alpha is."""
    size = sheet.shape[0] // passes
    rgba = sheet.reshape(passes, size, views, size, 4).transpose(0, 2, 1, 3, 4).copy()
    rgba[rgba[..., 3] == 0] = 0
    return rgba


def coded(states: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Token states (N, width) in eight bits, and the step of each token (N,)."""
    steps = (np.abs(states).max(-1) / STEPS).astype(np.float16)
    return np.round(states / np.maximum(steps.astype(np.float32), 1e-7)[:, None]).clip(-128, 127).astype(np.int8), steps


def some_captions(captions: Sequence[str], count: int) -> tuple[str, ...]:
    """``count`` of an object's captions, from the first to the last: names, then colours; phrases with an article."""
    whole = [text for text in captions if text.startswith(("a ", "an "))] or list(captions)
    picked = np.linspace(0, len(whole) - 1, min(count, len(whole))).round().astype(int)
    return tuple(whole[i] for i in picked)


def pack(out: Path, parts: Sequence[tuple[Path, int]], captions: int, prior: str) -> list[str]:
    """Write the archive; its captions."""
    texts = dict.fromkeys([""])
    with zipfile.ZipFile(out, "w") as archive:
        for number, (folder, keep) in enumerate(parts):
            rows = []
            for row, name, content in _packed(folder, keep, captions):
                archive.writestr(f"{number}/{name}.webp", content)
                rows.append(row)
                texts |= dict.fromkeys(row["captions"])
            index = json.dumps({"folder": folder.name, "rows": rows}, ensure_ascii=False)
            archive.writestr(f"{number}/index.json", index, zipfile.ZIP_DEFLATED)
        place = find_folder(prior)
        length = int(json.loads((place / "prior.json").read_text(encoding="utf-8"))["text_tokens"])
        states = PromptEncoder(place, length).encode(list(texts), torch.device("cpu")).numpy()
        filled = np.abs(states).max(-1) > 0  # padded tokens are 0
        codes, steps = coded(states[filled])
        arrays = io.BytesIO()
        np.savez_compressed(arrays, codes=codes, steps=steps, filled=filled)
        archive.writestr("states.npz", arrays.getvalue())
        archive.writestr("captions.json", json.dumps(list(texts), ensure_ascii=False), zipfile.ZIP_DEFLATED)
    return list(texts)


def unpack(file: Path, out: Path) -> None:
    """Write the shards of an archive, each data set into a folder of its name, and ``captions.pt``."""
    with zipfile.ZipFile(file) as archive:
        for index in (name for name in archive.namelist() if name.endswith("/index.json")):
            part, prefix = json.loads(archive.read(index)), index.removesuffix("index.json")
            folder, pixels = out / part["folder"], [_pixels(archive, f"{prefix}{r['key']}.webp") for r in part["rows"]]
            if part["rows"] and "passes" not in part["rows"][0]:
                images = (CaptionedImage(**r, rgb=p) for r, p in zip(part["rows"], pixels, strict=True))
                write_image_shards(images, folder, 1000)
                continue
            objects = [_object(row, sheet) for row, sheet in zip(part["rows"], pixels, strict=True)]
            for split in SPLITS:
                some = [one for one in objects if one.record.split == split]
                for start in range(0, len(some), PER_SHARD):
                    folder.mkdir(parents=True, exist_ok=True)
                    members = (m for one in some[start : start + PER_SHARD] for m in object_members(one))
                    write_tar(folder / shard_name(split, start // PER_SHARD), members)
        with np.load(io.BytesIO(archive.read("states.npz")), allow_pickle=False) as arrays:
            filled = arrays["filled"]
            states = np.zeros((*filled.shape, arrays["codes"].shape[-1]), np.float16)
            states[filled] = arrays["codes"] * arrays["steps"].astype(np.float32)[:, None]
        captions = json.loads(archive.read("captions.json"))
        torch.save({"captions": captions, "states": torch.from_numpy(states)}, out / "captions.pt")


def _packed(folder: Path, keep: int, captions: int) -> Iterator[tuple[dict[str, Any], str, bytes]]:
    """Row, key and WebP of all objects and images of a folder."""
    for image in _first_copies(_images(folder), keep):
        row = {name: getattr(image, name) for name in ("key", "licence", "author")}
        yield row | {"captions": some_captions(image.captions, captions)}, image.key, webp(image.rgb)
    for split in SPLITS:
        for path in shards(folder, split):
            for views in read_objects(path):
                rgba, record = views.rgba[:keep], views.record
                texts = some_captions(record.captions, captions)
                kept = dataclasses.replace(record, passes=record.passes[:keep], captions=texts)
                yield json.loads(kept.to_json()), record.key, webp(sheet_of(rgba))


def _images(folder: Path) -> Iterator[CaptionedImage]:
    """The images of a folder's image shards."""
    for path in shards(folder, "images"):
        yield from read_images(path)


def _first_copies(images: Iterable[CaptionedImage], keep: int) -> Iterator[CaptionedImage]:
    seen: dict[tuple[str, ...], int] = {}
    for image in images:
        seen[image.captions] = seen.get(image.captions, 0) + 1
        if seen[image.captions] <= keep:
            yield image


def _pixels(archive: zipfile.ZipFile, name: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(archive.read(name)), formats=("WEBP",)) as image:
        return np.asarray(image)


def _object(row: dict[str, Any], sheet: NDArray[np.uint8]) -> ObjectViews:
    record = object_from_json(json.dumps(row), str(row["key"]))
    if sheet.shape[-1] == 3:  # a WebP without a transparent pixel
        sheet = np.concatenate([sheet, np.full_like(sheet[..., :1], 255)], -1)
    return ObjectViews(record, views_of(sheet, len(record.passes), len(record.passes[0].azimuths_deg)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pack")
    one.add_argument("archive", type=Path)
    one.add_argument("parts", nargs="+", metavar="FOLDER=PASSES")
    one.add_argument("--captions", type=int, default=4)
    one.add_argument("--prior", default="mini")
    two = commands.add_parser("unpack")
    two.add_argument("archive", type=Path)
    two.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "unpack":
        unpack(arguments.archive, arguments.out)
        return
    parts = [(Path(folder), int(number)) for folder, _, number in (part.rpartition("=") for part in arguments.parts)]
    captions = pack(arguments.archive, parts, arguments.captions, arguments.prior)
    print(f"{arguments.archive}: {arguments.archive.stat().st_size / 1e6:.1f} MB, {len(captions)} captions")


if __name__ == "__main__":
    main()
