"""Downloads: resumed, complete and recorded, or not there."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from downloads import BODY, HASTY, OTHER, names, refuse, wanted
from weight_server import WeightServer, sha256

from dream3d.weights import partial
from dream3d.weights.download import download_file
from dream3d.weights.records import Record, read_record


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
    download_file(wanted(server.url("w")), target, retries=HASTY)
    assert target.read_bytes() == BODY
    first, *later = server.ranges_of("w")
    assert first is None
    assert len(later) == 2
    assert all(asked is not None and asked != "bytes=0-" for asked in later)


def test_a_server_that_gives_short_ranges_is_asked_on(server: WeightServer, target: Path) -> None:
    server.put("w", BODY, cuts=[140_000, None], span=60_000)
    download_file(wanted(server.url("w")), target, retries=HASTY)
    assert target.read_bytes() == BODY
    assert len(server.requests) == 4


def test_a_later_call_goes_on_from_the_part(server: WeightServer, target: Path) -> None:
    file = server.put("w", BODY, cuts=[140_000, 0])
    assert "bytes are kept, run the command again to go on" in refuse(target, wanted(server.url("w")))
    kept = target.with_name("weights.pt.part").stat().st_size
    assert 0 < kept <= 140_000
    file.cuts = []
    server.requests.clear()
    download_file(wanted(server.url("w"), digest=sha256(BODY)), target, retries=HASTY)
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
    download_file(wanted(server.url("w")), target, retries=HASTY)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_mark_nothing_is_resumed(server: WeightServer, target: Path, etag: str | None) -> None:
    server.put("w", BODY, etag=etag, cuts=[150_000, None])
    download_file(wanted(server.url("w")), target, retries=HASTY)
    assert target.read_bytes() == BODY
    assert server.ranges_of("w") == [None, None]


@pytest.mark.parametrize("heeds", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_anew(server: WeightServer, target: Path, heeds: bool) -> None:
    file = server.put("w", BODY, cuts=[150_000, 0])
    refuse(target, wanted(server.url("w")))
    file.body, file.etag, file.heeds_if_range, file.cuts = OTHER, '"v2"', heeds, []
    download_file(wanted(server.url("w")), target, retries=HASTY)
    assert target.read_bytes() == OTHER  # and no mixture of both


def test_a_part_longer_than_the_file_starts_again(server: WeightServer, target: Path) -> None:
    server.put("w", BODY)
    target.parent.mkdir()
    target.with_name("weights.pt.part").write_bytes(BODY * 2)
    target.with_name("weights.pt.part.json").write_text(json.dumps({"validator": '"v1"', "total": len(BODY)}))
    download_file(wanted(server.url("w")), target, retries=HASTY)
    assert target.read_bytes() == BODY


def test_mirrors_are_tried_in_turn(server: WeightServer, target: Path) -> None:
    server.put("two", BODY)
    said: list[str] = []
    download_file(wanted(server.url("one"), server.url("two")), target, notify=said.append, retries=HASTY)
    assert target.read_bytes() == BODY
    assert said == [f"{server.url('one')}: the server answers 404 Not Found; trying {server.url('two')}"]


def test_a_disk_that_fills_up_keeps_the_part(
    server: WeightServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("w", BODY)

    def receive(self: partial.Partial, chunks: Iterable[bytes], limit: int, progress: Callable[[int], None]) -> bool:
        def until_full() -> Iterator[bytes]:
            for chunk in chunks:
                if self.offset > 100_000:
                    raise OSError(errno.ENOSPC, "No space left on device")
                yield chunk

        return real(self, until_full(), limit, progress)

    real = partial.Partial.receive
    monkeypatch.setattr(partial.Partial, "receive", receive)
    assert "the disk is full; make room and run the command again" in refuse(target, wanted(server.url("w")))
    monkeypatch.undo()
    server.requests.clear()
    download_file(wanted(server.url("w"), digest=sha256(BODY)), target)
    assert server.ranges_of("w") == ["bytes=131072-"]


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
        "spec = DownloadSpec((sys.argv[1],), 10**6)\n"
        "download_file(spec, Path(sys.argv[2]), lambda done, total: print(done, flush=True))"
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


def test_a_part_is_taken_up_with_its_hash(tmp_path: Path) -> None:
    part = partial.Partial(tmp_path / "x")
    part.restart('"v"', 4)
    told: list[int] = []
    assert part.receive([b"a", b"b"], 4, told.append)
    assert told == [1, 2]
    again = partial.Partial(tmp_path / "x")
    assert (again.resumable_bytes, again.complete, again.sha256) == (2, False, sha256(b"ab"))
