"""The scripts that draw held-out things and compare ways to learn them, with a tiny prior."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_judge import write_tiny_judge
from tiny_photos import thing, write_personal_prior, write_photos

import dream3d.personalise.samples as samples
from dream3d.errors import UsageError
from dream3d.personalise.recipe import recipe_for
from dream3d.prior.sampling import SamplingRecipe

ROOT = Path(__file__).parent.parent
FAST = ("--set", "steps=1", "--set", "keep_sets=1", "--set", "batch=1", "--method", "base", "--method", "lora-1")


def script(name: str, monkeypatch: pytest.MonkeyPatch, folder: str = "examples/personal") -> Any:
    monkeypatch.syspath_prepend(str(ROOT / folder))
    return importlib.import_module(name)


# The pictures.


def test_each_thing_has_its_pictures_and_its_line_of_attribution(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = script("pictures", monkeypatch)
    things, place = pictures.read_things(), ROOT / "examples/personal/pictures"
    assert len(things) == 8
    assert sum(one.is_photograph for one in things) == 2
    for one in things:
        assert len(list((place / one.name / "photos").glob("*.jpg"))) == 5
        assert len(list((place / one.name / "true").glob("*.webp"))) == (4 if one.is_photograph else 8)
    lines = (place / "attribution.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["thing", *(one.name for one in things)]
    assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) < 1_000_000
    # Nobody learns from what they are compared with.
    concepts = (ROOT / "prompts/held-out-concepts.txt").read_text().split("\n")
    assert all(one.is_photograph or one.kind in concepts for one in things)


def test_a_photograph_is_cut_out_and_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = script("pictures", monkeypatch)
    photograph = Image.new("RGB", (40, 30), (200, 100, 50))
    square = pictures.cut_out(photograph, [(10, 10), (29, 10), (29, 25), (10, 25)])
    assert square.shape == (29, 29, 4)  # 1.45 times the 20 pixels of the longer side
    assert square[..., 3].sum() == 255 * 20 * 16
    one = pictures.Thing("x", "box", "", outline=((10, 10), (29, 10), (29, 25), (10, 25)))
    drawn, again = (dict(pictures.draw_photograph(one, photograph)) for _ in range(2))
    assert sorted(drawn) == [*(f"photos/{i}" for i in range(1, 6)), *(f"true/{i}" for i in range(1, 5))]
    assert all(np.array_equal(drawn[name], again[name]) for name in drawn)
    assert drawn["photos/1"].shape == (192, 192, 3)
    assert drawn["true/1"].shape == (128, 128, 4)
    assert len({picture.tobytes() for picture in drawn.values()}) == 9


# The comparison.


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior, a judge, and pictures of two things."""
    place = tmp_path_factory.mktemp("place")
    write_personal_prior(place / "prior")
    write_tiny_judge(place / "judge")
    for index, name in enumerate(("block", "brick")):
        write_photos(place / "pictures" / name / "photos", 2)
        (place / "pictures" / name / "true").mkdir()
        alpha = np.full((48, 48, 1), 0, np.uint8)
        alpha[8:40, 8:40] = 255
        rgba = np.dstack([thing(index), alpha])
        Image.fromarray(rgba).save(place / "pictures" / name / "true" / "1.webp", lossless=True)
    return place


