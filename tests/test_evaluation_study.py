"""The user study: its questions, its page in Chromium, answers as files of anybody, and preferences."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chromium import browser, needs_chromium
from torch import Tensor
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.errors import ExportError, UsageError
from dream3d.evaluation.study.answers import FORMAT, read_answers, read_key
from dream3d.evaluation.study.page import study_page
from dream3d.evaluation.study.questions import Study, make_study
from dream3d.evaluation.suite.cases import Case, Color, cases_of_prompts
from dream3d.mesh.appearance import VertexColors
from dream3d.mesh.export import Asset, export

HOSTILE = '</main><img src=x onerror="alert(1)">\'&amp; a chair'


class Plain:
    """Answers every prompt, or some, with a colour of its own."""

    background: Color = (1.0, 1.0, 1.0)

    def __init__(self, name: str, gray: float, prompts: tuple[str, ...] = (), broken: str = "") -> None:
        self.name, self.gray, self.prompts, self.broken = name, gray, prompts, broken

    def key(self, case: Case, seed: int) -> str | None:
        return self.name if not self.prompts or case.prompt in self.prompts else None

    def views(self, case: Case, seed: int) -> Tensor:
        if case.prompt == self.broken:
            raise ExportError("it is damaged")
        return torch.full((4, 3, 8, 8), self.gray)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def study_of(prompts: list[str], *systems: Plain, count: int = 100) -> Study:
    return make_study(systems, cases_of_prompts(prompts), count, rng())


def test_every_pair_comes_equally_often_and_on_both_sides() -> None:
    systems = [Plain("a", 0.1), Plain("b", 0.5), Plain("c", 0.9)]
    study = study_of([f"thing {number}" for number in range(20)], *systems, count=30)
    pairs = collections.Counter(tuple(pair) for pair in study.key["questions"].values())
    assert sum(pairs.values()) == 30
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert pairs[first, second] + pairs[second, first] == 10
        assert pairs[first, second] == 5
    assert study.digest == study_of([f"thing {number}" for number in range(20)], *systems, count=30).digest


def test_only_prompts_that_two_systems_have_are_asked_about() -> None:
    study = study_of(["x", "y", "z"], Plain("a", 0.1, ("x", "y")), Plain("b", 0.5, ("y", "z"), broken="z"))
    assert [question.prompt for question in study.questions] == ["y"]
    with pytest.raises(UsageError, match="no prompt has usable models of two of a, b: b, y: it is damaged"):
        study_of(["x", "y"], Plain("a", 0.1), Plain("b", 0.5, ("y",), broken="y"))


def test_the_page_does_not_tell_whose_it_is() -> None:
    study = study_of(["x", HOSTILE], Plain("our own system", 0.1), Plain("their system", 0.5))
    page = study_page(study)
    assert "their system" not in page
    assert "own system" not in page
    assert "alert(1)" in page
    assert HOSTILE not in page
    assert study.digest in page
    assert study.key["systems"] == ["our own system", "their system"]


# --- answers ----------------------------------------------------------------------------------------------------


def write(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data))
    return path


def saved(path: Path, study: Study, person: str, **choices: str) -> Path:
    answers = [{"question": name, "choice": choice} for name, choice in choices.items()]
    return write(path, {"format": FORMAT, "study": study.digest, "person": person, "answers": answers})


@pytest.fixture
def study() -> Study:
    return study_of(["x", "y"], Plain("a", 0.1), Plain("b", 0.5))


def test_answers_are_turned_into_wins_by_the_key(tmp_path: Path, study: Study) -> None:
    key = read_key(write(tmp_path / "key.json", study.key))
    one = saved(tmp_path / "1.json", study, "p1", q1="left", q2="same")
    two = saved(tmp_path / "2.json", study, "p2", q1="right")
    collected = read_answers([one, two], key)
    assert (collected.people, collected.left, collected.chose) == (2, 1, 2)
    first, second = study.key["questions"]["q1"]
    assert [(one.first, one.second, one.share, one.person) for one in collected.answers[::2]] == [
        (first, second, 1.0, "p1"),
        (first, second, 0.0, "p2"),
    ]
    assert collected.answers[1].share == 0.5


def test_files_that_do_not_fit_are_one_line(tmp_path: Path, study: Study) -> None:
    key = read_key(write(tmp_path / "key.json", study.key))
    good = saved(tmp_path / "good.json", study, "p1", q1="left")
    wrong = {
        "of one person": [good, saved(tmp_path / "b.json", study, "p1", q2="left")],
        "does not have": [saved(tmp_path / "c.json", study, "p2", q9="left")],
        "is no answer": [saved(tmp_path / "d.json", study, "p2", q1="both")],
        "cannot be read": [tmp_path / "missing.json"],
        "not the answers": [write(tmp_path / "e.json", {"format": "another"})],
        "not valid JSON": [tmp_path / "f.json"],
        "another study": [write(tmp_path / "g.json", {**json.loads(good.read_text()), "study": "0"})],
        "twice": [
            write(
                tmp_path / "h.json",
                {**json.loads(good.read_text()), "answers": [{"question": "q1", "choice": "left"}] * 2},
            )
        ],
    }
    (tmp_path / "f.json").write_bytes(b"\xff{")
    for says, paths in wrong.items():
        with pytest.raises(UsageError, match=says):
            read_answers(paths, key)
    for changes in ({"systems": ["a"]}, {"questions": {"q1": [0, 0]}}, {"questions": {"q1": [0, 7]}}, {"format": "x"}):
        with pytest.raises(UsageError):
            read_key(write(tmp_path / "bad.json", {**study.key, **changes}))


# --- the commands -----------------------------------------------------------------------------------------------


def ball(color: tuple[float, float, float]) -> Asset:
    vertices = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float32)
    faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    return Asset(vertices, faces, VertexColors(np.tile(np.array(color, np.float32), (6, 1))), {})


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two systems with three models each, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for system, color in (("ours", (1.0, 0.2, 0.2)), ("theirs", (0.2, 0.2, 1.0))):
        (tmp_path / system).mkdir()
        for name in ("a-chair", "a-tree", "a-house"):
            export(ball(color), tmp_path / system / f"{name}.glb")
    return tmp_path


def command(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["evaluate", *map(str, words)], prog_name="dream3d")
    assert done.exit_code == code, done.output
    return done.output


def test_from_folders_to_preferences(folders: Path) -> None:
    output = command("study", "ours", "theirs", "--out", "s.html")
    assert "questions   3 about 2 systems" in output
    key = json.loads((folders / "s.key.json").read_text())
    assert key["systems"] == ["ours", "theirs"]
    for number in range(6):
        better = {name: "left" if pair[0] == 0 else "right" for name, pair in key["questions"].items()}
        answers = [{"question": name, "choice": choice} for name, choice in better.items()]
        facts = {"format": FORMAT, "study": key["study"], "person": f"p{number}", "answers": answers}
        write(folders / f"answers-{number}.json", facts)
    files = sorted(folders.glob("answers-*.json"))
    output = command("preferences", *files, "--key", "s.key.json", "--out", "p.json")
    assert "18 answers of 6 people" in output
    record = json.loads((folders / "p.json").read_text())
    assert record["systems"]["ours"]["won"] == 18
    assert record["systems"]["ours"]["strength"]["low"] > 0.5 > record["systems"]["theirs"]["strength"]["high"]
    assert "note: of fewer than 5 people" in command("preferences", files[0], "--key", "s.key.json")
    assert "people may be answering it" in command("study", "ours", "theirs", "--out", "s.html", code=2)


def test_wrong_requests_are_refused(folders: Path) -> None:
    assert "two systems or more" in command("study", "ours", code=2)
    assert "--questions is 1 to 1000" in command("study", "ours", "theirs", "--questions", 0, code=2)
    assert "must be .html" in command("study", "ours", "theirs", "--out", "x.pdf", code=2)
    assert "the key of a study, cannot be read" in command("preferences", "a.json", code=2)
    (folders / "list.txt").write_text("a dragon\n")
    assert "no prompt has usable models" in command("study", "ours", "theirs", "--prompts", "list.txt", code=2)
    assert not list(folders.glob("*.html"))


# --- in a browser -----------------------------------------------------------------------------------------------


@needs_chromium
@pytest.mark.slow
def test_people_answer_by_keys_in_chromium(folders: Path, tmp_path: Path) -> None:
    command("study", "ours", "theirs")
    key = json.loads((folders / "study.key.json").read_text())
    press = "document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{}', bubbles: true, cancelable: true}}))"
    with browser(tmp_path / "profile") as page:
        page.open(folders / "study.html", width=1000, height=800)
        page.wait_for("document.querySelector('#left img').naturalWidth > 0")
        shown = set()
        for name in ("ArrowLeft", "ArrowRight", "Backspace", "ArrowDown"):
            shown.add(page.value("document.querySelector('#prompt').textContent"))
            page.value(press.format(name))
        assert shown <= {"a chair", "a tree", "a house"}
        assert page.value("document.querySelector('#count').textContent") == "2 of 3"
        page.open(folders / "study.html", width=1000, height=800)  # it goes on where it was left
        page.wait_for("document.querySelector('#count').textContent === '2 of 3'")
        page.value("document.querySelector('#right').click()")
        assert page.value("document.querySelector('#prompt').textContent") == "Thank you."
        assert page.value("document.querySelector('#ask').hidden") is True
        page.value(press.format("ArrowLeft"))  # after the end nothing is added
        saved = page.value("fetch(document.querySelector('#save').href).then(found => found.text())")
        assert page.value("document.querySelector('#save').download").startswith("answers-")
        assert page.problems == []
        assert {address.split(":")[0] for address in page.addresses} <= {"file", "data", "blob"}
    (folders / "answers.json").write_text(saved)
    answers = json.loads(saved)["answers"]
    assert [one["choice"] for one in answers] == ["left", "same", "right"]
    assert {one["question"] for one in answers} == set(key["questions"])
    output = command("preferences", "answers.json")
    assert "3 answers of 1 people" in output
