"""Downloads: what is refused or given up, with every address named, and what then stays."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from downloads import BODY, HASTY, OTHER, names, refuse, wanted
from weight_server import WeightServer, sha256

from dream3d.errors import DownloadError
from dream3d.weights import download
from dream3d.weights.download import DownloadSpec, download_file
from dream3d.weights.table import RemoteFile, Source, check_relative, is_allowed


def test_an_encoding_that_was_not_asked_for_is_refused(server: WeightServer, target: Path) -> None:
    server.put("w", BODY, encoding="gzip")
    assert "the server sends gzip data, which was not asked for" in refuse(target, wanted(server.url("w")))


def test_another_version_on_a_mirror_does_not_cost_the_part(server: WeightServer, target: Path) -> None:
    server.put("one", BODY, cuts=[150_000, 0])
    server.put("two", b"something else", etag='"z"')
    asked = wanted(server.url("one"), server.url("two"), size=len(BODY))
    assert f"{server.url('two')}: offers 14 bytes, should be 262144" in refuse(target, asked)
    assert target.with_name("weights.pt.part").stat().st_size > 0


def test_every_address_that_fails_is_named(server: WeightServer, target: Path) -> None:
    server.put("two", BODY, status=403)
    message = refuse(target, wanted(server.url("one"), server.url("two")))
    assert "one: the server answers 404 Not Found" in message
    assert "two: the server answers 403 Forbidden" in message
    server.put("two", BODY, status=401)  # what the hub answers for a repository that was deleted
    assert "401 Unauthorized (the repository is gone, private, or asks for a login)" in refuse(
        target, wanted(server.url("two"))
    )


def test_a_busy_server_is_asked_again(server: WeightServer, target: Path) -> None:
    server.put("w", BODY, status=503)
    assert "gave up after 5 attempts (the server answers 503" in refuse(target, wanted(server.url("w")))
    assert len(server.requests) == 5


def test_a_wrong_size_is_refused_before_the_body(server: WeightServer, target: Path) -> None:
    server.put("w", BODY)
    assert "offers 262144 bytes, should be 1000" in refuse(target, wanted(server.url("w"), size=1000))
    assert names(target.parent) == set()


def test_a_login_page_is_no_weight_file(server: WeightServer, target: Path) -> None:
    server.put("w", b"<html>Please log in</html>")
    asked = DownloadSpec((server.url("w"),), limit=10**6, at_least=1000)
    assert "offers 26 bytes, at least 1000 are expected" in refuse(target, asked)


def test_more_than_the_limit_is_refused(server: WeightServer, target: Path) -> None:
    server.put("w", BODY * 3)
    assert "offers 786432 bytes, at most 524288 are expected" in refuse(target, wanted(server.url("w")))
    server.put("w", BODY * 3, chunked=True)
    assert "sends more than 524288 bytes" in refuse(target, wanted(server.url("w")))
    assert names(target.parent) == set()


def test_a_length_that_is_not_told_is_no_reason_to_guess(server: WeightServer, target: Path) -> None:
    server.put("w", BODY, length=False)
    assert "does not say how long the file is" in refuse(target, wanted(server.url("w")))
    server.put("w", BODY, chunked=True)
    download_file(wanted(server.url("w")), target)
    assert target.read_bytes() == BODY


def test_a_wrong_hash_removes_the_file(server: WeightServer, target: Path) -> None:
    server.put("w", BODY)
    message = refuse(target, wanted(server.url("w"), digest=sha256(OTHER)))
    assert f"sha256 is {sha256(BODY)}, should be {sha256(OTHER)}; the file was removed" in message
    assert names(target.parent) == set()


def test_an_old_file_outlives_a_failed_download(server: WeightServer, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(DownloadError, match="404"):
        download_file(wanted(server.url("w")), target, retries=HASTY)
    assert target.read_bytes() == b"old"


def test_a_server_that_always_cuts_is_given_up(server: WeightServer, target: Path) -> None:
    server.put("w", BODY, ranges=False, cuts=[150_000])
    message = refuse(target, wanted(server.url("w")))
    assert "gave up after 5 attempts" in message
    assert "of 262144 bytes" in message or "the connection broke off" in message
    assert len(server.requests) == 5
    assert 0 < target.with_name("weights.pt.part").stat().st_size <= 150_000


def test_nobody_listens(target: Path) -> None:
    message = refuse(target, wanted("http://127.0.0.1:9/w"))
    assert "gave up after 3 attempts (no connection (ConnectionError))" in message


def test_redirects_are_followed_to_https_only(server: WeightServer, target: Path) -> None:
    server.put("from", b"", status=302, location="/w")
    server.put("w", BODY)
    download_file(wanted(server.url("from")), target)
    assert target.read_bytes() == BODY
    target.unlink()
    server.put("from", b"", status=302, location="http://example.org/w?token=secret")
    message = refuse(target, wanted(server.url("from")))
    assert message.endswith("leads to http://example.org/w, which is not https")
    server.put("from", b"", status=302, location="/from")
    assert "more than 10 redirects" in refuse(target, wanted(server.url("from")))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://huggingface.co/a", True),
        ("http://127.0.0.1:8000/a", True),
        ("http://localhost/a", True),
        ("http://huggingface.co/a", False),
        ("http://127.0.0.1.example.org/a", False),
        ("http://localhost@example.org/a", False),
        ("file:///etc/passwd", False),
        ("https://", False),
    ],
)
def test_which_addresses_are_read(url: str, allowed: bool) -> None:
    assert is_allowed(url) is allowed


def test_a_full_disk_is_noticed_beforehand(server: WeightServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put("w", BODY)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=download.SPARE_BYTES + len(BODY) - 1))
    message = refuse(target, wanted(server.url("w")))
    assert message.startswith(f"{target.parent}: 0.07 GB are needed and 0.07 GB are free; make room")
    assert names(target.parent) == set()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=download.SPARE_BYTES + len(BODY)))
    download_file(wanted(server.url("w")), target)


def test_a_folder_that_cannot_be_written_is_named(server: WeightServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refuse(tmp_path / "file" / "w.pt", wanted(server.url("w")))
    assert "cannot be written" in message
    assert "DREAM3D_CACHE" in message


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a/../../x", "a//b", "", ".", "C:/x", "a\\..\\x", "a/", ".hidden", "~/x", "a\nb"]
)
def test_a_path_of_the_table_cannot_leave_the_folder(path: str) -> None:
    with pytest.raises(ValueError, match="not a plain relative path"):
        check_relative(path)
    with pytest.raises(ValueError, match="not a plain relative path"):
        RemoteFile(path, ("https://example.org/x",), 1)
    with pytest.raises(ValueError, match="not a plain relative path"):
        Source("x", (), path)
