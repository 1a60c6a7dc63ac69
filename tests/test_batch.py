"""Batches: lists of prompts as anybody writes them, jobs with names of their own, workers that die, reports."""

from __future__ import annotations

import contextlib
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
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from dream3d.batch import local
from dream3d.batch.jobs import Job, plan
from dream3d.batch.places import LocalPlace
from dream3d.batch.prompts import MAX_LINE_BYTES, Entry, read_lists
from dream3d.batch.report import Report
from dream3d.batch.work import Result, Shared, Watcher, Working
from dream3d.cli.app import app
from dream3d.errors import UsageError
from dream3d.recipe.overrides import changed_recipe
from dream3d.recipe.presets import preset
from dream3d.run.progress import Observer, Progress, silent

ROOT = Path(__file__).parent.parent


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_text_list_has_comments_blank_lines_and_overrides(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.txt",
        "# animals\n\n  a red fox \na dog | steps=40 seed=7\r\na cat | negative='blurred, dark' | name=tom\n",
    )
    assert [(e.prompt, dict(e.changes)) for e in read_lists([path])] == [
        ("a red fox", {}),
        ("a dog", {"steps": "40", "seed": "7"}),
        ("a cat", {"negative": "blurred, dark", "name": "tom"}),
    ]


def test_tables_have_a_column_of_prompts_and_others_of_settings(tmp_path: Path) -> None:
    table = written(tmp_path / "a.csv", 'seed,prompt,steps\n3,"a cup, full",\n,a dog,40\n')
    lines = written(tmp_path / "b.jsonl", '{"prompt": "a cat", "steps": 50, "name": null}\n\n{"prompt": "a hen"}\n')
    assert [(e.prompt, dict(e.changes)) for e in read_lists([table, lines])] == [
        ("a cup, full", {"seed": "3"}),
        ("a dog", {"steps": "40"}),
        ("a cat", {"steps": "50"}),
        ("a hen", {}),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_common_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "a.txt", "ein Bücherregal\n一把椅子\n".encode(encoding))
    assert [e.prompt for e in read_lists([path])] == ["ein Bücherregal", "一把椅子"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"a chair\n\xff\xfe\xfa", r"a\.txt is not text in UTF-8 or UTF-16"),
        ("a.txt", "a\0b\n", r"a\.txt:1: the prompt contains a control character \(U\+0000\)"),
        ("a.txt", "a dog\na cat | steps\n", r"a\.txt:2: 'steps' behind the bar is not key=value"),
        ("a.txt", "a cat | name='x\n", r"a\.txt:1: .* has a quote without its partner"),
        ("a.txt", "# nothing\n\n", "hold no prompt"),
        ("a.txt", "x" * (MAX_LINE_BYTES + 5), r"a\.txt:1: a line of more than"),
        ("a.txt", "x" * 2000, r"a\.txt:1: the prompt has 2000 characters"),
        ("a.txt", " | steps=3\n", r"a\.txt:1: the prompt is empty"),
        ("a.csv", "text,steps\na dog,3\n", r"a\.csv:1: .* one of them is 'prompt'"),
        ("a.csv", "prompt\na dog,3\n", r"a\.csv:2: more cells than columns"),
        ("a.csv", 'prompt\n"a dog"x\n', r"a\.csv:2: "),
        ("a.jsonl", '{"prompt": "a"}\n[1]\n', r"a\.jsonl:2 is not a JSON object with a"),
        ("a.jsonl", "{", r"a\.jsonl:1 is not a JSON object"),
        ("a.jsonl", '{"prompt": "a", "key": [1]}', "'key' is a list; write a number or a text"),
        ("a.md", "a dog", r"is a \.txt, \.csv or \.jsonl file"),
    ],
)
def test_a_bad_list_is_refused_with_its_place(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_lists([written(tmp_path / name, content)])
    with pytest.raises(UsageError, match="is not a file"):
        read_lists([tmp_path / "none.txt"])


def test_a_million_lines_are_refused_without_reading_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream3d.batch.prompts.MAX_ENTRIES", 1000)
    path = written(tmp_path / "a.txt", "a chair\n" * 1_000_000)
    began = time.monotonic()
    with pytest.raises(UsageError, match=r"a\.txt:1001: more than 1000 prompts"):
        read_lists([path])
    assert time.monotonic() - began < 5


@given(data=st.binary(max_size=300), ending=st.sampled_from([".txt", ".csv", ".jsonl"]))
def test_any_bytes_are_a_list_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, ending: str) -> None:
    path = written(tmp_path_factory.getbasetemp() / f"any{ending}", data)
    entries: list[Entry] = []
    with contextlib.suppress(UsageError):  # anything else is a failure
        entries = read_lists([path])
    assert all(entry.prompt.strip() and entry.where.startswith(str(path)) for entry in entries)


def entry(prompt: str, **changes: str) -> Entry:
    return Entry(prompt, changes, "list:1")


def test_every_prompt_meets_every_seed_once() -> None:
    jobs, twice = plan([entry("a dog"), entry("a cat", seed="9"), entry("a dog")], [0, 1], {"steps": "4"}, "mini")
    assert [(job.prompt, job.seed, dict(job.changes)) for job in jobs] == [
        ("a dog", 0, {"steps": "4"}),
        ("a dog", 1, {"steps": "4"}),
        ("a cat", 9, {"steps": "4"}),
    ]
    assert twice == 2
    assert jobs[0].key.startswith("a-dog-0-")


def test_names_differ_where_jobs_do_and_stay_where_they_do_not() -> None:
    def key(prompt: str, seed: int = 0, prior: str = "mini", **changes: str) -> str:
        return plan([entry(prompt, **changes)], [seed], {}, prior)[0][0].key

    keys = {key("a dog"), key("A dog!"), key("a dog", 1), key("a dog", steps="5"), key("a dog", prior="other")}
    assert len(keys) == 5
    assert key("椅子") != key("桌子")
    assert key("a dog") == key("a dog")
    assert key("a dog", name="rex").startswith("rex-0-")


