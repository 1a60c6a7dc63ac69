"""Downloads: resumed, checked, and never mistaken for complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from weight_server import WeightServer, serving, sha256

from dream3d.errors import DownloadError
from dream3d.weights import download, partial
from dream3d.weights.download import Patience, Wanted, download_file
from dream3d.weights.records import Record, read_record
from dream3d.weights.table import RemoteFile, Source, check_relative, is_allowed

BODY = bytes(range(256)) * 1024  # 256 KiB
OTHER = BODY[::-1]
HASTY = Patience(first_wait=0.0, timeout=5.0)


@pytest.fixture
def server() -> Iterator[WeightServer]:
    with serving() as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "sub" / "weights.pt"


def wanted(*urls: str, size: int | None = None, digest: str | None = None) -> Wanted:
    return Wanted(urls, limit=size or 2 * len(BODY), size=size, sha256=digest)


def names(folder: Path) -> set[str]:
    """What lies in a folder, lock files aside."""
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def refuse(target: Path, asked: Wanted) -> str:
    with pytest.raises(DownloadError) as caught:
        download_file(asked, target, patience=HASTY)
    assert not target.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_fresh_download_is_complete_and_recorded(server: WeightServer, target: Path) -> None:
    server.put("w", BODY)
    seen: list[tuple[int, int | None]] = []
    record = download_file(
        wanted(server.url("w"), size=len(BODY), digest=sha256(BODY)), target, lambda *figures: seen.append(figures)
    )
    assert target.read_bytes() == BODY
    assert record == Record(sha256(BODY), 262144, server.url("w")) == read_record(target)
    assert seen[-1] == (262144, 262144)
    assert names(target.parent) == {"weights.pt", "weights.pt.sha256.json"}


def test_a_cut_connection_is_taken_up_where_it_broke(server: WeightServer, target: Path) -> None:
    server.put("w", BODY, cuts=[150_000, 70_000, None])
    download_file(wanted(server.url("w")), target, patience=HASTY)
    assert target.read_bytes() == BODY
    first, *later = server.ranges_of("w")
    assert first is None
    assert len(later) == 2
    assert all(asked is not None and asked != "bytes=0-" for asked in later)


def test_a_server_that_gives_short_ranges_is_asked_on(server: WeightServer, target: Path) -> None:
    server.put("w", BODY, cuts=[140_000, None], span=60_000)
    download_file(wanted(server.url("w")), target, patience=HASTY)
    assert target.read_bytes() == BODY
    assert len(server.requests) == 4


def test_an_encoding_that_was_not_asked_for_is_refused(server: WeightServer, target: Path) -> None:
    server.put("w", BODY, encoding="gzip")
    assert "the server sends gzip data, which was not asked for" in refuse(target, wanted(server.url("w")))


def test_a_later_call_goes_on_from_the_part(server: WeightServer, target: Path) -> None:
    file = server.put("w", BODY, cuts=[140_000, 0])
    assert "bytes are kept, run the command again to go on" in refuse(target, wanted(server.url("w")))
    kept = target.with_name("weights.pt.part").stat().st_size
    assert 0 < kept <= 140_000
    file.cuts = []
    server.requests.clear()
    download_file(wanted(server.url("w"), digest=sha256(BODY)), target, patience=HASTY)
    assert target.read_bytes() == BODY
    assert server.ranges_of("w") == [f"bytes={kept}-"]


def test_a_part_that_is_whole_needs_no_request(server: WeightServer, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("weights.pt.part").write_bytes(BODY)
    target.with_name("weights.pt.part.json").write_text(json.dumps({"validator": '"v1"', "total": len(BODY)}))
    download_file(wanted(server.url("w"), digest=sha256(BODY)), target)
    assert target.read_bytes() == BODY
    assert server.requests == []


@pytest.mark.parametrize("state", [b"", b"{", b"[1]", b'{"validator": "x", "total": "y"}', b'{"total": 3}'])
def test_a_part_with_a_damaged_state_is_not_trusted(server: WeightServer, target: Path, state: bytes) -> None:
    server.put("w", BODY)
    target.parent.mkdir()
    target.with_name("weights.pt.part").write_bytes(OTHER[:1000])
    target.with_name("weights.pt.part.json").write_bytes(state)
    download_file(wanted(server.url("w")), target)
    assert target.read_bytes() == BODY
    assert server.ranges_of("w") == [None]


def test_a_server_without_ranges_sends_all_again(server: WeightServer, target: Path) -> None:
    server.put("w", BODY, ranges=False, cuts=[150_000, None])
    download_file(wanted(server.url("w")), target, patience=HASTY)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_mark_nothing_is_resumed(server: WeightServer, target: Path, etag: str | None) -> None:
    server.put("w", BODY, etag=etag, cuts=[150_000, None])
    download_file(wanted(server.url("w")), target, patience=HASTY)
    assert target.read_bytes() == BODY
    assert server.ranges_of("w") == [None, None]


@pytest.mark.parametrize("heeds", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_anew(server: WeightServer, target: Path, heeds: bool) -> None:
    file = server.put("w", BODY, cuts=[150_000, 0])
    refuse(target, wanted(server.url("w")))
    file.body, file.etag, file.heeds_if_range, file.cuts = OTHER, '"v2"', heeds, []
    download_file(wanted(server.url("w")), target, patience=HASTY)
    assert target.read_bytes() == OTHER  # and no mixture of both


def test_a_part_longer_than_the_file_starts_again(server: WeightServer, target: Path) -> None:
    server.put("w", BODY)
    target.parent.mkdir()
    target.with_name("weights.pt.part").write_bytes(BODY * 2)
    target.with_name("weights.pt.part.json").write_text(json.dumps({"validator": '"v1"', "total": len(BODY)}))
    download_file(wanted(server.url("w")), target, patience=HASTY)
    assert target.read_bytes() == BODY


def test_mirrors_are_tried_in_turn(server: WeightServer, target: Path) -> None:
    server.put("two", BODY)
    said: list[str] = []
    download_file(wanted(server.url("one"), server.url("two")), target, notify=said.append, patience=HASTY)
    assert target.read_bytes() == BODY
    assert said == [f"{server.url('one')}: the server answers 404 Not Found; trying {server.url('two')}"]


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
    asked = Wanted((server.url("w"),), limit=10**6, at_least=1000)
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
        download_file(wanted(server.url("w")), target, patience=HASTY)
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


def test_a_disk_that_fills_up_keeps_the_part(
    server: WeightServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("w", BODY)

    def append(self: partial.Partial, chunk: bytes) -> None:
        if self.offset > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, chunk)

    real = partial.Partial.append
    monkeypatch.setattr(partial.Partial, "append", append)
    assert "the disk is full; make room and run the command again" in refuse(target, wanted(server.url("w")))
    monkeypatch.undo()
    server.requests.clear()
    download_file(wanted(server.url("w"), digest=sha256(BODY)), target)
    assert server.ranges_of("w") == ["bytes=131072-"]


def test_a_folder_that_cannot_be_written_is_named(server: WeightServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refuse(tmp_path / "file" / "w.pt", wanted(server.url("w")))
    assert "cannot be written" in message
    assert "DREAM3D_CACHE" in message


def test_two_at_once_do_not_mix(server: WeightServer, target: Path) -> None:
    gate = threading.Event()
    server.put("w", BODY, wait=gate)
    said: list[str] = []
    asked = wanted(server.url("w"), digest=sha256(BODY))

    def notify(line: str) -> None:
        said.append(line)
        gate.set()  # the second one waits: now the first may go on

    workers = [threading.Thread(target=download_file, args=(asked, target), kwargs={"notify": notify}) for _ in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert target.read_bytes() == BODY
    assert said == ["another process is at work on weights.pt; waiting for it (Ctrl-C to give up)"]
    assert names(target.parent) == {"weights.pt", "weights.pt.sha256.json"}


def test_an_interrupted_download_leaves_no_final_file(server: WeightServer, target: Path) -> None:
    server.put("w", BODY)

    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_file(wanted(server.url("w")), target, stop)
    assert names(target.parent) == {"weights.pt.part", "weights.pt.part.json"}


def test_a_killed_process_leaves_a_part_to_go_on_from(server: WeightServer, target: Path) -> None:
    file = server.put("w", BODY, cuts=[200_000], hold=threading.Event())
    code = (
        "import sys; from pathlib import Path; from dream3d.weights.download import *\n"
        "download_file(Wanted((sys.argv[1],), 10**6), Path(sys.argv[2]), lambda done, total: print(done, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, server.url("w"), str(target)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 131_072:
            pass
        process.kill()
    assert file.hold is not None
    file.hold.set()
    assert names(target.parent) == {"weights.pt.part", "weights.pt.part.json"}
    kept = target.with_name("weights.pt.part").stat().st_size
    assert kept >= 131_072
    file.cuts = []
    download_file(wanted(server.url("w"), digest=sha256(BODY)), target)
    assert server.ranges_of("w") == [None, f"bytes={kept}-"]
    assert target.read_bytes() == BODY


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


def test_a_part_is_taken_up_with_its_hash(tmp_path: Path) -> None:
    part = partial.Partial(tmp_path / "x")
    part.restart('"v"', 4)
    with part.appending():
        part.append(b"ab")
    again = partial.Partial(tmp_path / "x")
    assert (again.resumable_bytes, again.complete, again.sha256) == (2, False, sha256(b"ab"))