def test_cells_are_measured_once_and_told_together(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate, pictures = script("evaluate_personal", monkeypatch), script("pictures", monkeypatch)
    two = [pictures.Thing("block", "dog", ""), pictures.Thing("brick", "chair", "")]
    monkeypatch.setattr(evaluate, "read_things", lambda: two)
    monkeypatch.setattr(evaluate, "is_installed", lambda: False)
    monkeypatch.setattr(samples, "sampling_for", lambda preset: SamplingRecipe(steps=1))
    out = tmp_path / "out"
    words = ["--out", str(out), "--prior", str(place / "prior"), "--judge", str(place / "judge")]
    words += ["--pictures", str(place / "pictures"), *FAST]
    evaluate.main([*words, "--thing", "block"])
    results = out / "results.jsonl"
    results.write_text(results.read_text() + '{"thing": "brick", "met')  # killed while it wrote
    evaluate.main(words)
    cells = [json.loads(line) for line in results.read_text().splitlines() if line.endswith("}")]
    assert [(cell["thing"], cell["method"]) for cell in cells] == [
        (name, method) for name in ("block", "brick") for method in ("base", "lora-1")
    ]
    base, new = (cell["figures"] for cell in cells[:2])
    assert {"similarity/judge/brick", "similarity/own encoder/block", "consistency_thing"} <= base.keys()
    assert base["others_change"] == base["class_change"] == 0
    assert base["others/judge"] == pytest.approx(1, abs=1e-4)
    assert new.keys() == base.keys()
    assert list((out / "priors").iterdir()) == []
    assert {"sheet.png", "quiz-lora-1.png", "quiz-lora-1.json"} <= {path.name for path in out.iterdir()}
    assert set(json.loads((out / "quiz-lora-1.json").read_text())["answers"].values()) == {1, 2}
    table = (out / "table.md").read_text()
    assert table.splitlines()[0] == "|  | base | lora, lambda 1 |"
    assert "| things | 2 | 2 |" in table
    capsys.readouterr()
    monkeypatch.setattr("cells.personalised", lambda *rest: pytest.fail("its views are kept"))
    evaluate.main([word for word in words if word not in ("--judge", str(place / "judge"))])
    assert "judge" not in capsys.readouterr().out
    monkeypatch.setattr(evaluate, "run_cell", lambda *rest: pytest.fail("it was done already"))
    before = results.read_bytes()
    evaluate.main(words)
    assert results.read_bytes() == before
    assert capsys.readouterr().out.startswith(table)
    with pytest.raises(UsageError, match="results with another recipes; give another --out"):
        evaluate.main([*words, "--set", "steps=2"])
    with pytest.raises(UsageError, match="unknown thing vase; known: block, brick"):
        evaluate.main([*words, "--thing", "vase"])


def test_what_the_table_says_is_computed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = script("summary", monkeypatch)
    things = ["a", "b"]
    cells = {
        ("a", "base"): {"similarity/e/a": 0.2, "similarity/e/b": 0.3, "x": 1.0},
        ("b", "base"): {"similarity/e/a": 0.1, "similarity/e/b": 0.4, "x": 2.0},
        ("a", "lora-1"): {"similarity/e/a": 0.5, "similarity/e/b": 0.3, "x": 1.5},
        ("b", "lora-1"): {"similarity/e/a": 0.1, "similarity/e/b": 0.7, "x": 2.5},
    }
    assert summary.mean(cells, things, "base", "x") == "1.500"
    assert summary.against_base(cells, things, "base", "x") == "1.500"
    assert summary.against_base(cells, things, "lora-1", "x") == "2.000 (+0.500, +0.500 to +0.500)"
    assert summary.against_base(cells, things, "lora-1", "similarity/e/{}") == "0.600 (+0.300, +0.300 to +0.300)"
    assert summary.against_base(cells, ["a"], "lora-1", "x") == "1.500 (+0.500)"
    assert summary.right(cells, things, "base", "e", things) == 1
    assert summary.right(cells, things, "lora-1", "e", things) == 2


# At full size.


def test_one_step_is_taken_and_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    step = script("full_size_dreambooth", monkeypatch, "examples")
    step.one_step(recipe_for("mvdream", "full"), 64, step.TrainablePrior((64, 64, 128, 128)))
    said = capsys.readouterr().out
    assert "weights train, peak memory" in said
    assert "8.0" in said.splitlines()[-1]  # bytes for each weight: two moments of four
    monkeypatch.setattr("sys.argv", ["full_size_dreambooth.py", "--method", "full", "--dry"])
    step.main()
    assert capsys.readouterr().out == "867,572,164 weights of 20 bytes: 16.2 GiB\n"
