"""Run folders: names, atomic writes, refusal to overwrite."""

import csv
import json
import re
import string
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import MASCOT, OraclePrior

from dream3d.errors import Dream3DError, UsageError
from dream3d.files import write_atomically
from dream3d.names import own_slug, slug
from dream3d.recipe.presets import preset
from dream3d.run.folder import METRIC_COLUMNS, RunFolder, default_run_dir, provenance
from dream3d.training.logs import StepLog


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a Wooden Chair", "a-wooden-chair"),
        ("  une théière, s'il vous plaît!  ", "une-théière-s-il-vous-plaît"),
        ("../../etc/passwd", "etc-passwd"),
        ("雪だるま", "雪だるま"),
        ("नीली कुर्सी", "नीली-कुर्सी"),
        ("❤\ufe0f a\u202eb", "a-b"),
        ("...", "asset"),
        ("x" * 100, "x" * 48),
        ("雪" * 100, "雪" * 16),
    ],
)
def test_slugs_by_hand(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected


@given(st.text())
def test_a_slug_is_always_a_safe_file_name(prompt: str) -> None:
    name, plain = slug(prompt), slug(prompt, ascii_only=True)
    assert 1 <= len(name.encode()) <= 48
    assert all(letter == "-" or unicodedata.category(letter)[0] in "LMN" for letter in name)
    assert set(plain) <= set(string.ascii_lowercase + string.digits + "-")
    assert not name.startswith("-")
    assert not name.endswith("-")


@given(st.lists(st.text("ab -!_A\u0301é雪", min_size=1, max_size=5), min_size=2, max_size=2, unique=True))
def test_two_prompts_never_share_a_default_mesh(prompts: list[str]) -> None:
    one, other = map(own_slug, prompts)
    assert one != other
    assert own_slug("a wooden chair") == "a-wooden-chair"


def test_an_earlier_run_keeps_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_run_dir("a chair", 7) == Path("runs/a-chair-7")
    Path("runs/a-chair-7").mkdir(parents=True)
    assert default_run_dir("a chair", 7) == Path("runs/a-chair-7-2")
    Path("runs/a-chair-7-2").mkdir()
    assert default_run_dir("a chair", 7) == Path("runs/a-chair-7-3")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    target.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, fail)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_keeps_the_ending_for_its_writer(tmp_path: Path) -> None:
    seen: list[str] = []

    def write(temporary: Path) -> None:
        seen.append(temporary.suffix)
        temporary.write_text("new")

    write_atomically(tmp_path / "picture.png", write)
    assert seen == [".png"]
    assert (tmp_path / "picture.png").read_text() == "new"
    assert (tmp_path / "picture.png").stat().st_mode & 0o600 == 0o600


def test_a_folder_with_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("precious")
    with pytest.raises(UsageError, match="already holds a run"):
        RunFolder(tmp_path, {})
    assert (tmp_path / "run.json").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Dream3DError, match="cannot write the run folder"):
        RunFolder(tmp_path / "file" / "run", {})


def test_run_json_tells_how_the_run_ended(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", {"prompt": "a chair"})

    def read() -> dict[str, object]:
        data: dict[str, object] = json.loads((tmp_path / "run" / "run.json").read_text())
        return data

    assert read() == {"prompt": "a chair", "status": "running", "id": run.facts["id"], "files": ["metrics.csv"]}
    run.record("failed", reason="the field is empty")
    assert read()["reason"] == "the field is empty"
    run.record("finished", result={"faces": 3})
    ended = {"status": "finished", "result": {"faces": 3}, "id": run.facts["id"], "files": ["metrics.csv"]}
    assert read() == {"prompt": "a chair", **ended}


BAD_ROWS = [
    b"1,0.5",
    b"1,0.5,\xff\xfe",
    b"x,1,1",
    b"-1,1,1",
    b"\xc2\xb2,1,1",
    b"9" * 5000 + b",1,1",
    b"\0",
    b"1,2,3,4",
    b"",
]


@given(st.lists(st.sampled_from([b"0,0.5,a", b"7,0.5,a", *BAD_ROWS]) | st.binary(max_size=9)))
def test_of_a_table_only_the_whole_rows_before_a_step_are_kept(rows: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = StepLog(Path(folder) / "metrics.csv", ("step", "loss", "mode"))
        log.path.write_bytes(b"\xff\n" + b"\n".join([b"0,first,a", *rows]) + b"\n")
        log.rewind(6)
        kept = log.path.read_text(encoding="utf-8").splitlines()
        assert kept[:2] == ["step,loss,mode", "0,first,a"]
        assert kept.count("0,0.5,a") == rows.count(b"0,0.5,a")
        assert all(re.fullmatch("[0-6],[ -~]*,[ -~]*", row) for row in kept[1:] if row.isprintable())
        before = log.path.read_bytes()
        log.rewind(6)
        assert log.path.read_bytes() == before


def test_metrics_are_appended_under_one_header(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", {})
    row = dict.fromkeys(METRIC_COLUMNS, 1)
    run.append_metrics([row, row])
    run.append_metrics([row])
    with run.metrics_path.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


def test_provenance_says_what_made_it_and_nothing_that_changes() -> None:
    made_by = provenance("a chair", 3, preset("mini"), OraclePrior(MASCOT))
    assert (made_by["prompt"], made_by["seed"]) == ("a chair", 3)
    assert made_by["recipe"]["guidance"]["guidance_scale"] == preset("mini").guidance.guidance_scale
    assert made_by["prior"]["name"] == "oracle"
    assert set(made_by["versions"]) == {"dream3d", "torch", "python"}
    assert made_by == provenance("a chair", 3, preset("mini"), OraclePrior(MASCOT))
    json.dumps(made_by)
