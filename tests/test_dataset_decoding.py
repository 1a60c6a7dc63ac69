"""Images of every legal kind, with pixel values worked out by hand, and files that only claim to be one."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_samples import record
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import one_line
from PIL import Image, ImageCms

from dream3d.dataset.assets.sources import read_manifest, selected
from dream3d.dataset.decoding import MAX_SCANS, read_rgba
from dream3d.dataset.images import Skipped, images_from_folder
from dream3d.dataset.records import object_from_json
from dream3d.dataset.shards import image_members
from dream3d.errors import Dream3DError

LIMIT = 10**6


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], depth: int, kind: int, rows: list[bytes], **more: bytes) -> bytes:
    """A PNG of bare rows; ``kind`` is its colour type (0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA)."""
    head = chunk(b"IHDR", struct.pack(">2I5B", *size, depth, kind, 0, 0, 0))
    extra = b"".join(chunk(name.encode(), data) for name, data in more.items())
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + extra + data + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def grey(*values: int) -> list[list[int]]:
    return [[value, value, value, 255] for value in values]


PALETTE = bytes([1, 2, 3, 4, 5, 6, 7, 8, 9])
ROWS: dict[str, tuple[bytes, list[list[int]]]] = {
    # 16 bits: 257 steps of 16 bits are one of 8; 32896 = 128 * 257, 385 is nearer to 257 than to 514, 386 is not.
    "grey 16": (png((5, 1), 16, 0, [words(0, 385, 386, 32896, 65535)]), grey(0, 1, 2, 128, 255)),
    "grey 16 with a key": (
        png((3, 1), 16, 0, [words(0, 32896, 32897)], tRNS=words(32896)),
        [[0, 0, 0, 255], [128, 128, 128, 0], [128, 128, 128, 255]],
    ),
    "grey 1": (png((3, 1), 1, 0, [bytes([0b01000000])]), grey(0, 255, 0)),
    "grey 1 with a key": (png((2, 1), 1, 0, [bytes([0b01000000])], tRNS=words(0)), [[0, 0, 0, 0], [255] * 4]),
    "grey 2": (png((4, 1), 2, 0, [bytes([0b00011011])]), grey(0, 85, 170, 255)),
    "grey 2 with a key": (
        png((2, 1), 2, 0, [bytes([0b01100000])], tRNS=words(2)),
        [[85, 85, 85, 255], [170, 170, 170, 0]],
    ),
    "grey 4 with a key": (png((2, 1), 4, 0, [bytes([0x3A])], tRNS=words(10)), [[51, 51, 51, 255], [170, 170, 170, 0]]),
    "grey 8 with a key": (png((2, 1), 8, 0, [bytes([3, 200])], tRNS=words(200)), [[3, 3, 3, 255], [200, 200, 200, 0]]),
    "rgb 8 with a key": (
        png((2, 1), 8, 2, [bytes(range(1, 7))], tRNS=words(4, 5, 6)),
        [[1, 2, 3, 255], [4, 5, 6, 0]],
    ),
    "rgb 16": (png((2, 1), 16, 2, [words(0, 257, 65535, 32896, 514, 0)]), [[0, 1, 255, 255], [128, 2, 0, 255]]),
    "rgb 16 with a key": (
        png((2, 1), 16, 2, [words(0, 257, 65535, 32896, 514, 0)], tRNS=words(32896, 514, 0)),
        [[0, 1, 255, 255], [128, 2, 0, 0]],
    ),
    "grey and alpha": (png((2, 1), 8, 4, [bytes([10, 20, 30, 40])]), [[10, 10, 10, 20], [30, 30, 30, 40]]),
    "grey and alpha 16": (png((1, 1), 16, 4, [words(2570, 32896)]), [[10, 10, 10, 128]]),
    "rgba 16": (png((1, 1), 16, 6, [words(257, 514, 65535, 32896)]), [[1, 2, 255, 128]]),
    "palette with transparency": (
        png((3, 1), 8, 3, [bytes([0, 1, 2])], PLTE=PALETTE, tRNS=bytes([255, 128])),
        [[1, 2, 3, 255], [4, 5, 6, 128], [7, 8, 9, 255]],
    ),
    "palette of 1 bit": (
        png((2, 1), 1, 3, [bytes([0b01000000])], PLTE=PALETTE[:6], tRNS=bytes([0])),
        [[1, 2, 3, 0], [4, 5, 6, 255]],
    ),
    # Cyan 0, magenta 255, yellow 255, black 0 is red.
    "cmyk": (saved(Image.new("CMYK", (8, 1), (0, 255, 255, 0)), "JPEG", quality=100), [[255, 0, 0, 255]] * 8),
    "grey jpeg": (saved(Image.new("L", (8, 1), 77), "JPEG", quality=100), grey(*[77] * 8)),
    "bmp": (saved(Image.new("RGB", (1, 1), (1, 2, 3)), "BMP"), [[1, 2, 3, 255]]),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_every_depth_and_mode_has_the_values_that_it_means(name: str) -> None:
    content, expected = ROWS[name]
    assert read_rgba(content, LIMIT)[0].tolist() == expected


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ((255, 0, 0), (0, 255, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(content)) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert read_rgba(content, LIMIT).reshape(-1, 4).tolist() == [[255, 0, 0, 255]] * 16


UPRIGHT = {1: [[1, 2], [3, 4]], 2: [[2, 1], [4, 3]], 3: [[4, 3], [2, 1]], 4: [[3, 4], [1, 2]],
           5: [[1, 3], [2, 4]], 6: [[3, 1], [4, 2]], 7: [[4, 2], [3, 1]], 8: [[2, 4], [1, 3]]}  # fmt: skip


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_photograph_is_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.array([[[1] * 3, [2] * 3], [[3] * 3, [4] * 3]], np.uint8))
    content = saved(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert read_rgba(content, LIMIT)[..., 0].tolist() == UPRIGHT[orientation]


def test_damaged_metadata_does_not_spoil_the_pixels() -> None:
    content = saved(
        Image.new("RGB", (2, 2), (9, 9, 9)), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", icc_profile=b"x"
    )
    assert read_rgba(content, LIMIT)[0, 0].tolist() == [9, 9, 9, 255]


def swapped_profile() -> bytes:
    """A colour space like sRGB whose red and green have changed places."""
    sound = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = sound.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    return other.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


def test_the_colours_are_those_of_the_profile() -> None:
    red = Image.new("RGBA", (1, 1), (255, 0, 0, 99))
    assert (
        np.abs(read_rgba(saved(red, "PNG", icc_profile=swapped_profile()), LIMIT)[0, 0] - [0, 255, 0, 99.0]).max() <= 1
    )
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read_rgba(saved(red, "PNG", icc_profile=plain), LIMIT)[0, 0].tolist() == [255, 0, 0, 99]
    tone = Image.new("L", (1, 1), 50)  # a profile of another kind of pixels is ignored, as everywhere
    assert read_rgba(saved(tone, "PNG", icc_profile=swapped_profile()), LIMIT)[0, 0].tolist() == [50, 50, 50, 255]


HEAD = png((2, 2), 8, 2, [bytes(6)] * 2)
BAD = {
    "empty": (b"", "none of PNG"),
    "truncated": (saved(Image.effect_noise((64, 64), 90), "PNG")[:-900], "cannot be read"),
    "truncated jpeg": (saved(Image.effect_noise((64, 64), 90), "JPEG")[:-900], "cannot be read"),
    "no pixels": (png((0, 5), 8, 0, []), "pixels|cannot be read"),
    "gif without pixels": (b"GIF89a\0\0\0\0\0\0\0,\0\0\0\0\0\0\0\0\0\x02\0\0;", "pixels|cannot be read"),
    "a bomb": (png((1001, 1000), 1, 0, [bytes(126)] * 1000), "1001 x 1000 pixels, over the limit of 1000000"),
    "a bomb of text": (png((1, 1), 8, 0, [b"\0\0"], zTXt=b"a\0\0" + zlib.compress(bytes(2**26))), "cannot be read"),
    "many scans": (b"\xff\xd8" + b"\xff\xda" * (MAX_SCANS + 1), "scans"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of PNG"),
    "tiff": (saved(Image.new("L", (2, 2)), "TIFF"), "none of PNG"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_of_bounded_size_is_refused(name: str, tmp_path: Path) -> None:
    content, reason = BAD[name]
    with pytest.raises(Dream3DError, match=reason) as caught:
        read_rgba(content, LIMIT)
    assert str(caught.value).isprintable()
    (tmp_path / "chair.png").write_bytes(content)
    skipped = Skipped()
    if name not in ("a bomb",):  # folders have a wider limit
        assert list(images_from_folder(tmp_path, 16, skipped)) == []
        assert len(skipped.reasons) == 1


def test_names_that_are_no_files_do_not_end_or_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "circle a.png").symlink_to("circle b.png")
    (tmp_path / "circle b.png").symlink_to("circle a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "chair.txt")
    Image.new("I;16", (16, 16), 32896).save(tmp_path / "chair.png")
    skipped = Skipped()
    (image,) = images_from_folder(tmp_path, 16, skipped)
    assert np.unique(image.rgb).tolist() == [128]
    assert [reason.partition(": ")[0] for reason in skipped.reasons] == [
        "circle a.png", "circle b.png", "folder.png", "loop.png", "pipe.png"
    ]  # fmt: skip
    assert "pipe.png: cannot be read (it is not a regular file)" in skipped.reasons


deep: Any = []
for _ in range(800):
    deep = [deep]
HOSTILE: list[Any] = [None, True, -1, 1e300, 10**400, [], {}, [["a"]], "\ud800", "a\udfffb", "\0", "\x1b[2J", "",
                      "a" * 10**5, deep, {"a": deep}, [deep], "../../x", "/etc/passwd"]  # fmt: skip


def calm(read: Callable[[], object]) -> None:
    """Whatever was read can be written as UTF-8, or there is one line of ours."""
    try:
        read()
    except Dream3DError as error:
        one_line(error)


@pytest.mark.parametrize("key", ["file_name", "text", "other", ""])
def test_metadata_of_any_content(tmp_path: Path, key: str) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for value in HOSTILE:
        row = {"file_name": "a.png", "text": "a chair", key: value} if key else value
        (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
        calm(lambda: [list(image_members(image)) for image in images_from_folder(tmp_path, 16, Skipped())])
    for text in ('{"file_name": "a.png", "text": Infinity}', "[" * 10**5, '{"a": 1e999}', '{"a": ' + "9" * 5000 + "}"):
        (tmp_path / "metadata.jsonl").write_text(text)
        with pytest.raises(Dream3DError, match=r"metadata\.jsonl line 1"):
            list(images_from_folder(tmp_path, 16, Skipped()))


@settings(max_examples=150)
@given(st.data())
def test_records_of_any_content(data: st.DataObject) -> None:
    """Any leaf of an object's record, replaced by any value."""
    sound: Any = json.loads(record().to_json())
    place, at = (
        data.draw(st.sampled_from([sound, sound["passes"][0], sound["captions"], sound["passes"][0]["azimuths_deg"]])),
        None,
    )
    at = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
    place[at] = data.draw(st.sampled_from(HOSTILE))
    calm(lambda: object_from_json(json.dumps(sound), "here").to_json().encode())


@pytest.mark.parametrize("key", ["path", "name", "key", "captions", "rotation", "turn_deg", "up", "colors", "reason"])
def test_manifests_and_selections_of_any_content(tmp_path: Path, key: str) -> None:
    manifest, chosen = tmp_path / "assets.jsonl", tmp_path / "select.json"
    manifest.write_text('{"path": "a.glb"}')
    sound = read_manifest(manifest)
    for value in HOSTILE:
        manifest.write_text(json.dumps({"path": "a.glb", key: value}))
        calm(lambda: [str(asset.path).encode() for asset in read_manifest(manifest)])
        chosen.write_text(json.dumps([{"id": "a", "turn" if key == "turn_deg" else key: value}]))
        calm(lambda: [asset.name.encode() for asset in selected(sound, chosen)])
