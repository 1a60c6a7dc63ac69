"""Photos as a prior is shown them: where the subject is, what is left out, and what is said about it."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_photos import NAMES, thing, write_personal_prior, write_photos

from dream3d.errors import UsageError
from dream3d.personalise import photos as reading
from dream3d.personalise.photos import read_photos
from dream3d.personalise.subject import MARGIN, plain_background_alpha, square_subject
from dream3d.personalise.words import Subject, check_class, check_token, class_from_folder, guess_class
from dream3d.prior.image_encoder import load_text

BLUE = (0.0, 0.0, 1.0)


def opaque(rgb: np.ndarray) -> np.ndarray:
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def box(height: int, width: int, part: tuple[slice, slice], color: tuple[int, int, int]) -> np.ndarray:
    rgb = np.full((height, width, 3), 240, np.uint8)
    rgb[part] = color
    return rgb


def test_a_block_before_a_plain_wall_is_cut_out_centred_and_put_on_the_background() -> None:
    rgb = box(200, 300, (slice(20, 100), slice(30, 70)), (200, 0, 0))  # 40 wide, 80 high
    found = square_subject(opaque(rgb), 96, BLUE)
    assert found.found == "plain background"
    assert (found.rgb[0, 0] == (0, 0, 255)).all()
    assert (found.rgb[48, 48] == (200, 0, 0)).all()
    red = found.rgb[..., 0] > 150
    # 80 pixels in a square of 80 * (1 + 2 * margin), drawn in 96
    assert red.any(1).sum() == pytest.approx(96 / (1 + 2 * MARGIN), abs=3)
    assert red.any(0).sum() == pytest.approx(48 / (1 + 2 * MARGIN), abs=3)
    columns = np.flatnonzero(red.any(0))
    assert (columns[0] + columns[-1]) / 2 == pytest.approx(47.5, abs=1.5)


def test_a_wall_that_darkens_to_one_side_is_still_plain() -> None:
    rgb = box(120, 160, (slice(40, 90), slice(60, 110)), (20, 90, 30)).astype(float)
    rgb *= np.linspace(1.0, 0.75, 160)[None, :, None]
    alpha = plain_background_alpha(rgb.astype(np.uint8))
    assert alpha is not None
    assert alpha[60, 80] == 1
    assert alpha[5, 5] == alpha[5, 155] == 0


def test_a_hole_of_the_colour_of_the_wall_belongs_to_the_subject_and_a_speck_does_not() -> None:
    rgb = box(120, 120, (slice(30, 90), slice(30, 90)), (20, 20, 20))
    rgb[55:65, 55:65] = 240
    rgb[5:7, 5:7] = 0
    alpha = plain_background_alpha(rgb)
    assert alpha is not None
    assert alpha[60, 60] == 1
    assert alpha[6, 6] < 0.5


def test_a_busy_background_is_left_as_it_is_and_the_middle_is_used() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    found = square_subject(opaque(rgb), 40, BLUE)
    assert found.found == "whole picture"
    assert np.array_equal(found.rgb, rgb[:, 10:50])


def test_alpha_is_believed_even_where_the_colours_say_nothing() -> None:
    rgba = np.full((60, 60, 4), 200, np.uint8)
    rgba[..., 3] = 0
    rgba[10:30, 20:50, 3] = 255
    found = square_subject(rgba, 36, BLUE)
    assert found.found == "alpha"
    assert (found.rgb[18, 18] == 200).all()
    assert (found.rgb[2, 18] == (0, 0, 255)).all()


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_picture_of_one_colour_is_used_whole(alpha: int) -> None:
    rgba = np.dstack([np.full((20, 20, 3), 90, np.uint8), np.full((20, 20), alpha, np.uint8)])
    found = square_subject(rgba, 16, BLUE)
    assert found.found == "whole picture"
    assert (found.rgb == 90).all()


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["noise", "plain", "alpha", "block"]),
)
def test_any_picture_becomes_a_square_whose_place_lies_around_it(height: int, width: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    rgba = np.full((height, width, 4), 255, np.uint8)
    rgba[..., :3] = rng.integers(0, 256, 3) if kind != "noise" else rng.integers(0, 256, (height, width, 3))
    if kind == "alpha":
        rgba[..., 3] = rng.integers(0, 256, (height, width))
    if kind == "block":
        rgba[height // 4 : height // 2 + 1, width // 4 : width // 2 + 1, :3] = rng.integers(0, 256, 3)
    cutout = square_subject(rgba, 16, BLUE)
    assert cutout.rgb.shape == (16, 16, 3)
    left, top, right, bottom = cutout.square
    assert left < 1
    assert top < 1
    assert right > 0
    assert bottom > 0
    assert (right - left) * width == pytest.approx((bottom - top) * height)


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    rgb = box(80, 120, (slice(30, 60), slice(20, 60)), (200, 0, 0))
    rgb[30:40, 20:60] = (0, 0, 200)  # blue on top
    Image.fromarray(rgb).save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.fromarray(np.rot90(rgb, 1)).save(tmp_path / "b.jpg", exif=exif, quality=98)
    straight, turned = (square_subject(reading.read_photo(tmp_path / name), 32, BLUE) for name in ("a.png", "b.jpg"))
    assert np.abs(straight.rgb.astype(int) - turned.rgb).mean() < 4


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", 3, side=160)
    Image.fromarray(thing(1, 160)).resize((120, 120)).save(folder / "twin.jpg", quality=85)
    Image.fromarray(thing(0, 6)).save(folder / "tiny.png")
    Image.fromarray(thing(4, 40)).save(folder / "small.png")
    (folder / "torn.png").write_bytes(b"\x89PNG no")
    (folder / "notes.txt").write_text("not a picture")
    seen = read_photos(folder, 64, (0.8, 0.8, 0.8))
    told = "\n".join(seen.notes)
    assert [photo.name for photo in seen.photos][:3] == ["photo-0.png", "photo-1.png", "photo-2.png"]
    assert "twin.jpg is left out: it shows nearly the same as photo-1.png" in told
    assert "tiny.png is left out: 6 x 6 pixels are too few; the prior sees 64 x 64" in told
    assert "torn.png is left out: cannot be read" in told
    assert "notes.txt" not in told
    assert seen.pictures.shape == (len(seen.photos), 64, 64, 3)


def test_a_small_photo_is_enlarged_and_named(tmp_path: Path) -> None:
    folder = write_photos(tmp_path, 1, side=24)
    assert "photo-0.png has 24 x 24 pixels and is enlarged to 32" in read_photos(folder, 32, BLUE).notes


def test_one_photo_and_two_are_warned_of(tmp_path: Path) -> None:
    assert "there is one photo" in read_photos(write_photos(tmp_path / "1", 1), 16, BLUE).notes[-1]
    assert "there are 2 photos" in read_photos(write_photos(tmp_path / "2", 2), 16, BLUE).notes[-1]
    assert not read_photos(write_photos(tmp_path / "3", 3), 16, BLUE).notes


def test_a_busy_background_is_told(tmp_path: Path) -> None:
    folder = write_photos(tmp_path, 3)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "lawn.png")
    assert any("no plain background in lawn.png" in note for note in read_photos(folder, 16, BLUE).notes)


def test_bad_folders_are_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="is no folder; give a folder with three to ten photos"):
        read_photos(tmp_path / "none", 16, BLUE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no pictures; put three to ten photos"):
        read_photos(tmp_path / "empty", 16, BLUE)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/a.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match=r"none of the 1 pictures in .* can be used; a\.jpg is left out"):
        read_photos(tmp_path / "torn", 16, BLUE)
    monkeypatch.setattr(reading, "read_photo", lambda path: pytest.fail("too many are not read"))
    for index in range(500):
        (tmp_path / "empty" / f"{index}.jpg").touch()
    with pytest.raises(UsageError, match="holds 500 pictures, over the limit of 100"):
        read_photos(tmp_path / "empty", 16, BLUE)


def test_heic_needs_the_plugin_and_is_read_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_photos(tmp_path, 3)
    (folder / "photo-3.heic").write_bytes(b"ftypheic")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert any("photo-3.heic is left out: HEIC needs a plugin" in note for note in read_photos(folder, 16, BLUE).notes)
    added: list[str] = []
    plugin = SimpleNamespace(register_heif_opener=lambda: added.append("heif"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: plugin)
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", plugin)
    content = io.BytesIO()
    Image.fromarray(thing(3)).save(content, "PNG")
    decoded: list[tuple[str, ...]] = []

    def decode(content: bytes, limit: int, formats: tuple[str, ...]) -> np.ndarray:
        decoded.append(formats)
        return opaque(thing(len(decoded)))

    monkeypatch.setattr(reading, "read_rgba", decode)
    read_photos(folder, 16, BLUE)
    assert added == ["heif"]
    assert decoded[-1] == ("HEIF",)


# Words.


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_personal_prior(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("dog", "is a word of 'dog', which the prior knows"),
        ("Chair", "is a word of 'chair'"),
        ("photo", "is a common word"),
        ("zzz", "is unknown to the prior's text encoder"),
        ("two words", "is not one word"),
        ("s", "is not one word"),
        ("sks!", "is not one word"),
    ],
)
def test_a_token_that_means_something_or_nothing_at_all_is_refused(prior: Path, token: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        check_token(token, NAMES, load_text(prior))


def test_a_token_of_many_pieces_is_told_and_one_of_few_is_not(prior: Path) -> None:
    text = load_text(prior)
    assert check_token("sks", NAMES, text) == []
    (note,) = check_token("qqqq", NAMES, text)
    assert "as 4 pieces" in note


def test_classes_are_plain_small_words() -> None:
    assert check_class("  A Teddy  bear ") == "teddy bear"
    assert check_class("the owl") == "owl"
    for bad in ("", "dog; cat", "x" * 80):
        with pytest.raises(UsageError, match="is no name of a kind of thing"):
            check_class(bad)


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("my-dog", "dog"),
        ("Dogs_2024", "dog"),
        ("teddy bear photos", "teddy bear"),
        ("photos", None),
        ("hotdogstand", None),
    ],
)
def test_the_class_is_read_off_the_folders_name(folder: str, kind: str | None) -> None:
    assert class_from_folder(Path(folder), ["dog", "bear", "teddy bear"]) == kind


def test_the_class_is_guessed_from_the_pictures_and_said(prior: Path, tmp_path: Path) -> None:
    pictures = read_photos(write_photos(tmp_path / "photos", 3), 16, BLUE).pictures
    kind, line = guess_class(tmp_path / "photos", pictures, NAMES, prior)
    assert kind in NAMES
    assert line.startswith(f"class: {kind}, which the pictures resemble most (then ")
    assert guess_class(tmp_path / "old chair", pictures, NAMES, prior)[0] == "chair"


def test_without_an_image_encoder_the_class_is_an_object(tmp_path: Path) -> None:
    pictures = read_photos(write_photos(tmp_path / "photos", 1), 16, BLUE).pictures
    kind, line = guess_class(tmp_path, pictures, NAMES, tmp_path)
    assert kind == "object"
    assert "--class" in line


def test_the_phrases_of_a_subject() -> None:
    assert (Subject("sks", "owl").phrase, Subject("sks", "owl").class_phrase) == ("a sks owl", "an owl")
