"""Batches: lists of prompts as anybody writes them, and jobs with names of their own."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream3d.batch.jobs import plan
from dream3d.batch.prompts import MAX_LINE_BYTES, Entry, read_lists
from dream3d.errors import UsageError
from dream3d.recipe.generation import Stage, TargetRecipe
from dream3d.recipe.overrides import changed_recipe
from dream3d.recipe.presets import preset

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
    lists = {"targets": "[{updates = 4}]", "stages": "[{from_step = 0, resolution = 16, objects = 1}]"}
    changed = changed_recipe(lists, "mini")
    assert (changed.targets, changed.stages) == ((TargetRecipe(updates=4),), (Stage(0, 16, 1),))
    assert changed_recipe({"negative_prompt": "fog"}, "mini").negative_prompt == "fog"
    with pytest.raises(UsageError, match="unknown preset"):
        changed_recipe({"preset": "huge"}, "mini")


def test_the_lists_that_ship_are_lists() -> None:
    names = {path.name: len(read_lists([path])) for path in (ROOT / "prompts").glob("*.txt")}
    assert names.keys() >= {"gallery.txt", "furniture.txt", "animals.txt", "rare-concepts.txt", "compositional.txt"}
    assert names["gallery.txt"] == 20
    assert all(count >= 10 for count in names.values())
