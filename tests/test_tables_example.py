"""The script that repeats the papers' orderings: its commands exist, and its sentences say what the figures say."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from documents import parse

ROOT = Path(__file__).parent.parent


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.delitem(sys.modules, "tables", raising=False)
    return importlib.import_module("tables")


def test_every_command_and_option_exists(tables: ModuleType, tmp_path: Path) -> None:
    steps = tables.janus_steps(tmp_path, tmp_path / "list.txt", 10)
    steps += tables.table_1_steps(tmp_path, tmp_path / "data", [tmp_path / "a", tmp_path / "b"], 50)
    steps += tables.mv_rag_steps(tmp_path, tmp_path / "c", ["a bicycle", "an axe"], ["a bicycle"])
    for step in steps:
        parse(["dream3d", *step.words])
    assert sum(step.seconds for step in steps) == 20 * 120 + 100 * 5 + 540 + 5 + 8 * 5


def columns(**values: tuple[float, float, float]) -> dict[str, Any]:
    return {
        name: {"prompts": 3, "figures": {"janus_share": {"value": value, "low": low, "high": high}}}
        for name, (value, low, high) in values.items()
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ((0.1, 0.0, 0.2), (0.4, 0.3, 0.5), "It holds 3 times; the intervals are apart."),
        ((0.1, 0.0, 0.2), (0.2, 0.1, 0.3), "It does not hold 3 times; the intervals overlap."),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), "It does not hold 3 times; the intervals overlap."),
    ],
)
def test_a_share_that_should_be_three_times_smaller(tables: ModuleType, ours: Any, theirs: Any, said: str) -> None:
    found = columns(mini=ours, other=theirs)
    sentence = tables.verdict(tables.Ordering("janus_share", "mini", "other", 3), found)
    assert sentence.endswith(said)
    assert f"{ours[0]:.3f} [{ours[1]:.3f}, {ours[2]:.3f}] against {theirs[0]:.3f}" in sentence


def test_what_is_missing_is_not_measured_and_more_is_better_elsewhere(tables: ModuleType) -> None:
    found = columns(mini=(0.1, 0.0, 0.2))
    assert tables.verdict(tables.Ordering("janus_share", "mini", "gone"), found).endswith("not measured.")
    figures = (
        {"text_image": {"value": 0.5, "low": 0.4, "high": 0.6}},
        {"text_image": {"value": 0.3, "low": 0, "high": 1}},
    )
    both = {name: {"prompts": 1, "figures": one} for name, one in zip("ab", figures, strict=True)}
    assert "It holds; the intervals overlap." in tables.verdict(tables.Ordering("text_image", "a", "b"), both)
    assert "It does not hold;" in tables.verdict(tables.Ordering("text_image", "b", "a"), both)


def test_a_part_of_the_page(tables: ModuleType) -> None:
    found = {"subjects": columns(mini=(0.1, 0.0, 0.2), other=(0.4, 0.3, 0.5))}
    text = tables.page("Janus", found, [tables.Ordering("janus_share", "mini", "other")])
    assert "| Janus share | 0.100 [0.000, 0.200] | 0.400 [0.300, 0.500] |" in text
    assert text.startswith("## Janus\n")


def test_pictures_to_learn_from_are_those_to_draw_by(tables: ModuleType, tmp_path: Path) -> None:
    concepts, learnt = tables.write_pictures(tmp_path, 2, 1)
    assert len(concepts) == 2
    assert learnt == concepts[:1]
    assert len((tmp_path / "concepts.txt").read_text().splitlines()) == 2
    (folder,) = (tmp_path / "pictures").iterdir()
    assert 1 <= len(list(folder.iterdir())) <= 4
    assert tables.bare_name("an old axe") == "old axe"
    assert tables.bare_name("a") == "a"


def test_the_papers_say_which_column_is_better(tables: ModuleType) -> None:
    janus, consistency = tables.orderings_of("janus", ["mini", "single-view"])
    assert (janus.figure, janus.better, janus.worse, janus.times) == ("janus_share", "mini", "single-view", 3)
    assert consistency.times == 1
    found = tables.orderings_of("mv-rag", ["a, by pictures", "a", "dreambooth"])
    assert [(one.figure, one.better, one.worse) for one in found] == [
        ("image_image", "a, by pictures", "a"),
        ("image_image", "a, by pictures", "dreambooth"),
    ]
    figures = [one.figure for one in tables.orderings_of("table-1", ["a", "b", "held-out renders"])]
    assert figures == ["fid", "inception_score", "text_image"]


def test_the_plan_runs_nothing(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "list.txt"
    prompts.write_text("# two\na chair\na tree\n")
    monkeypatch.setattr(sys, "argv", ["tables", "--out", str(tmp_path / "out"), "--plan", "--prompts", str(prompts)])
    tables.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].endswith("preset=mini # 4 min")
    assert lines[-1] == "about 8 minutes on two cores"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prompts.txt"]
