"""Records in the cache are data: whatever stands in one, list, verify and pull say one line and look nowhere else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import one_line
from weight_cache import ENTRY, WEIGHTS, FakeConverter, empty_cache, fake_converter, models

from dream3d.errors import DownloadError
from dream3d.files import read_regular
from dream3d.weights.records import (
    MAX_RECORD_BYTES,
    Record,
    read_folder_record,
    read_record,
    record_path,
    write_folder_record,
    write_record,
)
from dream3d.weights.store import download_path, prior_folder

HOSTILE: list[Any] = [float("inf"), float("-inf"), float("nan"), -1, 10**400, 1.5, True, None, [], {}, "", "a" * 5000,
                      "\x1b]0;owned\x07", "\0", "a\nb", "\x9b2J", "\u202e", "\ud800", "..", "../../secret",
                      "/etc/passwd", "0" * 64]  # fmt: skip
PLACES = [("bytes",), ("sha256",), ("origin",), ("kept",), ()]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A download and a converted folder of one prior, both with sound records."""
    folder = empty_cache(tmp_path / "cache", monkeypatch)
    converter: FakeConverter = fake_converter(monkeypatch)
    converter.fill(prior_folder(ENTRY), "fp16")
    write_folder_record(prior_folder(ENTRY), "a title", "fp16")
    place = download_path(ENTRY, ENTRY.sources[0].files[0])
    place.parent.mkdir(parents=True)
    place.write_bytes(WEIGHTS)
    write_record(place, Record("0" * 64, len(WEIGHTS), "https://example.org"))
    return folder


def poisoned(data: Any, where: tuple[str, ...], value: Any) -> Any:
    """The data with something else at a place; no place: all of it."""
    if not where:
        return value
    return {**data, where[0]: poisoned(data[where[0]], where[1:], value)}


def with_record(value: Any, where: tuple[str, ...]) -> None:
    path = record_path(download_path(ENTRY, ENTRY.sources[0].files[0]))
    path.write_text(json.dumps(poisoned(json.loads(path.read_text()), where, value)))


def with_folder_record(value: Any, where: tuple[str, ...]) -> None:
    path = Path(f"{prior_folder(ENTRY)}.files.json")
    path.write_text(json.dumps(poisoned(json.loads(path.read_text()), where, value)))


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:12])
def test_whatever_stands_in_a_record_it_is_plain_or_damaged(cache: Path, value: Any) -> None:
    file, folder = download_path(ENTRY, ENTRY.sources[0].files[0]), prior_folder(ENTRY)
    one = next(iter(json.loads(Path(f"{folder}.files.json").read_text())["files"]))
    in_folder = [("files", one, *where) for where in PLACES] + [("origin",), ("dtype",), ("files",)]
    for write, read, at, places in (
        (with_record, read_record, file, PLACES),
        (with_folder_record, read_folder_record, folder, in_folder),
    ):
        path = record_path(file) if at is file else Path(f"{folder}.files.json")
        sound = path.read_text()
        for where in places:
            write(value, where)
            try:
                found = str(read(at))
            except DownloadError as error:
                found = str(error)
            assert found.isprintable()
            assert len(found) < 3000
            path.write_text(sound)


@pytest.mark.parametrize("value", [float("inf"), "\x1b]0;owned\x07", "../../secret"], ids=["inf", "escape", "path"])
def test_commands_say_in_one_line_what_is_wrong_with_a_record(cache: Path, value: Any) -> None:
    where = ("bytes",) if isinstance(value, float) else ("sha256",)
    with_record(value, where)
    with_folder_record({str(value): {"sha256": "0" * 64, "bytes": value, "origin": "converted"}}, ("files",))
    for command, code in ((["list"], 0), (["info", "big"], 1), (["verify"], 1), (["pull", "big", "--offline"], 1)):
        result = models(*command)
        assert result.exit_code == code, result.output
        assert all(line.isprintable() for line in result.output.split("\n")), result.output
        assert "secret" not in result.output
        assert code == 0 or "is damaged (ValueError); delete it" in result.output


@settings(max_examples=100)
@given(name=st.text(max_size=12) | st.sampled_from([one for one in HOSTILE if isinstance(one, str)]))
def test_no_name_in_a_record_leads_out_of_its_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "named"
    folder.mkdir(exist_ok=True)
    entry = {"sha256": "0" * 64, "bytes": 3, "origin": "converted"}
    Path(f"{folder}.files.json").write_text(json.dumps({"origin": "a", "dtype": "fp16", "files": {name: entry}}))
    try:
        record = read_folder_record(folder)
    except DownloadError as error:
        one_line(error)
        return
    assert record is not None
    assert [os.path.normpath(folder / one).startswith(f"{folder}{os.sep}") for one in record.files] == [True]
    assert name.isascii()
    assert name.isprintable()


def test_a_record_is_a_regular_file_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "prior.files.json"
    path.write_bytes(b" " * (MAX_RECORD_BYTES + 1))
    with pytest.raises(DownloadError, match="is damaged"):
        read_folder_record(tmp_path / "prior")


def test_only_regular_files_are_read_and_no_more_than_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    assert read_regular(tmp_path / "file", 5) == read_regular(tmp_path / "link", 9) == b"12345"
    for name, reason in (
        ("file", "larger than 4 bytes"),
        ("loop", "symbolic links"),
        ("pipe", "not a regular file"),
        (".", "directory"),
        ("none", "No such file"),
        ("/dev/zero", "not a regular file"),
    ):
        with pytest.raises(OSError, match=reason):
            read_regular(tmp_path / name, 4)
