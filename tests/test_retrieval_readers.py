"""Sources of pictures with captions: what is read, and what anybody may put into them."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dream3d.errors import DatasetError, UsageError
from dream3d.retrieval.pictures import MAX_KEPT_SIDE, check_picture, square
from dream3d.retrieval.readers.read import check_sources, read_pictures
from dream3d.retrieval.readers.skipped import MOST_LINES, Skipped
from dream3d.retrieval.records import Picture


def png(seed: int = 0, size: tuple[int, int] = (12, 9)) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def read(source: Path, part: tuple[int, int] = (0, 1)) -> tuple[list[Picture], Skipped]:
    skipped = Skipped()
    return list(read_pictures(source, skipped, part)), skipped


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_captions_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "barn owl").mkdir()
    (tmp_path / "barn owl" / "0001.png").write_bytes(png(1))
    (tmp_path / "red_chair-02.png").write_bytes(png(2))
    (tmp_path / "a.png").write_bytes(png(3))
    (tmp_path / "a.txt").write_text("a brass\n astrolabe", "utf-8")
    (tmp_path / "b.png").write_bytes(png(4))
    (tmp_path / "b.json").write_text(json.dumps({"title": "okapi", "artist": "Ann", "license": "CC0", "url": "x"}))
    (tmp_path / "1.png").write_bytes(png(5))
    found, skipped = read(tmp_path)
    assert {one.where: one.caption for one in found} == {
        "a.png": "a brass astrolabe",
        "b.png": "okapi",
        "barn owl/0001.png": "barn owl",
        "red_chair-02.png": "red chair",
    }
    okapi = next(one for one in found if one.caption == "okapi")
    assert (okapi.author, okapi.licence, okapi.source) == ("Ann", "CC0", "x")
    assert skipped.count == 1
    assert skipped.reasons[0].startswith("1.png: no caption")


def test_links_that_leave_a_folder_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "fox.png").symlink_to(secret)
    (folder / "owl.png").write_bytes(png(1))
    (folder / "owl.txt").symlink_to("/etc/hostname")
    found, skipped = read(folder)
    assert found == []
    assert skipped.count == 2


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "a/../../secret.png", "x\0y", "", "missing.png"])
def test_paths_of_a_table_stay_in_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "fox.png").write_bytes(png(1))
    (folder / "t.tsv").write_text(f"file\tcaption\nfox.png\ta fox\n{name}\ta secret\n", "utf-8")
    found, skipped = read(folder / "t.tsv")
    assert [one.caption for one in found] == ["a fox"]
    assert skipped.count == 1


def test_a_csv_table(tmp_path: Path) -> None:
    (tmp_path / "fox.png").write_bytes(png(1))
    lines = ["Image,TEXT,Author,licence", 'fox.png,"a fox, red",Ann,MIT', "fox.png,,,", "https://x/y.png,an owl,,"]
    (tmp_path / "t.csv").write_text("\n".join(lines), "utf-8")
    found, skipped = read(tmp_path / "t.csv")
    assert [(one.caption, one.author, one.licence) for one in found] == [("a fox, red", "Ann", "MIT")]
    assert skipped.reasons == [
        "t.csv, row 2: no caption",
        "t.csv, row 3: its picture is an address; download it first, nothing is fetched",
    ]
    (tmp_path / "no.csv").write_text("a,b\n1,2\n", "utf-8")
    with pytest.raises(DatasetError, match="no column of captions"):
        read(tmp_path / "no.csv")


def test_a_parquet_table(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "fox.png").write_bytes(png(1))
    images = [{"bytes": png(2), "path": None}, {"bytes": None, "path": "fox.png"}, {"bytes": None, "path": "../x"}]
    pq.write_table(pa.table({"image": images, "caption": ["an owl", "a fox", "a spy"]}), tmp_path / "hf.parquet")
    found, skipped = read(tmp_path / "hf.parquet")
    assert [(one.caption, one.image) for one in found] == [("an owl", png(2)), ("a fox", png(1))]
    assert skipped.count == 1
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        read(tmp_path / "bad.parquet")


def test_a_webdataset_tar(tmp_path: Path) -> None:
    members = {
        "d/1.png": png(1),
        "d/1.txt": b"a fox",
        "d/1.json": b'{"author": "Ann"}',
        "2.jpg": png(2),
        "2.json": b'{"caption": "an owl", "license": "CC0"}',
        "3.png": png(3),
        "../4.png": png(4),
        "../4.txt": b"an escape is only a name",
        "5.txt": b"no picture",
        "6.png": png(6),
        "6.json": b"[",
    }
    found, skipped = read(tar_of(tmp_path / "s.tar", members))
    assert [one.caption for one in found] == ["a fox", "an owl", "an escape is only a name"]
    assert (found[0].author, found[1].licence) == ("Ann", "CC0")
    assert skipped.count == 3
    assert not (tmp_path.parent / "4.png").exists()


def test_a_tar_that_is_cut_gives_what_comes_before(tmp_path: Path) -> None:
    members = {f"{i}.{ending}": content for i in range(4) for ending, content in (("png", png(i)), ("txt", b"a fox"))}
    path = tar_of(tmp_path / "s.tar", members)
    path.write_bytes(path.read_bytes()[: 4 * 1024 + 700])
    found, skipped = read(path)
    assert 1 <= len(found) < 4
    assert skipped.count == 1
    path.write_bytes(b"no tar" * 1000)
    with pytest.raises(DatasetError, match="uncompressed tar"):
        read(path)


@pytest.mark.parametrize("kind", ["folder", "csv", "tar"])
def test_parts_share_a_source(tmp_path: Path, kind: str) -> None:
    for i in range(7):
        (tmp_path / f"owl {i}.png").write_bytes(png(i))
    (tmp_path / "t.csv").write_text("file,caption\n" + "".join(f"owl {i}.png,owl\n" for i in range(7)), "utf-8")
    members = {f"{i}.{ending}": content for i in range(7) for ending, content in (("png", png(i)), ("txt", b"owl"))}
    tar_of(tmp_path / "x" if kind != "tar" else tmp_path / "s.tar", members)
    source = {"folder": tmp_path, "csv": tmp_path / "t.csv", "tar": tmp_path / "s.tar"}[kind]
    parts = [{one.image for one in read(source, (i, 3))[0]} for i in range(3)]
    assert sum(map(len, parts)) == 7
    assert parts[0] | parts[1] | parts[2] == {png(i) for i in range(7)}


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"")
    for name in ("missing", "a.zip"):
        with pytest.raises(UsageError, match="csv"):
            check_sources([tmp_path / name])


def test_reasons_are_bounded() -> None:
    skipped, other = Skipped(), Skipped()
    for i in range(100):
        other.add(i, "damaged")
    skipped.merge(other)
    skipped.merge(other)
    assert (skipped.count, len(skipped.reasons)) == (200, MOST_LINES)


WRITERS: dict[str, Callable[[Path], object]] = {
    "s.tar": lambda path: tar_of(path, {"1.png": png(1), "1.txt": b"a fox", "2.png": png(2), "2.json": b"{}"}),
    "t.csv": lambda path: path.write_text("file,caption\na.png,a fox\n", "utf-8"),
    "t.tsv": lambda path: path.write_text("file\tcaption\na.png\ta fox\n", "utf-8"),
}


@pytest.mark.parametrize("name", sorted(WRITERS))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), junk=st.binary(max_size=40), cut=st.booleans())
def test_damaged_sources_raise_only_our_errors(tmp_path: Path, name: str, place: float, junk: bytes, cut: bool) -> None:
    path = tmp_path / name
    (tmp_path / "a.png").write_bytes(png(3))
    WRITERS[name](path)
    whole = path.read_bytes()
    at = int(place * len(whole))
    path.write_bytes(whole[:at] + junk + (b"" if cut else whole[at + len(junk) :]))
    before = set(tmp_path.rglob("*"))
    with contextlib.suppress(DatasetError):
        read(path)
    assert set(tmp_path.rglob("*")) == before


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.binary(max_size=60), beside=st.sampled_from([".txt", ".json"]))
def test_any_sidecar_is_read_or_refused(tmp_path: Path, text: bytes, beside: str) -> None:
    (tmp_path / "fox.png").write_bytes(png(1))
    (tmp_path / f"fox{beside}").write_bytes(text)
    found, skipped = read(tmp_path)
    assert len(found) + skipped.count == 1
    assert all(one.caption and "\n" not in one.caption for one in found)


@pytest.mark.parametrize("content", [b"", b"text in a .jpg", png()[:60], png(size=(7, 100)), b"\x89PNG\r\n\x1a\n" * 9])
def test_bad_pictures_are_refused(content: bytes) -> None:
    with pytest.raises(DatasetError):
        check_picture(content)


def test_a_bomb_is_refused_by_its_header() -> None:
    header = b"\x00\x00\x75\x30\x00\x00\x75\x30\x08\x02\x00\x00\x00"
    parts = (b"IHDR" + header, b"IDAT")
    chunks = [(len(one) - 4).to_bytes(4, "big") + one + zlib.crc32(one).to_bytes(4, "big") for one in parts]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    with pytest.raises(DatasetError, match="900000000 pixels"):
        check_picture(bomb)


def test_odd_pictures_are_taken() -> None:
    for mode, kind in (("CMYK", "JPEG"), ("P", "GIF"), ("LA", "PNG"), ("1", "PNG")):
        file = io.BytesIO()
        Image.new(mode, (20, 10)).save(file, kind)
        checked = check_picture(file.getvalue())
        assert checked.rgb.shape == (10, 20, 3)


def test_a_large_picture_is_made_smaller_and_a_small_one_is_kept() -> None:
    assert check_picture(png(1)).image == png(1)
    large = check_picture(png(1, (900, 30)))
    assert (large.width, large.height) == (MAX_KEPT_SIDE, 17)
    assert large.image != png(1, (900, 30))


def test_transparent_parts_are_white_and_a_square_cuts_nothing() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (20, 10), (255, 0, 0, 0)).save(file, "PNG")
    assert check_picture(file.getvalue()).rgb.min() == 255
    page = square(np.zeros((10, 40, 3), np.uint8), 20)
    assert page.shape == (20, 20, 3)
    assert page[:7].min() == 255
    assert page[9:11].max() == 0
