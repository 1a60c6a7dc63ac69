from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_samples import ORBIT, record, views, write_shard
from PIL import Image
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.dataset.captions.concepts import Leak
from dream3d.dataset.compositing import composite
from dream3d.dataset.info import (
    CAPTION_HEIGHT,
    SHEET_BACKGROUND,
    SHEET_SIDE,
    report,
    summarise,
    tile,
    write_sheet,
)
from dream3d.dataset.shards import CaptionedImage, image_members, write_tar
from dream3d.errors import DatasetError

TILE = (SHEET_SIDE + CAPTION_HEIGHT, 4 * SHEET_SIDE, 3)


def fill(folder: Path) -> Path:
    """Three objects of two splits and a captioned picture."""
    write_shard(folder, [views(record("one")), views(record("two", colors=("white",), licence=""))])
    write_shard(
        folder, [views(record("three", split="heldout", name="stool", captions=("stool",), passes=(ORBIT, ORBIT)))]
    )
    image = CaptionedImage("a", ("a clock",), np.zeros((8, 8, 3), np.uint8), "CC-BY")
    write_tar(folder / "images-00000.tar", image_members(image))
    return folder


def test_what_a_folder_holds_is_counted(tmp_path: Path) -> None:
    lines = {line[:11].strip(): line[11:] for line in report(summarise(fill(tmp_path)))}
    assert lines == {
        "objects": "3: train 2, heldout 1",
        "views": "16: 1 x 4 2, 2 x 4 1",
        "images": "1",
        "size": "16 x 16 pixels: 3, 8 x 8 pixels: 1",
        "captions": "5, 3 different, 1.7 for an object",
        "names": "2: chair 2, stool 1",
        "categories": "1: furniture 3",
        "licences": "3: CC0 2, not stated 1, CC-BY 1",
        "colours": "2: brown 2, white 1",
    }


def test_leaks_in_objects_and_in_captioned_pictures_are_found(tmp_path: Path) -> None:
    assert summarise(fill(tmp_path), ("stool", "clock")).leaks == (
        Leak("three", "stool", "stool"),
        Leak("a", "clock", "a clock"),
    )
    assert summarise(tmp_path, ("piano",)).leaks == ()


def test_a_damaged_shard_is_listed_and_the_others_are_counted(tmp_path: Path) -> None:
    (fill(tmp_path) / "train-00001.tar").write_bytes(b"junk" * 300)
    (tmp_path / "images-00001.tar").write_bytes(b"junk" * 300)
    summary = summarise(tmp_path)
    assert len(summary.records) == 3
    assert summary.images == 1
    assert len(summary.damaged) == 2
    assert "train-00001.tar is damaged" in summary.damaged[0]
    assert "images-00001.tar is damaged" in summary.damaged[1]


def test_a_key_that_is_there_twice_is_damage(tmp_path: Path) -> None:
    write_shard(tmp_path, [views()])
    write_shard(tmp_path, [views(record(split="heldout"))])
    assert summarise(tmp_path).damaged == ("key chair is there more than once",)


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no shards"):
        summarise(tmp_path)


def test_straight_alpha_is_blended_over_the_background() -> None:
    rgba = np.array([[100, 200, 0, 255], [100, 200, 0, 0], [100, 200, 0, 51]], np.uint8)
    np.testing.assert_array_equal(composite(rgba, (200, 100, 50)), [[100, 200, 0], [200, 100, 50], [180, 120, 40]])


def test_a_tile_shows_four_views_and_has_room_for_a_caption() -> None:
    picture = tile(views())
    assert picture.shape == TILE
    for view in range(4):
        left = view * SHEET_SIDE
        assert tuple(picture[10, left + 5]) == (10 * view, 200, view)
        assert tuple(picture[10, left + SHEET_SIDE - 5]) == SHEET_BACKGROUND
    label = picture[SHEET_SIDE:]
    assert label.max() == 255
    assert label.min() < 100


def test_a_caption_in_any_script_can_be_on_a_tile() -> None:
    assert tile(views(record(captions=("椅子 \U0001fa91 é",)))).shape == TILE


def test_the_sheet_has_its_tiles_row_by_row(tmp_path: Path) -> None:
    tiles = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)]
    write_sheet(tmp_path / "sheet.png", tiles, columns=2)
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert pixels.shape == (4, 6, 3)
    assert [pixels[0, 0, 0], pixels[0, 3, 0], pixels[2, 0, 0], pixels[2, 3, 0]] == [10, 20, 30, 255]
    with pytest.raises(DatasetError, match="no sound objects"):
        write_sheet(tmp_path / "none.png", [])


def test_the_command_prints_the_counts_and_writes_the_sheet(tmp_path: Path) -> None:
    sheet = tmp_path / "sheets" / "one.png"
    done = CliRunner().invoke(app, ["dataset", "info", str(fill(tmp_path)), "--sheet", str(sheet)])
    assert done.exit_code == 0, done.output
    assert "objects    3: train 2, heldout 1" in done.output
    with Image.open(sheet) as page:
        assert page.size == (3 * TILE[1], TILE[0])


def test_the_command_fails_on_leaks_and_says_which(tmp_path: Path) -> None:
    concepts = tmp_path / "concepts.txt"
    concepts.write_text("clock\n")
    done = CliRunner().invoke(app, ["dataset", "info", str(fill(tmp_path)), "--held-out", str(concepts)])
    assert done.exit_code == 1
    assert "leak: a names 'clock': 'a clock'" in done.output
    concepts.write_text("piano\n")
    done = CliRunner().invoke(app, ["dataset", "info", str(tmp_path), "--held-out", str(concepts)])
    assert done.exit_code == 0
    assert "none of 1 held-out concepts is named" in done.output


@pytest.mark.parametrize("arguments", [["missing"], [".", "--sheet", "sheet.jpg"], [".", "--held-out", "missing"]])
def test_a_bad_request_is_refused_with_code_2(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fill(tmp_path))
    assert CliRunner().invoke(app, ["dataset", "info", *arguments]).exit_code == 2
