"""The examples are files that run: each here in its smallest form."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from small_pictures import small_pictures
from tiny_prior import write_tiny_prior
from typer.testing import CliRunner

from dream3d.cli.app import app

ROOT = Path(__file__).parent.parent


def run(name: str, *args: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "examples" / name), *args]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed() -> None:
    said = run("kill_and_resume.py", "--runs", "1", "--batches", "1", "--quick")
    assert said.count("1 with the same bytes, 1 with the same files, 0 orphans") == 2


@pytest.mark.slow
def test_memory_after_two_generations() -> None:
    # One step is over before the allocator has settled; the figure of docs/resume.md is that of whole recipes.
    said = run("soak.py", "--times", "2", "--steps", "1", "--resolution", "20", "--small", "--limit", "0.25")
    assert "after 2: " in said


@pytest.mark.slow
def test_damaged_inputs_are_counted_and_kept(tmp_path: Path) -> None:
    said = run("fuzz.py", "--minutes", "0.05", "--only", "cache", "txt", "--out", str(tmp_path / "found"))
    header, *rows = (line.split() for line in said.splitlines())
    assert header[:3] == ["input", "read", "refused"]
    assert [row[0] for row in rows] == ["cache", "txt", "all"]
    assert int(rows[-1][1]) + int(rows[-1][2]) > 0
    assert set(rows[-1][3:]) == {"0"}
    assert list((tmp_path / "found").iterdir()) == []


@pytest.mark.slow
def test_both_engines_of_a_batch() -> None:
    pytest.importorskip("ray")
    kills = ("--kill-every", "0.05", "--kills", "1")
    said = run("batch_engines.py", "--assets", "2", "--workers", "1", *kills, "--brief", "--small")
    assert said.count("2 results, 0 twice, 2 whole meshes, 0 half-written files, failed: none") == 2
    assert "1 workers killed; 2 of 2 meshes are the same bytes" in said


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_the_gallery_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prior, made, picture = write_tiny_prior(tmp_path / "prior"), tmp_path / "out", tmp_path / "gallery.png"
    (tmp_path / "list.txt").write_text("a chair | steps=1 resolution=32 faces=1000 texture=64\n")
    with small_pictures():
        batch = ["batch", str(tmp_path / "list.txt"), "--out-dir", str(made), "--prior", str(prior), "--device", "cpu"]
        assert CliRunner().invoke(app, batch).exit_code == 0
    arguments = ["--batch", str(made), "--out", str(picture), "--prior", str(prior)]
    monkeypatch.setattr(sys, "argv", ["gallery.py", str(tmp_path / "list.txt"), *arguments])
    runpy.run_path(str(ROOT / "examples/gallery.py"), run_name="__main__")
    assert picture.stat().st_size > 1000
