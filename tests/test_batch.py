"""Batches: workers that die, reports, and what a second call finds. The lists are in test_batch_prompts.py."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from dream3d.batch import local
from dream3d.batch.jobs import BatchJob, plan
from dream3d.batch.places import LocalPlace
from dream3d.batch.prompts import Entry
from dream3d.batch.report import Report
from dream3d.batch.work import JobProgress, Result, Shared, Watcher
from dream3d.cli.app import app
from dream3d.lean_imports import leave_out_unused
from dream3d.run.progress import Observer, Progress, silent

ROOT = Path(__file__).parent.parent


def folder_of(shared: Shared) -> Path:
    assert isinstance(shared.place, LocalPlace)
    return shared.place.folder


def fake_work(job: BatchJob, shared: Shared, observer: Observer) -> Result:
    """Writes what a finished run has. A prompt says what goes wrong: "dies once", "always dies", "fails"."""
    run = folder_of(shared) / job.run
    observer(Progress("optimise", 1, 2))
    run.mkdir(parents=True, exist_ok=True)
    tried = run / "tried"
    first = not tried.exists()
    tried.write_text("x" if first else tried.read_text() + "x")
    if "always dies" in job.prompt or ("dies once" in job.prompt and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if "slow" in job.prompt:
        time.sleep(30)
    if "fails" in job.prompt:
        return Result(job.key, "the field is empty")
    finish(job, folder_of(shared))
    return Result(job.key, "", 0.1)


def fake_work_of_ray(job: BatchJob, shared: Shared, observer: Observer) -> Result:
    """In a worker that began as this program's own processes do."""
    assert leave_out_unused.cache_info().currsize
    return fake_work(job, shared, observer)


def finish(job: BatchJob, folder: Path) -> None:
    (folder / job.run).mkdir(parents=True, exist_ok=True)
    (folder / job.mesh).write_bytes(b"mesh")
    result = {"seconds": 12.0, "vertices": 3, "faces": 1, "silhouette_iou": 0.5, "haze": 0.01}
    result |= {"cap_area": 0.04, "prompt_similarity": 0.25, "prompt_rank": 3}
    (folder / job.run / "run.json").write_text(json.dumps({"status": "finished", "result": result}))


def is_done(job: BatchJob, folder: Path) -> bool:
    return job.result(LocalPlace(folder)) is not None


def jobs_of(*prompts: str) -> list[BatchJob]:
    return plan([Entry(prompt, {}, "list:1") for prompt in prompts], [0], {}, "mini")[0]


def shared(folder: Path) -> Shared:
    return Shared(LocalPlace(folder), "mini", "cpu", 1)


def test_a_worker_that_dies_costs_its_job_one_attempt_and_no_other(tmp_path: Path) -> None:
    jobs = jobs_of("a", "b dies once", "c", "d always dies", "e fails", "f")
    heard: list[JobProgress] = []
    results = {r.key: r.reason for r in local.run_local(jobs, shared(tmp_path), 2, fake_work, heard.append)}
    assert {word.key for word in heard} == {job.key for job in jobs}
    assert heard[0].stage == "optimise"
    assert len(results) == 6
    assert [is_done(job, tmp_path) for job in jobs] == [True, True, True, False, False, True]
    assert results[jobs[1].key] == ""
    assert "died 3 times (SIGKILL, perhaps for want of memory)" in results[jobs[3].key]
    assert results[jobs[4].key] == "the field is empty"
    tries = [len((tmp_path / job.run / "tried").read_text()) for job in jobs]
    assert tries == [1, 2, 1, 3, 1, 1]


def test_stopping_a_batch_ends_its_workers(tmp_path: Path) -> None:
    results = local.run_local(jobs_of("a", "slow"), shared(tmp_path), 2, fake_work)
    next(results)
    began = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 20


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.texts = ""

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        assert tag != "script"
        self.targets += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.texts += data


