from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_samples import ORBIT, record, views, write_shard
from hypothesis import given
from hypothesis import strategies as st

from dream3d.dataset.records import KEY, MAX_CAPTIONS, ObjectRecord, Pass, object_from_json
from dream3d.dataset.shards import (
    CaptionedImage,
    decode_image,
    image_members,
    object_members,
    png_bytes,
    read_images,
    read_objects,
    shards,
    view_member,
    write_tar,
)
from dream3d.errors import DatasetError
from dream3d.files import json_table

words = st.text(max_size=30)
passes = st.builds(
    Pass,
    st.floats(-90, 90),
    st.floats(1, 120),
    st.floats(1, 10),
    st.lists(st.floats(0, 360), min_size=1, max_size=8).map(tuple),
    words,
)
records = st.builds(
    ObjectRecord,
    key=st.from_regex(KEY, fullmatch=True),
    name=words,
    category=words,
    captions=st.lists(words, min_size=1, max_size=4).map(tuple),
    colors=st.lists(words, max_size=3).map(tuple),
    materials=st.lists(words, max_size=3).map(tuple),
    split=st.sampled_from(("train", "heldout", "unseen")),
    licence=words,
    author=words,
    source=words,
    passes=st.lists(passes, min_size=1, max_size=2).map(tuple),
    extra=st.dictionaries(words, words, max_size=3),
)


@given(records)
def test_a_record_comes_back_from_json_as_it_was(one: ObjectRecord) -> None:
    assert object_from_json(one.to_json(), "here") == one
    assert "\n" not in one.to_json()


@given(st.text(max_size=80))
def test_any_text_is_a_json_object_or_a_dataset_error(text: str) -> None:
    with suppress(DatasetError):
        assert isinstance(json_table(text, "here", DatasetError), dict)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["key", "name", "captions", "colors", "split", "passes", "extra", "licence"]), json_values)
def test_a_field_of_any_type_is_read_or_a_dataset_error(field: str, value: Any) -> None:
    data = {**json.loads(record().to_json()), field: value}
    with suppress(DatasetError):
        assert isinstance(object_from_json(json.dumps(data), "here"), ObjectRecord)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", "../up"),
        ("key", "a.b"),
        ("split", "test"),
        ("captions", []),
        ("captions", "chair"),
        ("captions", [3]),
        ("name", None),
        ("passes", []),
        ("passes", [{"elevation_deg": 0}]),
        ("extra", {"a": 1}),
    ],
)
def test_a_record_that_does_not_fit_is_refused(field: str, value: Any) -> None:
    data = {**json.loads(record().to_json()), field: value}
    with pytest.raises(DatasetError, match="here"):
        object_from_json(json.dumps(data), "here")


def test_json_nested_without_end_is_refused() -> None:
    with pytest.raises(DatasetError, match="not valid JSON"):
        json_table("[" * 100_000, "here", DatasetError)


def test_more_captions_than_a_record_holds_are_cut() -> None:
    one = object_from_json(record(captions=tuple(map(str, range(100)))).to_json(), "here")
    assert one.captions == tuple(map(str, range(MAX_CAPTIONS)))


def test_objects_come_back_as_they_were(tmp_path: Path) -> None:
    written = [views(record("one", passes=(ORBIT, ORBIT))), views(record("two"), size=8)]
    read = list(read_objects(write_shard(tmp_path, written)))
    assert [v.record for v in read] == [v.record for v in written]
    for a, b in zip(read, written, strict=True):
        np.testing.assert_array_equal(a.rgba, b.rgba)


def test_captioned_pictures_come_back_as_they_were(tmp_path: Path) -> None:
    image = CaptionedImage("a", ("é", "b"), np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "CC0", "me")
    write_tar(tmp_path / "images-00000.tar", image_members(image))
    (read,) = read_images(tmp_path / "images-00000.tar")
    assert (read.key, read.captions, read.licence, read.author) == ("a", ("é", "b"), "CC0", "me")
    np.testing.assert_array_equal(read.rgb, image.rgb)


def test_the_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_shard(tmp_path, [views()]).read_bytes()
    (tmp_path / "later").mkdir()
    assert write_shard(tmp_path / "later", [views()]).read_bytes() == first


def test_a_shard_is_a_plain_tar_with_the_files_of_a_key_together(tmp_path: Path) -> None:
    path = write_shard(tmp_path, [views(record("one")), views(record("two"))])
    with tarfile.open(path) as tar:
        names = tar.getnames()
    expected = ["json", "00-00.png", "00-01.png", "00-02.png", "00-03.png"]
    assert names == [f"{key}.{rest}" for key in ("one", "two") for rest in expected]


