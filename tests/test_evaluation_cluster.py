"""An evaluation in parts: each computes its own prompts, all into one store, and Ray shares them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_judge import write_tiny_judge
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.cli.evaluate_inputs import Asked, prepare
from dream3d.errors import Dream3DError
from dream3d.evaluation.suite.cluster import compute_part
from dream3d.evaluation.suite.report import run_evaluation
from dream3d.evaluation.suite.store import claim_folder
from dream3d.ray_cluster import gathered


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_judge(tmp_path_factory.mktemp("judge") / "tiny")


def test_parts_make_the_whole(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream3d.evaluation.encoders.is_installed", lambda: False)
    monkeypatch.chdir(folder.parent)
    asked = Asked(("tiny",), "quick", None, 3, None, None, (0, 1), 1).everywhere()
    assert asked.subjects == (str(folder),)
    again = partial(prepare, asked, (), "cpu")
    for out in ("parts", "whole"):
        claim_folder(tmp_path / out)
    assert compute_part(again, str(tmp_path / "parts"), (0, 2), 1) == 4  # the first and the third prompt
    assert compute_part(again, str(tmp_path / "parts"), (0, 2), 1) == 0
    assert compute_part(again, str(tmp_path / "parts"), (1, 2), 1) == 2
    assert run_evaluation(again(), tmp_path / "parts")[1] == 0
    assert run_evaluation(again(), tmp_path / "whole")[1] == 6
    for name in ("evaluation.json", "evaluation.html"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", "auto"], "--workers and --address go with --engine ray"),
        (["--workers", "2"], "--workers and --address go with --engine ray"),
        (["--workers", "0", "--engine", "ray"], "--workers is 1 to 1024, got 0"),
    ],
)
def test_words_that_do_not_go_together(words: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "mini", "--out-dir", str(tmp_path / "out"), *words])
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "out").exists()


class FakeRay:
    """Tasks are functions; the last one is done first."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            cause = ValueError("no such\nfile")

    def wait(self, tasks: list[Any], num_returns: int, timeout: float | None) -> tuple[list[Any], list[Any]]:
        return tasks[-1:], tasks[:-1]

    def get(self, task: Callable[[], Any]) -> Any:
        return task()


def test_results_come_as_tasks_end() -> None:
    told = list[int]()
    tasks = [lambda: 1, lambda: 2, lambda: 3]
    found = list(gathered(FakeRay(), tasks, "it failed", "all stays", 1.0, lambda: told.append(len(told))))
    assert found == [3, 2, 1]
    assert told == [0, 1, 2]


def test_a_task_that_fails_or_is_lost_is_told_in_one_line() -> None:
    def fail() -> None:
        raise FakeRay.exceptions.RayTaskError

    def lose() -> None:
        raise FakeRay.exceptions.RayError

    with pytest.raises(Dream3DError, match=r"^a part failed: no such file; all stays, run it again to go on$"):
        list(gathered(FakeRay(), [fail], "a part failed", "all stays"))
    with pytest.raises(Dream3DError, match=r"^a worker was lost 3 times \(RayError\); all stays, run it again"):
        list(gathered(FakeRay(), [lose], "a part failed", "all stays"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_shares_the_prompts_out(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = ["evaluate", str(folder), "--limit", "3", "--steps", "1", "--out-dir", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--engine", "ray", "--workers", "2"])
    assert done.exit_code == 0, done.output
    assert "computed    3 answers" in done.output
    assert json.loads((tmp_path / "out/evaluation.json").read_text("utf-8"))["status"] == "finished"
    done = CliRunner().invoke(app, words)
    assert "computed    0 answers" in done.output
