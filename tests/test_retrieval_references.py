"""Pictures to draw by: what is accepted as one, how it is prepared, and how much it counts."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dream3d.errors import UsageError
from dream3d.retrieval.guided import Fusion, coefficient
from dream3d.retrieval.pictures import MAX_KEPT_SIDE
from dream3d.retrieval.records import Found, Retrieved
from dream3d.retrieval.references import MAX_REFERENCES, Reference, read_images, references_of, squares

GREY = (0.5, 0.5, 0.5)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(color: tuple[int, ...] = (200, 0, 0), size: tuple[int, int] = (20, 10), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, color)


def saved(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def reference(image: Image.Image, **options: Any) -> Reference:
    return Reference(encoded(image, **options), {})


def test_a_wide_picture_is_padded_above_and_below() -> None:
    (pixels,) = squares([reference(plain((255, 0, 0), (20, 10)))], 20, (0.0, 0.0, 1.0))
    assert pixels[:, 0, 0].tolist() == [0, 0, 1]
    assert pixels[:, 19, 10].tolist() == [0, 0, 1]
    assert pixels[:, 10, 0].tolist() == [1, 0, 0]


def test_transparent_parts_show_the_padding() -> None:
    image = plain((255, 0, 0, 0), (16, 16), "RGBA")
    image.paste((0, 255, 0, 255), (8, 0, 16, 16))
    (pixels,) = squares([reference(image)], 16, (0.0, 0.0, 1.0))
    assert pixels[:, 8, 2].tolist() == [0, 0, 1]
    assert pixels[:, 8, 13].tolist() == [0, 1, 0]


def test_a_photograph_is_turned_as_its_exif_data_says() -> None:
    image = plain((0, 0, 0), (16, 16))
    image.paste((255, 255, 255), (0, 0, 16, 8))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    (pixels,) = squares([reference(image, kind="JPEG", exif=exif, quality=95)], 16, GREY)
    assert pixels[0, 8, 13] > 0.9  # white on the right
    assert pixels[0, 8, 2] < 0.1


def test_bad_pictures_are_named_and_the_others_used(tmp_path: Path) -> None:
    frames = [plain((0, 0, 9 * number)) for number in range(3)]
    good = {
        "a.png": encoded(plain()),
        "cmyk.jpg": encoded(plain((0, 99, 99, 0), mode="CMYK"), "JPEG"),
        "moving.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
    }
    bad = {
        "empty.jpg": (b"", "an empty file"),
        "text.jpg": (b"this is a text\n" * 9, "cannot be read"),
        "apple.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "cannot be read"),
        "bomb.png": (_bomb(), "exceeds limit"),
    }
    paths = [saved(tmp_path, name, content) for name, content in good.items()]
    paths += [saved(tmp_path, name, content) for name, (content, _) in bad.items()]
    references, skipped = read_images(paths)
    assert [one.attribution["source"] for one in references] == [f"given: {name}" for name in good]
    assert len(skipped) == len(bad)
    for (name, (_, reason)), line in zip(bad.items(), skipped, strict=True):
        assert f"{name}: " in line
        assert reason in line
    assert squares(references, 16, GREY).shape == (3, 3, 16, 16)
    with pytest.raises(UsageError, match=r"none of the pictures can be used: .*empty file"):
        read_images(paths[len(good) :])


def _bomb() -> bytes:
    """The header of a PNG of 30,000 x 30,000 pixels."""
    small = bytearray(encoded(plain(size=(30, 30))))

    small[16:24] = struct.pack(">II", 30_000, 30_000)
    small[29:33] = struct.pack(">I", zlib.crc32(small[12:29]))
    return bytes(small)


def test_missing_and_too_many_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the picture .*none.png is not a file"):
        read_images([tmp_path / "none.png"])
    paths = [saved(tmp_path, f"{n}.png", encoded(plain((n, 0, 0)))) for n in range(MAX_REFERENCES + 1)]
    with pytest.raises(UsageError, match=f"{MAX_REFERENCES + 1} pictures; the limit is {MAX_REFERENCES}"):
        read_images(paths)


def test_the_same_picture_counts_once_and_large_ones_are_made_smaller(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    paths = [saved(tmp_path, name, encoded(Image.fromarray(noise))) for name in ("a.png", "b.png")]
    references, skipped = read_images(paths)
    assert (len(references), skipped) == (1, [])
    assert max(Image.open(io.BytesIO(references[0].image)).size) == MAX_KEPT_SIDE
    # What is kept is read back as it was used: a resumed run sees the same pixels.
    again, _ = read_images([saved(tmp_path, "kept.webp", references[0].image)])
    assert again[0].sha256 == references[0].sha256


def test_a_retrieved_picture_brings_author_and_licence() -> None:
    image = encoded(plain())
    one = Retrieved(image, "an axolotl", 0.1, 0.9, "zoo", "Ann", "CC0-1.0", "k1")
    broken = Retrieved(b"nothing", "an axolotl", 0.1, 0.9, "zoo", "Ann", "CC0-1.0", "k2")
    references, skipped = references_of(Found("an axolotl", (one, broken), 0.9, 0.75))
    assert [one.record["author"] for one in references] == ["Ann"]
    assert references[0].record["licence"] == "CC0-1.0"
    assert len(references[0].record["sha256"]) == 64
    assert "the picture 'an axolotl' of the corpus: cannot be read" in skipped[0]


# Alpha.


def test_alpha_by_hand() -> None:
    """Two views and two pictures: the means of the cosines are (1 + 0) / 2 and (0.6 + 0.8) / 2; the larger counts."""
    views = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    pictures = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert coefficient(views, pictures) == pytest.approx(0.7)
    assert coefficient(views[:1], pictures) == pytest.approx(0.5)


def test_alpha_is_not_below_zero() -> None:
    assert coefficient(torch.tensor([[-1.0, 0.0]]), torch.tensor([[1.0, 0.0]])) == 0


@given(alpha=st.floats(0, 1))
def test_the_weights_add_up(alpha: float) -> None:
    fusion = Fusion(alpha, 1.5, measured=True)
    assert fusion.text_weight + fusion.image_weight == pytest.approx(1.5)
    assert 0.5 <= fusion.image_weight <= 1.5


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(UsageError, match="alpha"):
        Fusion(alpha, 1.5, measured=False)
