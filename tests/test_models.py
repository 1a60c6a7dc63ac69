"""``dream3d models``: list, info, path, convert, and what all commands share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from weight_cache import (
    FILES,
    FakeConverter,
    empty_cache,
    fails,
    fake_converter,
    models,
    tree,
)

from dream3d.cli.console import UnfailingConsole
from dream3d.cli.transfer import transferring
from dream3d.errors import PriorError
from dream3d.weights.catalogue import catalogue
from dream3d.weights.loading import load_prior
from dream3d.weights.table import ENTRIES, hub_base, mirrored

ROOT = Path(__file__).parent.parent
COMMANDS = ("list", "info", "pull", "verify", "path", "convert")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_cache(tmp_path / "cache", monkeypatch)


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> FakeConverter:
    return fake_converter(monkeypatch)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **more: Any) -> None:
        raise AssertionError(f"connects to {given}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_the_real_table_is_what_was_published() -> None:
    sd21, sd15, mvrag = ENTRIES
    assert (sd21.name, sd15.name, mvrag.name) == ("mvdream-sd21", "mvdream-sd15", "mvrag")
    assert sd21.sources[0].files[0].urls == (
        "https://huggingface.co/MVDream/MVDream/resolve/main/sd-v2.1-base-4view.pt",
    )
    assert sd15.sources[0].files[0].path == "sd-v1.5-4view.pt"
    assert sd21.sources[1].files[0].urls == (
        "https://huggingface.co/ashawkey/mvdream-sd2.1-diffusers/resolve/main/unet/diffusion_pytorch_model.safetensors",
    )
    # fp32 tensors of the UNet, the VAE and the text tower (docs/method.md, Official weights); the published 5.22 GB
    tensors = 4 * (867_572_164 + 83_653_863 + 354_032_641)
    assert abs(sd21.sources[0].about_bytes - tensors) < 1e6
    file = sd21.sources[0].files[0]
    assert file.at_least < tensors < file.limit
    # MV-RAG's UNet, in half or in single precision.
    unet, *_ = mvrag.sources[0].files
    assert unet.at_least < 2 * 893_131_204 < 4 * 893_131_204 < unet.limit
    # Tokenizer, scheduler and configurations are never fetched.
    assert {file.path.rpartition(".")[2] for entry in ENTRIES for source in entry.sources for file in source.files} == {
        "pt",
        "safetensors",
    }


def test_list_shows_what_is_here_and_what_is_not() -> None:
    result = models("list")
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert rows["mini"][1:5] == ["yes", "56", "MB", "CC-BY-4.0"]
    assert rows["big"][1:5] == ["no", "0", "MB", "OpenRAIL"]


def test_info_tells_sources_and_places(cache: Path) -> None:
    shown = models("info", "big").stdout
    assert "licence  OpenRAIL" in shown
    assert "from   https://huggingface.co/a/big.pt" in shown
    assert f"to     {cache}/downloads/big/big.pt (not downloaded)" in shown
    assert "sha256 recorded at the first download" in shown
    assert f"folder   {cache}/priors/big" in shown
    assert "56 MB, inside the package" in models("info", "mini").stdout


@pytest.mark.usefixtures("no_network")
def test_every_other_command_works_without_a_network() -> None:
    assert models("list").exit_code == 0
    assert models("info", "big").exit_code == 0
    assert models("verify").stdout == "mini: files checked: 11\nbig: not installed\n"


@pytest.mark.parametrize("value", ["maybe", "2"])
def test_an_unclear_wish_to_be_offline_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM3D_OFFLINE", value)
    assert fails(2, "pull", "big") == f"DREAM3D_OFFLINE is {value!r}; use 1 or 0"


def test_the_mirror_replaces_the_hub_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM3D_MIRROR", "https://example.org/hub/")
    assert mirrored("https://huggingface.co/a/b") == "https://example.org/hub/a/b"
    assert mirrored("https://huggingface.com.example/a") == "https://huggingface.com.example/a"
    monkeypatch.setenv("DREAM3D_MIRROR", "http://example.org")
    assert "DREAM3D_MIRROR is 'http://example.org'; give an address" in fails(2, "pull", "big")
    monkeypatch.setenv("DREAM3D_MIRROR", "")
    assert hub_base() == "https://huggingface.co"


def test_a_prior_that_is_not_here_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(PriorError) as caught:
        load_prior("big")
    message = str(caught.value)
    assert message.startswith(
        "prior 'big' is not installed: run 'dream3d models pull big', or without a network place http"
    )
    assert f"big.pt at {cache}/downloads/big/big.pt" in message
    assert message.endswith("'--prior mini' works now")
    assert fails(1, "path", "big") == fails(1, "verify", "big") == message
    for name in FILES[1:]:
        (cache / "priors/big" / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / "priors/big" / name).touch()
    assert f"is incomplete, {cache}/priors/big/prior.json is missing" in fails(1, "path", "big")


@pytest.mark.parametrize("command", ["info", "pull", "verify", "path"])
def test_unknown_names_list_the_known(command: str) -> None:
    assert fails(2, command, "maxi") == "unknown prior 'maxi'; known: mini, big"


def test_a_cache_that_cannot_be_read_does_not_stop_mini(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Any, *given: Any, **more: Any) -> Any:
        if str(path).startswith(str(cache)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *given, **more)

    real = os.stat
    monkeypatch.setattr(os, "stat", denied)
    assert [info.present for info in catalogue()] == [True, False]
    assert models("path", "mini").exit_code == 0


def test_mini_needs_no_pull() -> None:
    assert models("pull", "mini").stdout == "mini is inside the package; there is nothing to pull\n"
    assert models("path", "mini").stdout == f"{ROOT / 'dream3d/priors/mini'}\n"


def test_convert_writes_a_folder_whole_or_not_at_all(tmp_path: Path, converter: FakeConverter) -> None:
    source, target = tmp_path / "x.pt", tmp_path / "new" / "prior"
    assert fails(2, "convert", str(source), str(target)).startswith(f"{source} does not exist")
    source.write_bytes(b"x")
    converter.failure = PriorError("x.pt is not a checkpoint")
    assert fails(2, "convert", str(source), str(target)) == "x.pt is not a checkpoint"
    assert list(target.parent.iterdir()) == []
    converter.failure = None
    result = models("convert", str(source), str(target), "--dtype", "fp32")
    assert (result.exit_code, result.stdout) == (0, f"{target}\n")
    assert converter.calls[-1] == ("x.pt", "fp32")
    assert tree(target) == set(FILES)
    assert "exists already" in fails(2, "convert", str(source), str(target))
    assert "lies inside" in fails(2, "convert", str(target), str(target / "again"))
    assert "'fp8' is not one of" in fails(2, "convert", str(source), str(tmp_path / "y"), "--dtype", "fp8")


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with transferring(UnfailingConsole(force_interactive=False, width=100)) as watch:
        for done in range(0, 101, 5):
            watch.progress("dir/a.bin", done * 10**6, 10**8)
        watch.progress("b.bin", 2_500_000_000, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "dir/a.bin: 10% of 100 MB"
    assert lines[9:] == ["dir/a.bin: 100% of 100 MB", "b.bin: 2.5 GB"]
    with transferring(UnfailingConsole(force_terminal=True, width=100)) as watch:
        watch.progress("dir/a.bin", 10**8, 10**8)
        watch.notify("a [b]line[/b]")
    shown = capsys.readouterr().out
    assert "a [b]line[/b]" in shown
    assert "100.0/100.0 MB" in shown
    assert shown.endswith("\x1b[?25h")  # the cursor is back


@pytest.mark.parametrize("arguments", [["list"], ["path", "mini"], ["pull", "mvdream-sd15", "--offline"]])
def test_no_heavy_library_is_imported(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom dream3d.cli.app import app\n"
        "try:\n app(['models', *sys.argv[1:]])\nexcept SystemExit: pass\n"
        "print('heavy:', *({'torch', 'numpy', 'diffusers', 'requests'} & set(sys.modules)))"
    )
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert run.stdout.splitlines()[-1] == "heavy:"
    assert "Traceback" not in run.stderr


def test_every_option_is_documented() -> None:
    text = (ROOT / "docs/models.md").read_text("utf-8")
    for command in COMMANDS:
        shown = models(command, "--help").stdout
        assert f"`dream3d models {command}" in text
        options = {word for word in shown.replace(",", " ").split() if word.startswith("--")}
        assert not {option for option in options if f"`{option}" not in text}
    assert all(entry.name in text for entry in ENTRIES)


def test_models_alone_shows_its_commands() -> None:
    result = models()
    assert result.exit_code == 0
    assert all(f"  {command} " in result.stdout for command in COMMANDS)
    assert "did you mean 'pull'" in fails(2, "pul")
