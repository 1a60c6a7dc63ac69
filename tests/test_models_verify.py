"""``dream3d models verify``: what is damaged, missing or half-done is found, and pull mends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
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
from weight_server import WeightServer, serving

from dream3d.weights.records import write_folder_record
from dream3d.weights.store import prior_folder


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


def test_a_converted_folder_needs_every_file_it_once_had(cache: Path, converter: FakeConverter) -> None:
    converter.fill(cache / "priors/big", "fp16")
    (cache / "priors/big/vae.safetensors").touch()
    write_folder_record(prior_folder(ENTRY), "x", "fp16")
    assert models("path", "big").exit_code == 0
    (cache / "priors/big/vae.safetensors").unlink()
    assert f"is incomplete, {cache}/priors/big/vae.safetensors is missing" in fails(1, "path", "big")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda file: file.write_bytes(b"x" + WEIGHTS[1:]), "damaged: sha256"),
        (lambda file: file.write_bytes(WEIGHTS[:-1]), "damaged: 262143 bytes, should be 262144"),
        (lambda file: file.rename(file.with_name("bigger.pt")), "missing (removed or renamed)"),
        (lambda file: Path(f"{file}.sha256.json").write_text("{"), "big.pt.sha256.json is damaged"),
    ],
)
def test_verify_finds_damaged_downloads(
    server: WeightServer, converter: FakeConverter, cache: Path, damage: Any, says: str
) -> None:
    server.put("a/big.pt", WEIGHTS)
    assert models("pull", "big").exit_code == 0
    damage(cache / "downloads/big/big.pt")
    result = models("verify")
    assert result.exit_code == 1
    assert says in result.stdout
    assert result.stderr.startswith(f"error: 1 damaged or missing, first {cache}/downloads/big/big.pt;")


def test_verify_finds_damage_in_the_folder_and_pull_mends_it(
    server: WeightServer, converter: FakeConverter, cache: Path
) -> None:
    server.put("a/big.pt", WEIGHTS)
    assert models("pull", "big").exit_code == 0
    (cache / "priors/big/unet/config.json").write_bytes(b"{")
    assert "unet/config.json: damaged: 1 bytes, should be 20" in models("verify", "big").stdout
    assert models("pull", "big").exit_code == 0
    assert (cache / "priors/big/unet/config.json").read_bytes() == b"fp16unet/config.json"
    assert len(server.requests) == 1  # the download was sound
    assert tree(cache) == CONVERTED | DOWNLOADED


def test_half_a_download_is_reported_and_taken_up(server: WeightServer, converter: FakeConverter, cache: Path) -> None:
    file = server.put("a/big.pt", WEIGHTS, cuts=[150_000, 0])
    assert "bytes are kept, run the command again to go on" in fails(1, "pull", "big")
    assert converter.calls == []
    assert models("path", "big").exit_code == 1
    result = models("verify")
    assert result.exit_code == 0
    assert "big.pt.part: half-downloaded, " in result.stdout
    file.cuts = []
    assert models("pull", "big").exit_code == 0
    assert tree(cache) == CONVERTED | DOWNLOADED


def test_a_folder_copied_by_hand_is_taken_as_it_is(cache: Path, converter: FakeConverter) -> None:
    converter.fill(cache / "priors/big", "fp16")
    assert "was placed by hand and is taken as it is" in models("pull", "big", "--offline").stdout
    assert models("path", "big").exit_code == 0
    assert "prior.json: no record" in models("verify", "big").stdout
    write_folder_record(prior_folder(ENTRY), "x", "fp16")
    assert models("verify", "big").stdout == "big: files checked: 9\n"