def test_the_report_shows_every_job_and_escapes_every_prompt(tmp_path: Path) -> None:
    jobs = jobs_of("<script>alert('x')</script>", "b & c", "d")
    finish(jobs[0], tmp_path)
    report = Report(jobs, LocalPlace(tmp_path))
    assert [job.prompt for job in report.missing()] == ["b & c", "d"]
    report.add(Result(jobs[1].key, "it <b>broke</b>"))
    report.write()
    assert [row.state for row in report.rows] == ["finished", "failed", "waiting"]
    with (tmp_path / "summary.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["prompt"], row["state"], row["reason"]) for row in table] == [
        ("<script>alert('x')</script>", "finished", ""),
        ("b & c", "failed", "it <b>broke</b>"),
        ("d", "waiting", ""),
    ]
    assert (table[0]["faces"], table[0]["silhouette_iou"]) == ("1", "0.5")
    assert (table[0]["cap_area"], table[0]["prompt_similarity"]) == ("0.04", "0.25")
    links = Links()
    links.feed((tmp_path / "index.html").read_text())
    assert "<script>alert('x')</script>" in links.texts
    assert "it <b>broke</b>" in links.texts
    assert "similarity to the prompt 0.25, rank 3; 4.0% cut off at the border" in links.texts
    assert f"{jobs[0].key}.glb" in links.targets
    assert all(not target.startswith(("/", "http")) for target in links.targets)


def list_of(folder: Path, prompts: str) -> Path:
    path = folder / "a.txt"
    path.write_text(prompts)
    return path


def command(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["batch", *args, "--device", "cpu"])
    return result.exit_code, result.output


def test_a_second_call_makes_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def run(jobs: Sequence[BatchJob], shared: Shared, workers: int, watcher: Watcher) -> list[Result]:
        made.extend(job.prompt for job in jobs)
        return [fake_work(job, shared, silent) for job in jobs]

    monkeypatch.setattr(local, "run_local", run)
    path, out = list_of(tmp_path, "a\nb fails\nc\n"), tmp_path / "out"
    code, text = command(str(path), "--out-dir", str(out))
    assert code == 0, text
    assert "3 assets, 0 already made" in text
    assert made == ["a", "b fails", "c"]
    path.write_text("a\nb fails\nc\nd\n")
    assert command(str(path), "--out-dir", str(out), "--fail", "any")[0] == 1
    assert made[3:] == ["b fails", "d"]
    path.write_text("b fails\n")
    assert command(str(path), "--out-dir", str(out))[0] == 1
    assert not list(out.rglob(".*-????????.*"))


def test_two_batches_cannot_share_a_folder(tmp_path: Path) -> None:
    path, out = list_of(tmp_path, "a\n"), tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".dream3d.lock"):
        code, text = command(str(path), "--out-dir", str(out))
    assert code == 1
    assert "another batch is at work in" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--engine", "slurm"], "Invalid value for '--engine': 'slurm' is not one of 'local', 'ray'"),
        (["--address", "auto"], "--address goes with --engine ray"),
        (["--workers", "0"], "--workers is 1 to 1024"),
        (["--seeds", "x"], "is not a list of seeds"),
        (["--set", "steps"], "is not key=value"),
        (["--set", "seed=3"], "would be the same for all"),
        (["--fail", "none"], "Invalid value for '--fail': 'none' is not one of 'all', 'any'"),
        (["--prior", "nope"], "unknown prior 'nope'"),
    ],
)
def test_a_wrong_request_writes_nothing(tmp_path: Path, args: list[str], message: str) -> None:
    path = list_of(tmp_path, "a\n")
    code, text = command(str(path), "--out-dir", str(tmp_path / "out"), *args)
    assert (code, message in " ".join(text.split())) == (2, True), text
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ray_makes_each_asset_once_though_workers_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))  # for fake_work
    from dream3d.batch.cluster import run_ray

    jobs = jobs_of("a", "b dies once", "c", "d always dies", "e fails")
    heard: list[JobProgress] = []
    results = {r.key: r.reason for r in run_ray(jobs, shared(tmp_path), 2, work=fake_work_of_ray, watcher=heard.append)}
    assert {word.key for word in heard} <= {job.key for job in jobs}
    assert heard
    assert [is_done(job, tmp_path) for job in jobs] == [True, True, True, False, False]
    assert "its worker was lost 3 times" in results[jobs[3].key]
    assert results[jobs[4].key] == "the field is empty"
    tries = [len((tmp_path / job.run / "tried").read_text()) for job in jobs]
    assert tries == [1, 2, 1, 3, 1]


def test_ray_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    path = list_of(tmp_path, "a\n")
    code, text = command(str(path), "--out-dir", str(tmp_path / "out"), "--engine", "ray")
    assert code == 2
    assert "pip install 'dream3d[ray]'" in text
