"""The scripts of examples/rare: what ships with them, and the whole evaluation with a prior of random weights."""

from __future__ import annotations

import csv
import importlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from assets import cube_glb
from small_pictures import small_pictures
from test_optimise import TINY
from tiny_adapter import write_tiny_adapter
from tiny_judge import Colors, write_tiny_judge
from tiny_prior import write_tiny_prior

from dream3d.dataset.captions.concepts import mentions, read_concepts
from dream3d.errors import DatasetError, UsageError
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.recipe.mesh import MeshRecipe
from dream3d.retrieval.pictures import check_picture

RARE = Path(__file__).parent.parent / "examples/rare"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(RARE))
    return importlib.import_module(name)


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def some_cases(folder: Path, names: tuple[str, ...]) -> Path:
    """A folder of cases with some of the shipped ones."""
    for table in ("pictures.csv", "truth.csv"):
        kept = [row for row in rows_of(RARE / table) if row["caption"] in names]
        for row in kept:
            (folder / row["image"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(RARE / row["image"], folder / row["image"])
        with (folder / table).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, kept[0].keys())
            writer.writeheader()
            writer.writerows(kept)
    return folder


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_adapter(write_tiny_prior(tmp_path_factory.mktemp("adapted") / "tiny"))


def test_the_shipped_pictures_are_of_held_out_concepts_with_authors_and_licences() -> None:
    pictures, truth = rows_of(RARE / "pictures.csv"), rows_of(RARE / "truth.csv")
    concepts = read_concepts(RARE.parent.parent / "prompts/held-out-concepts.txt")
    names = {row["caption"] for row in pictures}
    assert len(names) == 12
    assert names == {row["caption"] for row in truth}
    assert all(mentions(name, concepts) for name in names)
    models = {item["id"]: item["name"] for item in json.loads((RARE / "concepts.json").read_text())}
    assert {(row["model"], row["caption"]) for row in pictures} == set(models.items())
    files = [RARE / row["image"] for row in (*pictures, *truth)]
    assert len(set(files)) == 12 * (6 + 8)
    assert {path for kind in ("pictures", "truth") for path in (RARE / kind).iterdir()} == set(files)
    assert sum(path.stat().st_size for path in files) < 1_500_000
    assert all(row["author"] and row["licence"] and row["source"] for row in (*pictures, *truth))
    for row in pictures[::5]:
        checked = check_picture((RARE / row["image"]).read_bytes())
        assert max(checked.width, checked.height) <= 192


def test_models_are_rendered_to_pictures_and_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render = script("render_pictures", monkeypatch)
    for name, size in (("SIDE", 24), ("RENDER_SIDE", 24), ("TRUTH_SIDE", 16)):
        monkeypatch.setattr(render, name, size)
    cube_glb(tmp_path / "one.glb")
    cube_glb(tmp_path / "two.glb")
    names = [{"id": "one", "name": "red cube"}, {"id": "two", "name": "red cube"}]
    (tmp_path / "list.json").write_text(json.dumps(names))
    arguments = [str(tmp_path), "--select", str(tmp_path / "list.json"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["render_pictures.py", *arguments])
    render.main()
    cases = script("rare_cases", monkeypatch).read_cases(tmp_path / "out")
    assert [case.prompt for case in cases] == ["a red cube"]
    assert len(cases[0].pictures) == 6
    assert [row["model"] for row in rows_of(tmp_path / "out/pictures.csv")] == ["one", "two"] * 3
    truth = cases[0].truth_over((1.0, 0.0, 1.0))
    assert truth.shape == (8, 3, 16, 16)
    assert truth[:, :, 0, 0].sub(torch.tensor([1.0, 0.0, 1.0])).abs().max() < 0.02  # the cube fills no corner
    front = truth[0, :, 8, 8]
    assert front[0] > 0.5 > front[2]  # its front is red
    looks = {path.read_bytes() for path in (tmp_path / "out/pictures").iterdir()}
    assert len(looks) == 6


def test_names_are_taken_from_all_over_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    render = script("render_pictures", monkeypatch)
    assert render.spread(["a", "b", "c", "d", "e", "f"], 3) == ["a", "c", "e"]
    assert render.spread(["a", "b"], 3) == render.spread(["a", "b"], 0) == ["a", "b"]


def test_another_name_takes_the_place_of_a_damaged_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    render = script("render_pictures", monkeypatch)

    def made_of(name: str, models: list[str], seed: int) -> list[str]:
        if models == ["damaged"]:
            raise DatasetError("its texture is missing")
        return [f"{name} {seed}"]

    monkeypatch.setattr(render, "made_of", made_of)
    groups = {"a": ["sound"], "b": ["sound"], "c": ["damaged"], "d": ["sound"]}
    assert list(render.pictured(groups, 2, 7)) == [["a 7"], ["b 7"]]
    assert capsys.readouterr().out == "left out: c: its texture is missing\n"
    assert list(render.pictured(groups, 0, 7)) == [["a 7"], ["b 7"], ["d 7"]]


def test_wrong_pictures_take_the_place_of_right_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = script("rare_cells", monkeypatch)
    cases = script("rare_cases", monkeypatch).read_cases(RARE)
    case, arm = cases[0], cells.Arm("3 of 4 wrong", wrong=3)
    shown = cells.shown_pictures(case, cases, arm, 0)
    assert shown[:1] == case.pictures[:1]
    assert not {one.sha256 for one in shown[1:]} & {one.sha256 for one in case.pictures}
    assert len({one.sha256 for one in shown}) == 4
    assert shown == cells.shown_pictures(case, cases, arm, 0) != cells.shown_pictures(case, cases, arm, 1)
    assert cells.shown_pictures(case, cases, cells.TEXT, 0) == ()
    assert cells.shown_pictures(case, cases, cells.Arm("", 6), 0) == case.pictures


def test_a_damaged_folder_of_cases_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_cases = script("rare_cases", monkeypatch).read_cases
    with pytest.raises(UsageError, match=r"pictures\.csv cannot be read"):
        read_cases(tmp_path)
    (tmp_path / "pictures.csv").write_text("image,caption\nx.webp,chair\n")
    (tmp_path / "truth.csv").write_text("image,caption\n")
    with pytest.raises(DatasetError, match="lacks a column"):
        read_cases(tmp_path)


def test_figures_of_the_table_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    cells, report = script("rare_cells", monkeypatch), script("rare_report", monkeypatch)

    def cell(arm: str, case: str, seed: int, value: float, alpha: float | None = None) -> Any:
        place = cells.Place("rare", "views", "p", arm, case, seed)
        similarity = {"encoder": value, "classifier": value / 2}
        return cells.Cell(place, f"{arm}{case}{seed}", similarity, {"views": 2.0 + seed, "alpha": 0.5}, alpha)

    text = [cell("text only", case, 0, 0.2) for case in "ab"]
    guided = [cell("MV-RAG", "a", 0, 0.3, 0.1), cell("MV-RAG", "a", 1, 0.5, 0.3), cell("MV-RAG", "b", 0, 0.6, 0.2)]
    assert report.by_case(guided, "encoder") == pytest.approx({"a": 0.4, "b": 0.6})
    gained = report.gain(guided, text, "encoder")
    assert (gained.value, gained.low, gained.high) == pytest.approx((0.3, 0.2, 0.4))  # of a alone, and of b alone
    assert report.gain(guided, [], "encoder") is None
    lines = report.table([*text, *guided], {"encoder": "E", "classifier": "C"}).splitlines()
    assert lines[2] == "| rare, views | text only | 2 | 0.200 |  | 0.100 |  |  | 0.50 + - + 2.00 + - |"
    expected = "+0.300 [+0.200, +0.400] | 0.250 | +0.150 [+0.100, +0.200] | 0.20 | 0.50 + - + 2.00 + - |"
    assert lines[3] == f"| rare, views | MV-RAG | 2 | 0.500 | {expected}"
    lines = report.table_of_things([*text, *guided], {"encoder": "E", "classifier": "C"}).splitlines()
    assert lines[0] == "| thing | E, text only | E, MV-RAG | C, text only | C, MV-RAG |"
    assert lines[2:] == ["| a | 0.200 | 0.400 | 0.100 | 0.200 |", "| b | 0.200 | 0.600 | 0.100 | 0.300 |"]


def test_the_whole_evaluation_is_stopped_and_goes_on(
    tmp_path: Path, adapted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = script("evaluate_rare", monkeypatch)
    monkeypatch.setattr(main, "EfficientNetLite2", Colors)
    cases = some_cases(tmp_path / "cases", ("radio", "bicycle"))
    judge, out = write_tiny_judge(tmp_path / "judge"), tmp_path / "out"
    arguments = ["--prior", str(adapted), "--judge", str(judge), "--text", str(judge), "--out", str(out)]
    arguments += ["--cases", str(cases), "--in-domain", str(cases), "--steps", "1"]
    monkeypatch.setattr(sys, "argv", ["evaluate_rare.py", *arguments])
    main.main()
    lines = (out / "cells.jsonl").read_text().splitlines()
    assert len(lines) == 2 * (4 + 9 + 2)
    table = (out / "evaluation.md").read_text()
    assert table in capsys.readouterr().out
    assert table.count("\n| rare, views |") == 13
    assert table.count("\n| in-domain, views |") == 2
    assert {path.name for path in out.glob("*.png")} == {"sheet.png", "blind.png"}
    assert set(json.loads((out / "blind.json").read_text())) == {"1. bicycle", "2. radio"}
    alphas = {cell["place"]["arm"]: cell["alpha"] for cell in map(json.loads, lines)}
    assert (alphas["text only"], alphas["fusion 0.3"]) == (None, 0.3)
    assert 0 <= alphas["MV-RAG"] <= 1

    (out / "cells.jsonl").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:50])  # killed while it wrote
    calls, draw = [], main.draw_views

    def counted(*given: Any) -> Any:
        calls.append(given)
        return draw(*given)

    monkeypatch.setattr(main, "draw_views", counted)
    main.main()
    assert len(calls) == 1
    again = (out / "cells.jsonl").read_text().splitlines()
    assert again[:-1] == lines[:-1]
    assert json.loads(again[-1])["similarity"] == json.loads(lines[-1])["similarity"]


def test_3d_assets_are_made_once_and_looked_at(tmp_path: Path, adapted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = script("rare_cells", monkeypatch)
    case = script("rare_cases", monkeypatch).read_cases(some_cases(tmp_path / "cases", ("radio",)))[0]
    recipe = replace(TINY.with_steps(2), mesh=MeshRecipe(resolution=24, faces=200, texture=0))
    prior = DiffusionPrior(adapted)
    with small_pictures():
        given = (prior, case.prompt, case.pictures[:2], cells.Arm("x", 2, alpha=0.25), 0, recipe, tmp_path / "run")
        drawn = cells.draw_mesh(*given)
        made = (tmp_path / "run/mesh.glb").stat().st_mtime_ns
        again = cells.draw_mesh(*given)
    assert drawn.views.shape == (2, 3, cells.MESH_SIDE, cells.MESH_SIDE)
    assert drawn.alpha == 0.25
    assert drawn.seconds["asset"] >= 0
    corner = np.asarray(prior.background)
    assert np.abs(drawn.views[0, :, 0, 0].numpy() - corner).max() < 0.01
    assert (drawn.views[0] - drawn.views[0, :, :1, :1]).abs().max() > 0.02  # something stands there
    assert (tmp_path / "run/mesh.glb").stat().st_mtime_ns == made
    assert torch.equal(again.views, drawn.views)