def test_shards_are_found_in_order_and_nothing_else(tmp_path: Path) -> None:
    for name in ("train-00001.tar", "train-00000.tar", "train-1.tar", ".train-00002.tar", "heldout-00000.tar"):
        (tmp_path / name).touch()
    assert [path.name for path in shards(tmp_path, "train")] == ["train-00000.tar", "train-00001.tar"]


def test_depth_pictures_beside_the_views_are_left_alone(tmp_path: Path) -> None:
    depth = (view_member("chair", 0, 0, "depth"), png_bytes(np.zeros((4, 4), np.uint16)))
    write_tar(tmp_path / "train-00000.tar", [*object_members(views()), depth])
    assert len(list(read_objects(tmp_path / "train-00000.tar"))) == 1


def refusal(tmp_path: Path, members: list[tuple[str, bytes]]) -> str:
    """What is said of a shard with these members."""
    write_tar(tmp_path / "train-00000.tar", members)
    with pytest.raises(DatasetError) as caught:
        list(read_objects(tmp_path / "train-00000.tar"))
    return str(caught.value)


def test_a_missing_view_is_named(tmp_path: Path) -> None:
    members = [m for m in object_members(views()) if m[0] != "chair.00-02.png"]
    assert "chair.00-02.png is missing" in refusal(tmp_path, members)


def test_a_missing_json_is_named(tmp_path: Path) -> None:
    assert "chair has no json" in refusal(tmp_path, list(object_members(views()))[1:])


@pytest.mark.parametrize(
    "name", ["../chair.json", "/etc/chair.json", "a/b.json", "Chair.json", ".json", "x" * 81 + ".json"]
)
def test_a_foreign_member_is_refused(tmp_path: Path, name: str) -> None:
    assert "is not one of a data shard" in refusal(tmp_path, [*object_members(views()), (name, b"{}")])


def test_a_link_in_a_shard_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train-00000.tar", "w") as tar:
        info = tarfile.TarInfo("chair.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(info)
    with pytest.raises(DatasetError, match="is not one of a data shard"):
        list(read_objects(tmp_path / "train-00000.tar"))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[1]", b"{"])
def test_a_record_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "train-00000.tar: chair" in refusal(tmp_path, [("chair.json", content), *list(object_members(views()))[1:]])


def test_pictures_of_two_sizes_are_refused(tmp_path: Path) -> None:
    members = dict(object_members(views(size=16)))
    members["chair.00-01.png"] = dict(object_members(views(size=8)))["chair.00-01.png"]
    assert "several sizes" in refusal(tmp_path, list(members.items()))


@pytest.mark.parametrize("keep", [100, 700, 2000, 4000])
def test_a_shard_that_was_cut_off_is_refused(tmp_path: Path, keep: int) -> None:
    path = write_shard(tmp_path, [views(size=32)])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetError):
        list(read_objects(path))


@pytest.mark.parametrize("content", [b"", b"not a tar file" * 100])
def test_what_is_no_tar_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train-00000.tar"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="damaged or not a tar file"):
        list(read_objects(path))


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG header of any size with next to no data behind it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (12_000, 12_000), (2049, 1)])
def test_a_decompression_bomb_is_refused(tmp_path: Path, width: int, height: int) -> None:
    members = dict(object_members(views()))
    members["chair.00-00.png"] = png_that_claims(width, height)
    assert "an image" in refusal(tmp_path, list(members.items()))


def test_a_jpeg_in_a_png_member_is_refused() -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG")
    with pytest.raises(DatasetError, match="here: an image cannot be read"):
        decode_image(buffer.getvalue(), "RGB", "here")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_a_dataset_error(content: bytes) -> None:
    with pytest.raises(DatasetError, match="here"):
        decode_image(b"\x89PNG\r\n\x1a\n" + content, "RGB", "here")


def test_nothing_is_left_of_a_shard_that_could_not_be_finished(tmp_path: Path) -> None:
    def members() -> Any:
        yield "a.json", b"{}"
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_tar(tmp_path / "train-00000.tar", members())
    assert list(tmp_path.iterdir()) == []


def test_a_shard_of_nothing_but_headers_is_damaged(tmp_path: Path) -> None:
    """Each says that the next has a long name, and tarfile calls itself for each."""
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 5
    (tmp_path / "train-00000.tar").write_bytes((head.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")) * 3000)
    with pytest.raises(DatasetError, match="damaged or not a tar file"):
        list(read_objects(tmp_path / "train-00000.tar"))


def test_the_images_of_an_object_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream3d.dataset.shards.MAX_OBJECT_PIXELS", views().rgba[..., 0].size - 1)
    assert "its images have more than" in refusal(tmp_path, list(object_members(views())))


def test_what_is_no_file_is_no_shard(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train-00000.tar")
    (tmp_path / "train-00001.tar").symlink_to("train-00001.tar")
    assert shards(tmp_path, "train") == []
