"""``dream3d variations``: the same run with other seeds, as a batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_pictures import small_pictures
from test_optimise import TINY
from tiny_prior import write_tiny_prior
from typer.testing import CliRunner, Result

from dream3d.batch.jobs import BatchJob, variations
from dream3d.batch.work import do_job
from dream3d.bounds import MAX_SEED
from dream3d.cli.app import app
from dream3d.errors import UsageError
from dream3d.generate import generate
from dream3d.mesh.export import read_provenance
from dream3d.recipe.generation import Recipe
from dream3d.recipe.mesh import MeshRecipe
from dream3d.run.folder import read_run
from dream3d.weights.loading import load_prior

RECIPE = replace(TINY.with_steps(2), mesh=MeshRecipe(resolution=12, texture=64), negative_prompt="green")
"""No preset's: it must reach the variations whole."""


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with small_pictures():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    path = write_tiny_prior(folder / "prior")
    prior = load_prior(str(path))
    generate(
        "a red chair",
        prior=prior,
        recipe=RECIPE,
        seed=5,
        device="cpu",
        out=folder / "chair.glb",
        run_dir=folder / "run",
        checkpoint_seconds=0,
        request={"prior": str(path), "vram": None, "precision": "auto"},
    )
    return folder / "run"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The batch's jobs in this process, in an empty current folder."""

    def run_local(jobs: list[BatchJob], shared: object, workers: int, watcher: object) -> Iterator[object]:
        yield from (do_job(job, shared) for job in jobs)  # type: ignore[arg-type]

    monkeypatch.setattr("dream3d.batch.local.run_local", run_local)
    monkeypatch.chdir(tmp_path)


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["variations", *map(str, words), "--device", "cpu"])


@pytest.mark.usefixtures("in_process")
def test_other_seeds_of_the_same_run_with_a_gallery(run: Path, tmp_path: Path) -> None:
    result = call(run, "-n", 2)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "variations/run"
    made = {read_provenance(path)["seed"]: path.read_bytes() for path in folder.glob("*.glb")}
    assert made.keys() == {6, 7}
    assert made[6] != made[7]
    for path in folder.glob("runs/*"):
        facts = read_run(path)
        assert Recipe.from_dict(facts["recipe"]) == RECIPE
        assert facts["prompt"] == "a red chair"
    assert "seed 6" in (folder / "index.html").read_text()
    again = call(run, "--count", 3)
    assert "3 assets, 2 already made" in again.stderr
    assert len(list(folder.glob("*.glb"))) == 3


def test_seeds_follow_the_runs_own_and_come_around(run: Path) -> None:
    facts = read_run(run)
    assert [job.seed for job in variations(run, {**facts, "seed": MAX_SEED - 1}, 3, "p")] == [MAX_SEED, 0, 1]
    keys = {job.key for digest in "pq" for job in variations(run, facts, 3, digest)}
    assert len(keys) == 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"request": None}, "does not say which prior"),
        ({"request": {"prior": 7}}, "does not say which prior"),
        ({"request": {"prior": "/nowhere"}}, "unknown prior '/nowhere'"),
        ({"prior_digest": "0" * 64}, "was made with other weights"),
        ({"recipe": None}, "does not say which prompt"),
        ({"seed": "5"}, "does not say which prompt"),
        ({"prompt": "\x1b"}, "control character"),
        ({"images": {}}, "was drawn by pictures"),
    ],
)
@pytest.mark.usefixtures("in_process")
def test_a_run_that_does_not_say_enough_is_refused(
    changes: dict[str, object], words: str, run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text(json.dumps({**read_run(run), **changes}))
    result = call(other)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "variations").exists()


@pytest.mark.parametrize("words", [["-n", 0], ["-n", 65], ["--workers", 0]])
def test_counts_out_of_range_are_refused(words: list[object], run: Path) -> None:
    result = call(run, *words)
    assert result.exit_code == 2
    assert "got" in result.stderr


def test_a_run_with_pictures_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="pictures"):
        variations(run, {**read_run(run), "images": {}}, 1, "p")
