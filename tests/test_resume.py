"""A run that is stopped anywhere goes on to the same bytes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import MASCOT, OraclePrior
from small_pictures import small_pictures
from test_optimise import TINY

from dream3d import distill
from dream3d.errors import CheckpointError, Dream3DError, NewerCheckpointError, UsageError
from dream3d.generate import generate, resume
from dream3d.recipe.generation import MeshRecipe
from dream3d.recipe.scene import BackgroundRecipe
from dream3d.run import checkpointer as resuming
from dream3d.run import checkpoints
from dream3d.run.folder import RunFolder, read_run
from dream3d.run.progress import Progress

RECIPE = replace(TINY.with_steps(10), mesh=MeshRecipe(resolution=24, texture=64))
PRIOR = OraclePrior(MASCOT, image_size=16)


@dataclass
class Stop:
    """An observer that sends a signal, or fails, at the end of a step or at the beginning of a stage."""

    stage: str
    step: int
    act: Callable[[], object]

    def __call__(self, progress: Progress) -> None:
        if (progress.stage, progress.step) == (self.stage, self.step):
            self.act()


def crash() -> None:
    raise RuntimeError("the machine is on fire")


def start(folder: Path, observer: Callable[[Progress], None] = lambda p: None, seconds: float = 1e-9) -> None:
    generate(
        "a mascot",
        prior=PRIOR,
        recipe=RECIPE,
        seed=3,
        device="cpu",
        out=folder / "out" / "mascot.glb",
        run_dir=folder / "run",
        observer=observer,
        checkpoint_seconds=seconds,
    )


def go_on(folder: Path) -> Any:
    return resume(folder / "run", prior=PRIOR, checkpoint_seconds=1e-9)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with small_pictures():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    start(folder, seconds=0)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_same(folder: Path, whole: Path) -> None:
    for name in ("out/mascot.glb", "run/mesh.glb", "run/metrics.csv", "run/preview.png", "run/targets.png"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert files(folder) == files(whole)
    assert read_run(folder / "run")["status"] == "finished"


@pytest.mark.parametrize("place", [("optimise", 1), ("optimise", 7), ("optimise", 10), ("extract", 0), ("export", 1)])
def test_a_run_that_failed_anywhere_goes_on_to_the_same_bytes(
    tmp_path: Path, whole: Path, place: tuple[str, int]
) -> None:
    with pytest.raises(RuntimeError, match="on fire"):
        start(tmp_path, Stop(*place, crash))
    assert read_run(tmp_path / "run")["status"] == "failed"
    assert go_on(tmp_path) is not None
    assert_same(tmp_path, whole)


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals do what they do in a terminal: background jobs ignore Ctrl-C, and nohup ignores a closed terminal."""
    usual: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("number", "ending"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_keeps_the_step_that_it_finds(
    tmp_path: Path, whole: Path, number: signal.Signals, ending: type[BaseException]
) -> None:
    with pytest.raises(ending):
        start(tmp_path, Stop("optimise", 4, lambda: signal.raise_signal(number)), seconds=0)
    assert read_run(tmp_path / "run")["status"] == "interrupted"
    assert [path.name for path in checkpoints.all_in(tmp_path / "run/checkpoints")] == ["step-00000004.safetensors"]
    go_on(tmp_path)
    assert_same(tmp_path, whole)


def test_a_run_without_a_checkpoint_starts_again(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(RuntimeError):
        start(tmp_path, Stop("optimise", 4, crash), seconds=0)
    assert not (tmp_path / "run/checkpoints").exists()
    go_on(tmp_path)
    assert_same(tmp_path, whole)


def test_a_finished_run_is_left_alone_and_a_lost_mesh_comes_back(tmp_path: Path, whole: Path) -> None:
    start(tmp_path)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    assert go_on(tmp_path) is None
    assert before == {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    (tmp_path / "out/mascot.glb").unlink()
    assert go_on(tmp_path) is None
    assert_same(tmp_path, whole)


def broken(folder: Path) -> list[Path]:
    with pytest.raises(RuntimeError):
        start(folder, Stop("optimise", 6, crash))
    return checkpoints.all_in(folder / "run/checkpoints")


def test_two_checkpoints_are_kept_and_a_damaged_one_costs_a_step(tmp_path: Path, whole: Path) -> None:
    older, newer = broken(tmp_path)
    assert (older.name, newer.name) == ("step-00000004.safetensors", "step-00000005.safetensors")
    newer.write_bytes(newer.read_bytes()[:-9])
    reports: list[Progress] = []
    resume(tmp_path / "run", prior=PRIOR, observer=reports.append)
    said = [report.message for report in reports if report.stage == "prepare" and report.message]
    assert len(said) == 1
    assert "step-00000005.safetensors is damaged" in said[0]
    assert "going on from the one before" in said[0]
    assert [report.step for report in reports if report.stage == "optimise"] == [5, 6, 7, 8, 9, 10]
    assert_same(tmp_path, whole)


def test_a_newer_checkpoint_is_refused_kindly_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "VERSION", 2)
    kept = broken(tmp_path)
    monkeypatch.setattr(resuming, "VERSION", 1)
    with pytest.raises(NewerCheckpointError, match="is of version 2, this dream3d reads 1; use a newer dream3d"):
        go_on(tmp_path)
    assert all(path.exists() for path in kept)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    state = distill.start(replace(RECIPE, field=replace(RECIPE.field, levels=3)), PRIOR, 0)
    for path in broken(tmp_path):
        checkpoints.write(path.parent, int(path.stem[5:]), 1, {}, state.state_dict())
    with pytest.raises(CheckpointError, match="does not fit this run"):
        go_on(tmp_path)


def test_other_circumstances_are_said(tmp_path: Path) -> None:
    broken(tmp_path)
    threads = torch.get_num_threads()
    reports: list[Progress] = []

    def watch(progress: Progress) -> None:
        reports.append(progress)
        Stop("optimise", 6, crash)(progress)  # threads of other tests would make the rest slow

    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(RuntimeError, match="on fire"):
            resume(tmp_path / "run", prior=PRIOR, observer=watch)
    finally:
        torch.set_num_threads(threads)
    said = " ".join(report.message or "" for report in reports)
    assert f"threads was {threads} and is {threads + 1}" in said


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path, whole: Path) -> None:
    broken(tmp_path)
    (tmp_path / "out").mkdir()
    tag = read_run(tmp_path / "run")["id"]
    for name in ("run/.run-{}.json", "run/checkpoints/.step-00000006-{}.safetensors", "out/.mascot-{}.glb"):
        (tmp_path / name.format(f"dream3d{tag}-abcd_123")).write_bytes(b"half")
    others = [".mascot-original.glb", ".mascot-dream3d-q1w2e3r4.glb", ".mascot-dream3d0123456789ab-q1w2e3r4.glb"]
    others = [f"{folder}/{name}" for folder in ("out", "run", "run/checkpoints") for name in others]
    for name in others:
        (tmp_path / name).write_bytes(b"the user's, or another job's at work")
    go_on(tmp_path)
    for name in others:
        (tmp_path / name).unlink()
    (tmp_path / "run/checkpoints").rmdir()
    assert_same(tmp_path, whole)


def test_two_processes_cannot_work_on_one_run(tmp_path: Path) -> None:
    broken(tmp_path)
    held = RunFolder.reopen(tmp_path / "run")
    with pytest.raises(Dream3DError, match="another process is at work in"):
        go_on(tmp_path)
    held.close()
    assert go_on(tmp_path) is not None


def test_another_prior_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(tmp_path)
    monkeypatch.setattr(OraclePrior, "describe", lambda self: {"name": "another"})
    with pytest.raises(UsageError, match="was made with the prior"):
        go_on(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request": None}, "it has no 'request'"),
        ({"seed": "3"}, "wrong type"),
        ({"seed": -1}, "--seed is -1, which should be"),
        ({"prompt": "a\u0007b"}, "control character"),
        ({"recipe": {"name": "x", "stepss": 3}}, "unknown recipe key 'stepss'"),
        ({"request": {"out": "x.exe", "device": "cpu"}}, r"cannot export to x\.exe"),
    ],
)
def test_a_changed_run_json_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    broken(tmp_path)
    file = tmp_path / "run/run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UsageError, match=message):
        go_on(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no run \(no run\.json\)"):
        go_on(tmp_path)
    (tmp_path / "run").mkdir()
    for text in ("[]", "{", '"x"', "[" * 100_000):
        (tmp_path / "run/run.json").write_text(text)
        with pytest.raises(UsageError, match=r"cannot be read|is not the record"):
            go_on(tmp_path)


@settings(max_examples=12, deadline=None)
@given(cut=st.integers(0, 9), background=st.sampled_from(["fixed", "network"]), seed=st.integers(0, 2**63 - 1))
def test_a_restored_state_takes_the_steps_of_the_unbroken_one(cut: int, background: Any, seed: int) -> None:
    recipe = replace(RECIPE, background=BackgroundRecipe(kind=background), optimizer=replace(RECIPE.optimizer))
    text = PRIOR.encode_prompt("", "")
    unbroken, kept = distill.start(recipe, PRIOR, seed), {}
    for step in range(10):
        if step == cut:
            kept = {name: value.clone() for name, value in unbroken.state_dict().items()}
        unbroken.step(step, text)
    again = distill.start(recipe, PRIOR, seed + 1 if seed < 2**62 else 0)
    again.load_state_dict(cut, kept)
    for step in range(cut, 10):
        again.step(step, text)
    one, other = unbroken.state_dict(), again.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert vars(again.scene.field).get("sharpness") == vars(unbroken.scene.field)["sharpness"]
    assert [g["lr"] for g in again.optimizer.param_groups] == [g["lr"] for g in unbroken.optimizer.param_groups]
