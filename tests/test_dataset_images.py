from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dataset_samples import record, views, write_shard
from PIL import Image
from test_dataset_shards import png_that_claims
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.dataset import images
from dream3d.dataset.backgrounds import random_background
from dream3d.dataset.images import (
    ImageOptions,
    Skipped,
    images_from_folder,
    images_from_objects,
    training_objects,
    write_image_shards,
)
from dream3d.dataset.shards import CaptionedImage, read_images
from dream3d.errors import DatasetError, UsageError


def picture(path: Path, color: str = "red", size: tuple[int, int] = (40, 20)) -> Path:
    """A picture file of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def read(folder: Path, size: int = 16) -> tuple[list[CaptionedImage], list[str]]:
    skipped = Skipped()
    return list(images_from_folder(folder, size, skipped)), skipped.reasons


def test_a_caption_is_from_metadata_or_a_text_file_or_the_file_name(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "sub/blue_chair-02.webp"):
        picture(tmp_path / name)
    rows = [{"file_name": "a.png", "text": "from  the table", "other": 1}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    for stem in "ab":
        (tmp_path / f"{stem}.txt").write_text(" from a\nfile\n")
    found, skipped = read(tmp_path)
    assert [image.captions for image in found] == [("from the table",), ("from a file",), ("blue chair",)]
    assert skipped == []
    assert len({image.key for image in found}) == 3


def test_a_picture_is_cut_to_its_centre(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = (0, 255, 0)
    Image.fromarray(pixels).save(tmp_path / "green.png")
    (image,), _ = read(tmp_path, 20)
    np.testing.assert_array_equal(image.rgb, pixels[:, 20:40])


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (200, 0, 0, 0)).save(tmp_path / "nothing.png")
    (image,), _ = read(tmp_path)
    assert image.rgb.min() == 255


def test_bad_pictures_are_skipped_with_their_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bomb.png").write_bytes(png_that_claims(60_000, 60_000))
    (tmp_path / "large.png").write_bytes(png_that_claims(9_000, 9_000))
    (tmp_path / "junk.jpg").write_bytes(b"junk")
    picture(tmp_path / "017.png")
    (picture(tmp_path / "text.png").with_suffix(".txt")).write_bytes(b"\xff\xfe\xff")
    (tmp_path / "heavy.png").write_bytes(b"0" * 5000)
    monkeypatch.setattr(images, "MAX_BYTES", 4000)
    found, skipped = read(tmp_path)
    assert found == []
    reasons = dict(reason.split(": ", 1) for reason in skipped)
    assert "no caption" in reasons["017.png"]
    assert "DecompressionBombError" in reasons["bomb.png"]
    assert "9000 x 9000 pixels, over the limit" in reasons["large.png"]
    assert "cannot be read" in reasons["junk.jpg"]
    assert str(tmp_path) not in reasons["junk.jpg"]
    assert "text.txt cannot be read" in reasons["text.png"]
    assert "larger than 4000 bytes" in reasons["heavy.png"]


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside" / "secret.png")
    (tmp_path / "outside" / "secret.txt").write_text("a secret")
    inside = tmp_path / "inside"
    picture(inside / "plain.png")
    (inside / "link.png").symlink_to(outside)
    (inside / "plain.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    found, skipped = read(inside)
    assert found == []
    assert skipped == [
        "link.png: a link that leaves the folder",
        "plain.png: plain.txt is a link that leaves the folder",
    ]


@pytest.mark.parametrize("line", ["{", "[]", '{"file_name": "a.png"}', '{"file_name": 1, "text": "a"}'])
def test_damaged_metadata_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}\n' + line)
    with pytest.raises(DatasetError, match=r"metadata\.jsonl line 2"):
        read(tmp_path)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        read(tmp_path / "none")


def test_objects_become_pictures_over_backgrounds() -> None:
    options = ImageOptions(size=16, per_object=3)
    found = list(images_from_objects([views()], options))
    assert [image.key for image in found] == ["chair-000", "chair-001", "chair-002"]
    for image in found:
        assert image.captions == record().captions
        assert (image.licence, image.author) == ("CC0", "A. Maker")
        assert image.rgb.shape == (16, 16, 3)
        assert tuple(image.rgb[8, 2]) in {(10 * view, 200, view) for view in range(4)}
    backgrounds = {image.rgb[:, 12:].tobytes() for image in found}
    assert len(backgrounds) == 3


def test_pictures_of_an_object_depend_on_the_seed_and_not_on_other_objects() -> None:
    options = ImageOptions(size=16)
    one, two = views(record("one")), views(record("two"))
    alone = [image.rgb.tobytes() for image in images_from_objects([two], options)]
    beside = [image.rgb.tobytes() for image in images_from_objects([one, two], options)]
    assert beside[4:] == alone
    assert beside[:4] != alone
    other = [image.rgb.tobytes() for image in images_from_objects([two], ImageOptions(size=16, seed=1))]
    assert other != alone


def test_backgrounds_are_flat_or_ramps_or_textures() -> None:
    rng = np.random.default_rng(0)
    made = [random_background(32, rng) for _ in range(30)]
    assert {(b.shape, b.dtype.name) for b in made} == {((32, 32, 3), "uint8")}
    spreads = [int(np.ptp(b.reshape(-1, 3), axis=0).max()) for b in made]
    assert min(spreads) == 0
    assert max(spreads) > 100
    again = random_background(32, np.random.default_rng(0))
    np.testing.assert_array_equal(again, made[0])


def test_pictures_are_written_into_shards_of_a_length(tmp_path: Path) -> None:
    found = list(images_from_objects([views()], ImageOptions(size=16, per_object=5)))
    assert write_image_shards(found, tmp_path / "out", 2) == 5
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == [f"images-0000{n}.tar" for n in range(3)]
    assert [image.key for path in files for image in read_images(path)] == [image.key for image in found]
    with pytest.raises(UsageError, match="holds image shards already"):
        write_image_shards(found, tmp_path / "out", 2)


def test_only_training_objects_become_pictures(tmp_path: Path) -> None:
    write_shard(tmp_path, [views(record("held", split="heldout"))])
    with pytest.raises(DatasetError, match=r"holds no train-00000\.tar"):
        list(training_objects(tmp_path))
    write_shard(tmp_path, [views()])
    assert [one.record.key for one in training_objects(tmp_path)] == ["chair"]


@pytest.mark.parametrize("wrong", [{"size": 15}, {"size": 4096}, {"per_shard": 0}, {"per_object": 0}, {"seed": -1}])
def test_options_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"is .*, which should be a whole number from"):
        ImageOptions(**wrong)


def test_the_command_makes_shards_of_both_sources(tmp_path: Path) -> None:
    picture(tmp_path / "src" / "red_chair.png")
    (tmp_path / "src" / "bad.png").write_bytes(b"junk")
    run = CliRunner().invoke
    done = run(app, ["dataset", "images", str(tmp_path / "src"), "--out", str(tmp_path / "a"), "--size", "32"])
    assert done.exit_code == 0, done.output
    assert "skipped bad.png: cannot be read" in done.output
    assert "1 images of 32 x 32 pixels" in done.output
    write_shard(tmp_path, [views()])
    done = run(app, ["dataset", "images", "--from-shards", str(tmp_path), "--out", str(tmp_path / "b"), "--size", "32"])
    assert done.exit_code == 0, done.output
    assert "4 images" in done.output


def test_the_command_wants_one_source_that_holds_pictures(tmp_path: Path) -> None:
    run = CliRunner().invoke
    out = ["--out", str(tmp_path / "out")]
    assert run(app, ["dataset", "images", *out]).exit_code == 2
    assert run(app, ["dataset", "images", str(tmp_path), "--from-shards", str(tmp_path), *out]).exit_code == 2
    (tmp_path / "file").touch()
    (tmp_path / "src").mkdir()
    assert run(app, ["dataset", "images", str(tmp_path / "src"), *out]).exit_code == 1
    picture(tmp_path / "src" / "red.png")
    assert run(app, ["dataset", "images", str(tmp_path / "src"), "--out", str(tmp_path / "file")]).exit_code == 2
