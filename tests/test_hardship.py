"""What goes wrong on real machines: full and read-only disks, kills, clocks that jump, places without a home."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import ImageFont
from test_cli_app import RUN_MAIN
from test_resume import PRIOR, Stop, assert_same, crash, files, go_on, start
from test_resume import heard as heard  # fixtures
from test_resume import quick as quick
from test_resume import whole as whole
from tiny_prior import write_tiny_prior
from tiny_shards import write_tiny_shards
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.errors import ExportError
from dream3d.files import LEFTOVER
from dream3d.generate import resume
from dream3d.names import own_slug
from dream3d.run.folder import read_run
from dream3d.run.progress import Progress
from dream3d.run.signals import listening

ROOT = Path(__file__).parent.parent
SMALL = ("--steps", "1", "--resolution", "20", "--texture", "64", "--device", "cpu")
BARE = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options of a run that takes a second, with a prior of random weights."""
    return (*SMALL, "--prior", str(write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, 4 MB small."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "dream3d-test", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a disk here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def make_room(disk: Path) -> None:
    (disk / "filler").unlink()


def read_only(disk: Path, yes: bool = True) -> None:
    subprocess.run(["mount", "-o", "remount," + ("ro" if yes else "rw"), str(disk)], check=True)


def no_leftovers(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if LEFTOVER.fullmatch(path.name)]


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_no_more(disk: Path, whole: Path) -> None:
    said: list[str] = []

    def watch(progress: Progress) -> None:
        said.extend([progress.message] if progress.message and "no checkpoint" in progress.message else [])
        if (progress.stage, progress.message) == ("optimise", None):
            if progress.step == 3:
                fill(disk)
            if progress.step == 8:
                make_room(disk)

    start(disk, watch)
    assert len(said) == 5
    assert "no checkpoint at step 3: " in said[0]
    assert "No space left on device" in said[0]
    assert "going on without" in said[0]
    assert_same(disk, whole)


def test_a_disk_that_is_full_at_the_end_loses_nothing(disk: Path, whole: Path) -> None:
    with pytest.raises(ExportError, match="No space left on device"):
        start(disk, Stop("extract", 1, lambda: fill(disk)))
    assert not (disk / "out/mascot.glb").exists()
    assert no_leftovers(disk)
    make_room(disk)
    go_on(disk)
    assert_same(disk, whole)


def test_a_disk_that_is_full_from_the_start_is_one_line(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(disk)
    monkeypatch.chdir(disk)
    result = CliRunner().invoke(app, ["generate", "a chair", *SMALL])
    assert result.exit_code in (1, 2)
    assert "No space left on device" in result.stderr.splitlines()[-1]
    assert "--debug" not in result.stderr
    assert no_leftovers(disk)


def test_a_disk_that_becomes_read_only_loses_nothing(tmp_path: Path, disk: Path, whole: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "out").symlink_to(disk)
    with pytest.raises(ExportError, match="Read-only file system"):
        start(folder, Stop("extract", 1, lambda: read_only(disk)))
    read_only(disk, False)
    go_on(folder)
    assert (folder / "out/mascot.glb").read_bytes() == (whole / "out/mascot.glb").read_bytes()


def test_a_read_only_folder_is_refused_before_any_work(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(disk)
    read_only(disk)
    for args in (["generate", "a chair", *SMALL], ["batch", str(ROOT / "prompts/gallery.txt"), "--out-dir", "out"]):
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
        assert "cannot be written (Read-only file system)" in result.stderr


KILLED = """
import json, os, signal, sys
from pathlib import Path

from dream3d.lean_imports import leave_out_unused
leave_out_unused()  # no threads before the forks
from test_resume import small_pictures, start

def stop_before(source, target):
    # run.json is first written at the start; the kill is for the one that says "finished".
    if target.suffix == ending and (target.suffix != ".json" or (target.parent / "turntable.mp4").exists()):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)

rename, os.replace = os.replace, stop_before
codes = {}
for ending in sys.argv[2:]:
    process = os.fork()  # of a process that has imported everything and started no thread
    if not process:
        folder = Path(sys.argv[1]) / ending
        folder.mkdir()
        with small_pictures():
            start(folder)
        os._exit(0)
    codes[ending] = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
print(json.dumps(codes))
"""
ENDINGS = (".glb", ".png", ".mp4", ".html", ".json")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each ending, with a run whose process was killed while it wrote a file of that ending."""
    place = tmp_path_factory.mktemp("killed")
    # Not a fork of this process: the threads that torch may have started by now would be missing in it.
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    command = [sys.executable, "-c", KILLED, str(place), *ENDINGS]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == dict.fromkeys(ENDINGS, -signal.SIGKILL), done.stderr
    return place


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_that_is_killed_while_it_writes_a_file(killed: Path, whole: Path, ending: str) -> None:
    folder = killed / ending
    assert not no_leftovers(folder)
    assert read_run(folder / "run")["status"] == "running"
    go_on(folder)
    assert_same(folder, whole)
    assert no_leftovers(folder)


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 4e9 - 1e7 * next(ticks))  # from the year 2096 back into the past
    with pytest.raises(RuntimeError):
        start(tmp_path, Stop("optimise", 6, crash))
    newest = max((tmp_path / "run/checkpoints").iterdir())
    os.utime(newest, (1, 1))  # older than the one before, says the disk
    reports: list[Progress] = []
    resume(tmp_path / "run", prior=PRIOR, observer=reports.append)
    assert min(report.step for report in reports if report.stage == "optimise") == 6
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_without_home_locale_terminal_or_open_streams(tmp_path: Path) -> None:
    run = [sys.executable, "-c", RUN_MAIN, "generate", "ein Bücherregal", *SMALL]
    shell = '"$@" <&- >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *run],
        cwd=tmp_path,
        env={**BARE, "LC_ALL": "C", "TERM": "dumb", "DISPLAY": ":99"},
        check=False,
        timeout=120,
    )
    assert done.returncode == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"{own_slug('ein Bücherregal')}.glb", "runs"]


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["true", "cat > /dev/full"])
def test_a_reader_that_goes_away_does_not_end_the_work(tmp_path: Path, reader: str, small: tuple[str, ...]) -> None:
    run = [sys.executable, "-c", RUN_MAIN, "generate", "a chair", *small]
    shell = f'{{ "$@"; echo $? > code; }} | {reader}'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *run], cwd=tmp_path, env=BARE, check=False, timeout=120, capture_output=True
    )
    assert (tmp_path / "code").read_text() == "0\n", done.stderr
    assert (tmp_path / "a-chair.glb").exists()


def test_a_user_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> object:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "DREAM3D_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0
    assert "prior mini" in shown.stdout
    result = CliRunner().invoke(app, ["views", "a chair", "--prior", "mvdream-sd21"])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: this user has no home folder for weights; set DREAM3D_CACHE to a folder"
    ]


def test_pictures_with_words_need_no_font_on_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **options: object) -> object:
        raise OSError("cannot open resource")

    real = ImageFont.truetype
    # The font inside Pillow comes as a file in memory; one of the machine by its name.
    monkeypatch.setattr(
        ImageFont, "truetype", lambda font=None, *a, **o: missing() if isinstance(font, str) else real(font, *a, **o)
    )
    assert CliRunner().invoke(app, ["dataset", "info", str(write_tiny_shards(tmp_path / "shards"))]).exit_code == 0


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with listening() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heard")
def test_a_terminal_that_is_closed_leaves_a_checkpoint(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(SystemExit):
        start(tmp_path, Stop("optimise", 4, lambda: signal.raise_signal(signal.SIGHUP)), seconds=0)
    assert "run/checkpoints/step-00000004.safetensors" in files(tmp_path)
    go_on(tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_no_secret_of_the_environment_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: tuple[str, ...]
) -> None:
    secrets = {name: f"s3cr3t-{name}" for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "API_KEY")}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("a chair\n")
    # As many workers as a small machine has cores: several threads each would wait for those of other tests.
    settings = ("--set", "steps=1", "--set", "resolution=20", "--set", "texture=64", "--workers", "2", *small[-2:])
    assert CliRunner().invoke(app, ["generate", "a chair", *small]).exit_code == 0
    assert CliRunner().invoke(app, ["batch", "list.txt", "--out-dir", "out", *settings]).exit_code == 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in written if path.name == "run.json"]) == 2
    assert not [path for path in written for value in secrets.values() if value.encode() in path.read_bytes()]