@given(st.text(min_size=1, max_size=80), st.text(max_size=80))
def test_a_name_never_leaves_the_folder(prompt: str, name: str) -> None:
    (job,), _ = plan([entry(prompt, name=name)], [0], {}, "mini")
    folder = Path("/batch")
    assert (folder / job.mesh).parent == folder
    assert (folder / job.run).parent == folder / "runs"


def test_a_wrong_setting_is_refused_before_anything_is_made() -> None:
    with pytest.raises(UsageError, match="list:1: unknown setting 'stepps'"):
        plan([entry("a dog", stepps="3")], [0], {}, "mini")
    with pytest.raises(UsageError, match="list:1: seed='-1' is not a whole number"):
        plan([entry("a dog", seed="-1")], [0], {}, "mini")
    with pytest.raises(UsageError, match=r"'guidance\.rescale' is 'much', which should be a number"):
        plan([entry("a dog")], [0], {"guidance.rescale": "much"}, "mini")


def test_settings_by_name_and_by_place_change_the_recipe() -> None:
    recipe = changed_recipe({"steps": "12", "guidance.rescale": "0.25", "negative": "7", "resolution": "40"}, "mini")
    assert (recipe.steps, recipe.guidance.rescale, recipe.negative_prompt) == (12, 0.25, "7")
    assert recipe.mesh.resolution == 40
    assert changed_recipe({}, "mini") == preset("mini")
    assert changed_recipe({"updates_per_target": "3"}, "mini").updates_per_target == 3
    with pytest.raises(UsageError, match="unknown preset"):
        changed_recipe({"preset": "huge"}, "mini")


def folder_of(shared: Shared) -> Path:
    assert isinstance(shared.place, LocalPlace)
    return shared.place.folder


def fake_work(job: Job, shared: Shared, observer: Observer) -> Result:
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


def finish(job: Job, folder: Path) -> None:
    (folder / job.run).mkdir(parents=True, exist_ok=True)
    (folder / job.mesh).write_bytes(b"mesh")
    result = {"seconds": 12.0, "vertices": 3, "faces": 1, "silhouette_iou": 0.5, "haze": 0.01}
    (folder / job.run / "run.json").write_text(json.dumps({"status": "finished", "result": result}))


def is_done(job: Job, folder: Path) -> bool:
    return job.result(LocalPlace(folder)) is not None


def jobs_of(*prompts: str) -> list[Job]:
    return plan([entry(prompt) for prompt in prompts], [0], {}, "mini")[0]


def shared(folder: Path) -> Shared:
    return Shared(LocalPlace(folder), "mini", "cpu", 1)


def test_a_worker_that_dies_costs_its_job_one_attempt_and_no_other(tmp_path: Path) -> None:
    jobs = jobs_of("a", "b dies once", "c", "d always dies", "e fails", "f")
    heard: list[Working] = []
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
    links = Links()
    links.feed((tmp_path / "index.html").read_text())
    assert "<script>alert('x')</script>" in links.texts
    assert "it <b>broke</b>" in links.texts
    assert f"{jobs[0].key}.glb" in links.targets
    assert all(not target.startswith(("/", "http")) for target in links.targets)


def command(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["batch", *args, "--device", "cpu"])
    return result.exit_code, result.output


def test_a_second_call_makes_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def run(jobs: Sequence[Job], shared: Shared, workers: int, watcher: Watcher) -> list[Result]:
        made.extend(job.prompt for job in jobs)
        return [fake_work(job, shared, silent) for job in jobs]

    monkeypatch.setattr(local, "run_local", run)
    path, out = written(tmp_path / "a.txt", "a\nb fails\nc\n"), tmp_path / "out"
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
    path, out = written(tmp_path / "a.txt", "a\n"), tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"):
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
    path = written(tmp_path / "a.txt", "a\n")
    code, text = command(str(path), "--out-dir", str(tmp_path / "out"), *args)
    assert (code, message in " ".join(text.split())) == (2, True), text
    assert not (tmp_path / "out").exists()


def test_the_lists_that_ship_are_lists() -> None:
    names = {path.name: len(read_lists([path])) for path in (ROOT / "prompts").glob("*.txt")}
    assert names.keys() >= {"gallery.txt", "furniture.txt", "animals.txt", "rare-concepts.txt", "compositional.txt"}
    assert names["gallery.txt"] == 20
    assert all(count >= 10 for count in names.values())


@pytest.mark.slow
def test_ray_makes_each_asset_once_though_workers_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))  # for fake_work
    from dream3d.batch.cluster import run_ray

    jobs = jobs_of("a", "b dies once", "c", "d always dies", "e fails")
    heard: list[Working] = []
    results = {r.key: r.reason for r in run_ray(jobs, shared(tmp_path), 2, work=fake_work, watcher=heard.append)}
    assert {word.key for word in heard} <= {job.key for job in jobs}
    assert heard
    assert [is_done(job, tmp_path) for job in jobs] == [True, True, True, False, False]
    assert "its worker was lost 3 times" in results[jobs[3].key]
    assert results[jobs[4].key] == "the field is empty"
    tries = [len((tmp_path / job.run / "tried").read_text()) for job in jobs]
    assert tries == [1, 2, 1, 3, 1]


def test_ray_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    path = written(tmp_path / "a.txt", "a\n")
    code, text = command(str(path), "--out-dir", str(tmp_path / "out"), "--engine", "ray")
    assert code == 2
    assert "pip install 'dream3d[ray]'" in text
