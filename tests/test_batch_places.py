"""Object stores: what a worker made is there whole, a worker elsewhere goes on with it, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from oracle import MASCOT, OraclePrior
from test_optimise import TINY
from typer.testing import CliRunner

from dream3d.batch import work
from dream3d.batch.jobs import BatchJob, plan
from dream3d.batch.places import LocalPlace, Place, RemotePlace, parse_place
from dream3d.batch.prompts import Entry
from dream3d.batch.report import Report
from dream3d.batch.work import Result, Shared, do_job
from dream3d.cli.app import app
from dream3d.errors import UsageError
from dream3d.recipe.generation import MeshRecipe, Recipe
from dream3d.run.progress import Progress

RECIPE = replace(TINY.with_steps(8), mesh=MeshRecipe(resolution=24, texture=64))


def recipe_of(changes: object, preset: str) -> Recipe:
    return RECIPE


@pytest.fixture(autouse=True)
def _tiny_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    prior = OraclePrior(MASCOT)
    prior.recommended_preset = "mini"  # type: ignore[attr-defined]
    monkeypatch.setattr(work, "_prior", lambda *a: prior)
    monkeypatch.setattr("dream3d.recipe.overrides.changed_recipe", recipe_of)
    monkeypatch.setattr("dream3d.batch.places.PROTOCOLS", ("s3", "gs", "memory"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("dream3d.batch.places.tempfile.tempdir", str(tmp_path / "temporary"))
    yield
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]


@pytest.fixture
def job() -> BatchJob:
    (one,), _ = plan([Entry("a mascot", {}, "here")], [3], {}, "mini")
    return one


BUCKET = RemotePlace("memory://bucket/out")


def shared(place: Place) -> Shared:
    return Shared(place, "mini", "cpu", 1, checkpoint_seconds=1e-9)


def names() -> set[str]:
    return {name.removeprefix("/bucket/out/") for name in fsspec.filesystem("memory").find("/bucket/out")}


def bytes_of(job: BatchJob, place: Place) -> bytes:
    return place.read(job.mesh)


@pytest.fixture
def expected(job: BatchJob, tmp_path: Path) -> bytes:
    place = LocalPlace(tmp_path / "local")
    assert do_job(job, shared(place)).reason == ""
    return bytes_of(job, place)


def test_an_asset_in_a_bucket_is_the_one_on_a_disk(job: BatchJob, tmp_path: Path, expected: bytes) -> None:
    assert job.result(BUCKET) is None
    assert do_job(job, shared(BUCKET)).reason == ""
    result = job.result(BUCKET)
    assert result is not None
    assert result["faces"]
    assert bytes_of(job, BUCKET) == expected
    local = {path.relative_to(tmp_path / "local").as_posix() for path in (tmp_path / "local").rglob("*.*")}
    assert names() == local
    assert list((tmp_path / "temporary").glob("dream3d-*")) == []


def failing_at(step: int, then: Callable[[], None]) -> Callable[[Progress], None]:
    def observe(progress: Progress) -> None:
        if (progress.stage, progress.step) == ("optimise", step):
            then()

    return observe


def crash() -> None:
    raise RuntimeError("on fire")


def test_a_worker_elsewhere_goes_on_from_the_last_checkpoint(job: BatchJob, expected: bytes) -> None:
    assert do_job(job, shared(BUCKET), failing_at(6, crash)).reason == "RuntimeError: on fire"
    left = {name.rpartition("/")[2] for name in names() if "checkpoints" in name}
    assert left == {"step-00000004.safetensors", "step-00000005.safetensors"}
    assert job.result(BUCKET) is None
    steps: list[int] = []
    again = do_job(job, shared(BUCKET), lambda p: steps.append(p.step) if p.stage == "optimise" else None)
    assert (again.reason, min(steps)) == ("", 6)
    assert bytes_of(job, BUCKET) == expected
    assert not [name for name in names() if "checkpoints" in name]


def test_checkpoints_reach_the_bucket_while_the_run_goes_on(job: BatchJob) -> None:
    seen: list[set[str]] = []
    do_job(job, shared(BUCKET), failing_at(5, lambda: seen.append(names())))
    assert f"{job.run}/checkpoints/step-00000003.safetensors" in seen[0]
    assert f"{job.run}/run.json" in seen[0]


def test_a_store_that_is_away_for_a_while_costs_nothing(
    job: BatchJob, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, put = [True], MemoryFileSystem.put_file

    def put_file(*args: Any, **options: Any) -> None:
        if away[0]:
            raise ConnectionError("no route to the bucket")
        put(*args, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
    result = do_job(job, shared(BUCKET), failing_at(6, lambda: away.__setitem__(0, False)))
    assert result.reason == ""
    assert bytes_of(job, BUCKET) == expected


def test_what_a_store_does_not_take_stays_here(job: BatchJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
    reason = do_job(job, shared(BUCKET)).reason
    (folder,) = (tmp_path / "temporary").glob("dream3d-*")
    assert reason == (
        f"memory://bucket/out does not take what was made (PermissionError: read only); it is in {folder}"
    )
    assert (folder / job.mesh).exists()


def test_a_mesh_without_the_end_of_its_run_does_not_count(job: BatchJob) -> None:
    BUCKET.write(job.mesh, b"half")
    assert job.result(BUCKET) is None
    BUCKET.write(f"{job.run}/run.json", b'{"status": "running"}')
    assert job.result(BUCKET) is None
    BUCKET.write(f"{job.run}/run.json", b"[1]")
    assert job.result(BUCKET) is None
    BUCKET.write(f"{job.run}/run.json", b'{"status": "finished", "result": {"faces": 3}}')
    assert job.result(BUCKET) == {"faces": 3}


def test_names_of_a_store_cannot_leave_the_folder(job: BatchJob, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file(f"/bucket/out/{job.run}/run.json", b"{}")
    store.store[f"/bucket/out/{job.run}/../../../../evil"] = store.store[f"/bucket/out/{job.run}/run.json"]
    assert "run.json" in do_job(job, shared(BUCKET)).reason
    assert not list(tmp_path.rglob("evil"))


def test_a_local_folder_may_move(job: BatchJob, tmp_path: Path, expected: bytes) -> None:
    old, new = LocalPlace(tmp_path / "old"), LocalPlace(tmp_path / "new")
    assert do_job(job, shared(old), failing_at(6, crash)).reason
    old.folder.rename(new.folder)
    assert do_job(job, shared(new)).reason == ""
    assert bytes_of(job, new) == expected
    assert not old.folder.exists()


def test_the_report_lies_beside_the_assets(job: BatchJob) -> None:
    do_job(job, shared(BUCKET))
    report = Report([job], BUCKET)
    report.write()
    assert [row.state for row in report.rows] == ["finished"]
    assert b"finished" in BUCKET.read("summary.csv")
    assert f'href="{job.mesh}"'.encode() in BUCKET.read("index.html")


def test_a_report_that_cannot_be_written_for_a_while_ends_nothing(
    job: BatchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise ConnectionError("no route")

    report = Report([job], BUCKET)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "pipe_file", refuse)
        report.add(Result(job.key, "the field is empty"))
    report.write()
    assert b"the field is empty" in BUCKET.read("summary.csv")


def test_the_command_line_fills_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(jobs: list[BatchJob], shared: Shared, workers: int, watcher: object) -> list[Result]:
        return [do_job(job, shared) for job in jobs]

    monkeypatch.setattr("dream3d.batch.local.run_local", run)
    (tmp_path / "list.txt").write_text("a mascot\nanother\n")
    args = ["batch", str(tmp_path / "list.txt"), "--out-dir", "memory://bucket/out", "--device", "cpu"]
    first = CliRunner().invoke(app, args)
    assert first.exit_code == 0, first.output
    assert "gallery     memory://bucket/out/index.html" in first.output
    second = CliRunner().invoke(app, args)
    assert "2 assets, 2 already made" in second.output


def test_a_store_that_cannot_be_written_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    (tmp_path / "list.txt").write_text("a mascot\n")
    result = CliRunner().invoke(app, ["batch", str(tmp_path / "list.txt"), "--out-dir", "memory://b/out"])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == ("error: cannot write to memory://b/out (PermissionError: Access Denied)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://host/folder", "is not a folder; give a path, or one that begins with s3://, gs://"),
        ("simplecache::s3://bucket", "is not a folder"),
        ("s3://", "is not a folder"),
        ("s3://bucket/../other", "is not a folder"),
        ("s3://key:s3cr3t@bucket/out", "no keys in addresses"),
        ("http://key:s3cr3t@host/", "is not a folder"),
    ],
)
def test_other_addresses_are_refused_without_saying_their_secrets(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_place(text)
    assert "s3cr3t" not in str(caught.value)


def test_a_store_whose_package_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str, **options: object) -> object:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(UsageError, match=r"pip install 'dream3d\[s3\]'"):
        parse_place("s3://bucket/out")


def test_a_path_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_place("out") == LocalPlace(tmp_path / "out")
    assert parse_place("memory://b/x//") == RemotePlace("memory://b/x")
