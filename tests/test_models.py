"""``dream3d models``: list, info, pull, verify, path, convert, with a web server of our own and a pretend converter."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result
from weight_server import WeightServer, serving, sha256

from dream3d.cli.app import app
from dream3d.cli.transfer import transferring
from dream3d.errors import DownloadError, PriorError
from dream3d.weights import download as download_module
from dream3d.weights import table as sources_module
from dream3d.weights.catalogue import catalogue
from dream3d.weights.loading import load_prior
from dream3d.weights.pull import PullOptions, Watch, pull
from dream3d.weights.store import ESSENTIAL_FILES, prior_folder, write_folder_record
from dream3d.weights.table import ENTRIES, Entry, RemoteFile, Source, hub_base, mirrored

ROOT = Path(__file__).parent.parent
WEIGHTS = bytes(range(256)) * 1024
COMMANDS = ("list", "info", "pull", "verify", "path", "convert")


@dataclass
class FakeConverter:
    """Copies the source into each file of a prior folder, and remembers how it was called."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    failure: Exception | None = None
    forgets: str | None = None

    def convert(self, source: Path, destination: Path, dtype: str = "fp16") -> Path:
        self.calls.append((source.name, dtype))
        assert not destination.exists()
        for name in ESSENTIAL_FILES:
            if name == self.forgets:
                continue
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            (destination / name).write_bytes(dtype.encode() + name.encode())
            if self.failure is not None:
                raise self.failure
        return destination


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> FakeConverter:
    fake = FakeConverter()
    monkeypatch.setattr("dream3d.prior.official.convert.convert", fake.convert)
    return fake


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no mirror, a network that nobody forbade, and a table of small files on the hub."""
    monkeypatch.setenv("DREAM3D_CACHE", str(tmp_path / "cache"))
    for name in ("DREAM3D_MIRROR", "DREAM3D_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sources_module, "ENTRIES", (ENTRY,))
    monkeypatch.setattr(download_module, "time", SimpleNamespace(sleep=lambda seconds: None))
    return tmp_path / "cache"


ENTRY = Entry(
    "big",
    (
        Source("one file", (RemoteFile("big.pt", (f"{sources_module.HUB}/a/big.pt",), len(WEIGHTS)),), "big.pt"),
        Source(
            "a folder",
            tuple(
                RemoteFile(f"dir/{name}", (f"{sources_module.HUB}/b/resolve/main/{name}",), 100)
                for name in ("unet/config.json", "unet/w.safetensors")
            ),
            "dir",
        ),
    ),
    1000,
    "OpenRAIL",
    "a large one",
)


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


def models(*args: str) -> Result:
    return CliRunner().invoke(app, ["models", *args])


def fails(code: int, *args: str) -> str:
    """The one line of a command that fails."""
    result = models(*args)
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("error: ")


def tree(folder: Path) -> set[str]:
    """Every file below a folder, lock files aside."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


CONVERTED = {f"priors/big/{name}" for name in ESSENTIAL_FILES} | {"priors/big.files.json"}
DOWNLOADED = {"downloads/big/big.pt", "downloads/big/big.pt.sha256.json"}


def test_the_real_table_is_what_was_published() -> None:
    sd21, sd15 = ENTRIES
    assert (sd21.name, sd15.name) == ("mvdream-sd21", "mvdream-sd15")
    assert sd21.sources[0].files[0].urls == (
        "https://huggingface.co/MVDream/MVDream/resolve/main/sd-v2.1-base-4view.pt",
    )
    assert sd15.sources[0].files[0].path == "sd-v1.5-4view.pt"
    assert sd21.sources[1].files[0].urls == (
        "https://huggingface.co/ashawkey/mvdream-sd2.1-diffusers/resolve/main/unet/diffusion_pytorch_model.safetensors",
    )
    # fp32 tensors of the UNet, the VAE and the text tower (facts 1.8); the published 5.22 GB
    tensors = 4 * (867_572_164 + 83_653_863 + 354_032_641)
    assert abs(sd21.sources[0].about_bytes - tensors) < 1e6
    file = sd21.sources[0].files[0]
    assert file.at_least < tensors < file.limit
    # Tokenizer, scheduler and configurations are never fetched.
    assert {file.path.rpartition(".")[2] for entry in ENTRIES for source in entry.sources for file in source.files} == {
        "pt",
        "safetensors",
    }


def test_list_shows_what_is_here_and_what_is_not() -> None:
    result = models("list")
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert rows["mini"][1:5] == ["yes", "55", "MB", "CC-BY-4.0"]
    assert rows["big"][1:5] == ["no", "0", "MB", "OpenRAIL"]


