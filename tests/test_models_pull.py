"""``dream3d models pull``, with a web server of our own and a pretend converter."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from weight_cache import (
    CONVERTED,
    DOWNLOADED,
    ENTRY,
    WEIGHTS,
    FakeConverter,
    empty_cache,
    fails,
    fake_converter,
    models,
    tree,
)
from weight_server import WeightServer, serving, sha256

from dream3d.errors import DownloadError, PriorError
from dream3d.weights import download as download_module
from dream3d.weights import table
from dream3d.weights.catalogue import catalogue
from dream3d.weights.obtain import Reporter
from dream3d.weights.pull import PullOptions, pull


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_cache(tmp_path / "cache", monkeypatch)


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> FakeConverter:
    return fake_converter(monkeypatch)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightServer]:
    with serving() as running:
        monkeypatch.setenv("DREAM3D_MIRROR", running.base + "/")
        yield running


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **more: Any) -> None:
        raise AssertionError(f"connects to {given}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_pull_downloads_converts_and_records(server: WeightServer, converter: FakeConverter, cache: Path) -> None:
    server.put("a/big.pt", WEIGHTS)
    result = models("pull", "big")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"big is in {cache}/priors/big (licence: OpenRAIL)"
    assert "big.pt: 100% of 0 MB" in result.stdout
    assert tree(cache) == CONVERTED | DOWNLOADED
    assert converter.calls == [("big.pt", "fp16")]
    assert f"{sha256(WEIGHTS)} (first download)" in models("info", "big").stdout
    assert models("path", "big").stdout == f"{cache}/priors/big\n"
    assert models("list").stdout.split("big ")[1].split()[0] == "yes"
    assert [info.present for info in catalogue()] == [True, True]
    assert models("verify", "big").stdout == "big: files checked: 10\n"
    # Again: nothing is fetched or converted.
    assert models("pull", "big").exit_code == 0
    assert len(server.requests) == len(converter.calls) == 1


def test_pull_takes_the_next_source(server: WeightServer, converter: FakeConverter, cache: Path) -> None:
    server.put("b/resolve/main/unet/config.json", b"{}")
    server.put("b/resolve/main/unet/w.safetensors", WEIGHTS)
    result = models("pull", "big")
    assert result.exit_code == 0, result.output
    assert "the server answers 404 Not Found; trying the a folder" in result.stdout
    assert converter.calls == [("dir", "fp16")]
    assert "downloads/big/dir/unet/w.safetensors" in tree(cache)


def test_discarded_downloads_stay_on_record(server: WeightServer, converter: FakeConverter, cache: Path) -> None:
    server.put("a/big.pt", WEIGHTS)
    assert models("pull", "big", "--discard-download").exit_code == 0
    assert tree(cache) == CONVERTED | {"downloads/big/big.pt.sha256.json"}
    assert models("verify").exit_code == 0
    # Asked for again in another number format, the file must still be the one of the first time.
    server.put("a/big.pt", WEIGHTS[::-1], etag='"v2"')
    line = fails(1, "pull", "big", "--dtype", "fp32")
    assert f"sha256 is {sha256(WEIGHTS[::-1])}, should be {sha256(WEIGHTS)} as at the first download" in line
    assert (cache / "priors/big/prior.json").read_bytes() == b"fp16prior.json"
    server.put("a/big.pt", WEIGHTS)
    assert models("pull", "big", "--dtype", "fp32").exit_code == 0
    assert (cache / "priors/big/prior.json").read_bytes() == b"fp32prior.json"
    assert tree(cache) == CONVERTED | DOWNLOADED


def test_no_network_says_what_to_place_where(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM3D_MIRROR", "http://127.0.0.1:9")
    line = fails(1, "pull", "big")
    assert "gave up after 3 attempts (no connection (ConnectionError))" in line
    assert f"place http://127.0.0.1:9/a/big.pt at {cache}/downloads/big/big.pt, or " in line
    assert line.endswith("then run 'dream3d models pull big --offline'; '--prior mini' works now")
    assert tree(cache) == set()


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("how", ["--offline", "1", "TRUE"])
def test_offline_never_connects(cache: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how != "--offline":
        monkeypatch.setenv("DREAM3D_OFFLINE", how)
    line = fails(2, "pull", "big", *([how] if how == "--offline" else []))
    assert line == (
        "prior 'big' cannot be pulled without the network: "
        f"place https://huggingface.co/a/big.pt at {cache}/downloads/big/big.pt, or "
        "place unet/config.json, unet/w.safetensors of https://huggingface.co/b "
        f"in {cache}/downloads/big/dir, then run 'dream3d models pull big --offline'; '--prior mini' works now"
    )


@pytest.mark.usefixtures("no_network")
def test_a_file_placed_by_hand_is_converted_offline(cache: Path, converter: FakeConverter) -> None:
    (cache / "downloads/big").mkdir(parents=True)
    (cache / "downloads/big/big.pt").write_bytes(WEIGHTS)
    assert "not converted" in models("list").stdout
    assert "but its download is here: run 'dream3d models pull big --offline'" in fails(1, "path", "big")
    result = models("pull", "big", "--offline")
    assert result.exit_code == 0, result.output
    assert tree(cache) == CONVERTED | DOWNLOADED


@pytest.mark.usefixtures("no_network")
def test_a_damaged_file_offline_is_named(cache: Path, server: WeightServer, converter: FakeConverter) -> None:
    (cache / "downloads/big").mkdir(parents=True)
    file = cache / "downloads/big/big.pt"
    file.write_bytes(WEIGHTS)
    assert models("pull", "big", "--offline").exit_code == 0
    file.write_bytes(b"x" + WEIGHTS[1:])
    line = fails(2, "pull", "big", "--offline", "--dtype", "fp32")
    assert f"without the network: {file} is damaged: sha256" in line
    assert f"(delete {file}.sha256.json if this version is meant)" in line


@pytest.mark.usefixtures("no_network")
def test_a_half_copied_file_is_not_converted(
    cache: Path, converter: FakeConverter, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = dataclasses.replace(ENTRY.sources[0].files[0], about_bytes=5_000_000)
    source = dataclasses.replace(ENTRY.sources[0], files=(large,))
    monkeypatch.setattr(table, "ENTRIES", (dataclasses.replace(ENTRY, sources=(source,)),))
    (cache / "downloads/big").mkdir(parents=True)
    (cache / "downloads/big/big.pt").write_bytes(bytes(3_999_999))
    line = fails(2, "pull", "big", "--offline")
    assert f"{cache}/downloads/big/big.pt is damaged: 3999999 bytes, should be 5000000; place " in line
    assert converter.calls == []
    (cache / "downloads/big/big.pt").write_bytes(bytes(4_000_000))
    assert models("pull", "big", "--offline").exit_code == 0


def test_pull_fetches_a_damaged_download_again(server: WeightServer, converter: FakeConverter, cache: Path) -> None:
    server.put("a/big.pt", WEIGHTS)
    assert models("pull", "big").exit_code == 0
    (cache / "downloads/big/big.pt").write_bytes(WEIGHTS[:1000])
    shutil.rmtree(cache / "priors/big")
    assert "downloading it again" in models("pull", "big").stdout
    assert (cache / "downloads/big/big.pt").read_bytes() == WEIGHTS


@pytest.mark.parametrize("failure", [PriorError("big.pt: the tensor 'x' is unknown"), KeyboardInterrupt(), OSError(28)])
def test_a_failed_conversion_leaves_nothing(
    server: WeightServer, converter: FakeConverter, cache: Path, failure: Exception
) -> None:
    server.put("a/big.pt", WEIGHTS)
    converter.failure = failure
    result = models("pull", "big")
    assert result.exit_code == {PriorError: 2, KeyboardInterrupt: 130}.get(type(failure), 1)
    assert len(result.stderr.splitlines()) == 1
    assert tree(cache) == DOWNLOADED
    if isinstance(failure, PriorError):
        assert f"the tensor 'x' is unknown (delete {cache}/downloads/big and pull again)" in result.stderr


def test_an_incomplete_conversion_is_noticed(server: WeightServer, converter: FakeConverter, cache: Path) -> None:
    server.put("a/big.pt", WEIGHTS)
    converter.forgets = "prior.json"
    assert "did not write prior.json" in fails(2, "pull", "big")
    assert tree(cache) == DOWNLOADED


@pytest.mark.parametrize("left", [".big-dream3d-k1ll3d_x", ".big-dream3d-k1ll3d_x.tmp"])
def test_what_a_killed_process_left_is_cleared(
    server: WeightServer, converter: FakeConverter, cache: Path, left: str
) -> None:
    for name in (left, ".bigger-dream3d-k1ll3d_x"):
        (cache / "priors" / name / "new").mkdir(parents=True)
        (cache / "priors" / name / "new/half.safetensors").write_bytes(b"half")
    server.put("a/big.pt", WEIGHTS)
    assert models("pull", "big").exit_code == 0
    assert tree(cache) == CONVERTED | DOWNLOADED | {"priors/.bigger-dream3d-k1ll3d_x/new/half.safetensors"}


def test_a_disk_too_small_for_the_conversion(
    server: WeightServer, converter: FakeConverter, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "downloads/big").mkdir(parents=True)
    (cache / "downloads/big/big.pt").write_bytes(WEIGHTS)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=download_module.SPARE_BYTES + 1999))
    assert "make room, or name another folder with DREAM3D_CACHE" in fails(1, "pull", "big", "--dtype", "fp32")
    assert converter.calls == []
    assert models("pull", "big").exit_code == 0


def test_two_pulls_at_once_download_once(server: WeightServer, converter: FakeConverter, cache: Path) -> None:
    gate = threading.Event()
    server.put("a/big.pt", WEIGHTS, wait=gate)
    said: list[str] = []

    def notify(line: str) -> None:
        said.append(line)
        if "waiting" in line:
            gate.set()

    workers = [threading.Thread(target=pull, args=(ENTRY, PullOptions(), Reporter(notify))) for _ in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert len(server.requests) == len(converter.calls) == 1
    assert sum("another process is at work on big" in line for line in said) == 1
    assert tree(cache) == CONVERTED | DOWNLOADED


def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.write_text("a file in the way")
    with pytest.raises(DownloadError, match=r"cannot be written .* name another folder with DREAM3D_CACHE"):
        pull(ENTRY, PullOptions(), Reporter())