def test_info_tells_sources_and_places(cache: Path) -> None:
    shown = models("info", "big").stdout
    assert "licence  OpenRAIL" in shown
    assert "from   https://huggingface.co/a/big.pt" in shown
    assert f"to     {cache}/downloads/big/big.pt (not here)" in shown
    assert "sha256 recorded at the first download" in shown
    assert f"folder   {cache}/priors/big" in shown
    assert "55 MB, inside the package" in models("info", "mini").stdout


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
    assert models("verify", "big").stdout == "big: files checked: 5\n"
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
def test_every_other_command_works_without_a_network() -> None:
    assert models("list").exit_code == 0
    assert models("info", "big").exit_code == 0
    assert models("verify").stdout == "mini: files checked: 9\nbig: not here\n"


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
    monkeypatch.setattr(sources_module, "ENTRIES", (dataclasses.replace(ENTRY, sources=(source,)),))
    (cache / "downloads/big").mkdir(parents=True)
    (cache / "downloads/big/big.pt").write_bytes(bytes(3_999_999))
    line = fails(2, "pull", "big", "--offline")
    assert f"{cache}/downloads/big/big.pt is damaged: 3999999 bytes, should be 5000000; place " in line
    assert converter.calls == []
    (cache / "downloads/big/big.pt").write_bytes(bytes(4_000_000))
    assert models("pull", "big", "--offline").exit_code == 0


def test_a_converted_folder_needs_every_file_it_once_had(cache: Path, converter: FakeConverter) -> None:
    converter.convert(Path("x"), cache / "priors/big")
    (cache / "priors/big/vae.safetensors").touch()
    write_folder_record(prior_folder(ENTRY), "x", "fp16")
    assert models("path", "big").exit_code == 0
    (cache / "priors/big/vae.safetensors").unlink()
    assert f"is incomplete, {cache}/priors/big/vae.safetensors is missing" in fails(1, "path", "big")


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
    assert message.startswith("prior 'big' is not here: run 'dream3d models pull big', or without a network place http")
    assert f"big.pt at {cache}/downloads/big/big.pt" in message
    assert message.endswith("'--prior mini' works now")
    assert fails(1, "path", "big") == fails(1, "verify", "big") == message
    for name in ESSENTIAL_FILES[1:]:
        (cache / "priors/big" / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / "priors/big" / name).touch()
    assert f"is incomplete, {cache}/priors/big/prior.json is missing" in fails(1, "path", "big")


@pytest.mark.parametrize("command", ["info", "pull", "verify", "path"])
def test_unknown_names_list_the_known(command: str) -> None:
    assert fails(2, command, "maxi") == "unknown prior 'maxi'; known: mini, big"


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


def test_pull_fetches_a_damaged_download_again(server: WeightServer, converter: FakeConverter, cache: Path) -> None:
    server.put("a/big.pt", WEIGHTS)
    assert models("pull", "big").exit_code == 0
    (cache / "downloads/big/big.pt").write_bytes(WEIGHTS[:1000])
    shutil.rmtree(cache / "priors/big")
    assert "downloading it again" in models("pull", "big").stdout
    assert (cache / "downloads/big/big.pt").read_bytes() == WEIGHTS


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


def test_what_a_killed_process_left_is_cleared(server: WeightServer, converter: FakeConverter, cache: Path) -> None:
    (cache / "priors/.big-killed.tmp/new").mkdir(parents=True)
    (cache / "priors/.big-killed.tmp/new/half.safetensors").write_bytes(b"half")
    server.put("a/big.pt", WEIGHTS)
    assert models("pull", "big").exit_code == 0
    assert tree(cache) == CONVERTED | DOWNLOADED


def test_a_folder_copied_by_hand_is_taken_as_it_is(cache: Path, converter: FakeConverter) -> None:
    converter.convert(Path("x"), cache / "priors/big")
    assert "was placed by hand and is taken as it is" in models("pull", "big", "--offline").stdout
    assert models("path", "big").exit_code == 0
    assert "prior.json: no record" in models("verify", "big").stdout
    write_folder_record(prior_folder(ENTRY), "x", "fp16")
    assert models("verify", "big").stdout == "big: files checked: 4\n"


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

    workers = [threading.Thread(target=pull, args=(ENTRY, PullOptions(), Watch(notify))) for _ in "ab"]
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
        pull(ENTRY, PullOptions(), Watch())


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
    assert tree(target) == set(ESSENTIAL_FILES)
    assert "exists already" in fails(2, "convert", str(source), str(target))
    assert "lies inside" in fails(2, "convert", str(target), str(target / "again"))
    assert "'fp8' is not one of" in fails(2, "convert", str(source), str(tmp_path / "y"), "--dtype", "fp8")


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with transferring(Console(force_interactive=False, width=100)) as watch:
        for done in range(0, 101, 5):
            watch.progress("dir/a.bin", done * 10**6, 10**8)
        watch.progress("b.bin", 2_500_000_000, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "dir/a.bin: 10% of 100 MB"
    assert lines[9:] == ["dir/a.bin: 100% of 100 MB", "b.bin: 2.5 GB"]
    with transferring(Console(force_terminal=True, width=100)) as watch:
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
    assert "Did you mean 'pull'" in fails(2, "pul")
