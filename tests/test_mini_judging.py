"""The scripts that compare recipes and judge what they make, without their long runs and their classifier."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny_prior import write_tiny_prior
from torch import Tensor

from dream3d.generate import generate
from dream3d.mesh.shading import write_turntable
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.recipe.generation import MeshRecipe, Recipe, Stage, TargetRecipe
from dream3d.recipe.presets import preset
from dream3d.recipe.scene import FieldRecipe, RenderRecipe

ROOT = Path(__file__).parent.parent
SMALL: Recipe = replace(
    preset("mini").with_steps(2),
    stages=(Stage(0, 8, 1),),
    targets=(TargetRecipe(0, None, 5, 2, 1, 1.0),),
    field=FieldRecipe(levels=2, log2_entries=10, base_resolution=4, hidden_width=8, blob_scale=4.0),
    render=RenderRecipe(samples_per_diagonal=16, occupancy_resolution=8),
    mesh=MeshRecipe(resolution=12, texture=64),
)


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "examples/mini"))
    module: ModuleType = importlib.import_module(name)
    return module


@pytest.fixture
def prior(tmp_path: Path) -> DiffusionPrior:
    return DiffusionPrior(write_tiny_prior(tmp_path / "tiny"))


def test_the_questions_are_enough_and_each_has_classes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = script("judge", monkeypatch).read_questions(ROOT / "prompts/judge.tsv")
    assert len(questions) >= 30
    assert len({question.prompt for question in questions}) == len(questions)
    for question in questions:
        assert question.classes
        assert question.classes <= set(range(1000))
    dog = next(question for question in questions if question.prompt == "a dog")
    assert dog.classes == set(range(151, 269))


def test_a_prompt_is_a_hit_if_one_of_its_classes_is_among_the_first_five(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prior: DiffusionPrior
) -> None:
    judge = script("judge", monkeypatch)
    shown: list[Tensor] = []

    class Fixed:
        """Says the same of everything."""

        def best(self, images: Tensor) -> list[int]:
            shown.append(images)
            return [3, 1, 4, 15, 9]

    out = tmp_path / "red.glb"
    monkeypatch.setattr("dream3d.finish.write_turntable", partial(write_turntable, frames=2, size=16))
    generate("red", prior=prior, recipe=SMALL, seed=0, device="cpu", out=out, run_dir=tmp_path / "run")
    found = judge.judge(judge.Question("red", frozenset({4, 7})), prior, Fixed(), out)
    assert {name: one["hit"] for name, one in found.items()} == {"views": True, "mesh": True}
    assert [tuple(images.shape) for images in shown] == [(4, 3, 16, 16), (4, 3, judge.SIDE, judge.SIDE)]
    found = judge.judge(judge.Question("red", frozenset({2})), prior, Fixed(), None)
    assert found == {"views": {"best": [3, 1, 4, 15, 9], "hit": False}}
    (tmp_path / "list.tsv").write_text("# prompt\tclasses\tnames\nred\t3-5 8\tthings\n")
    monkeypatch.setattr(judge, "Classifier", Fixed)
    monkeypatch.setattr(judge, "load_prior", lambda name: prior)
    monkeypatch.setattr(sys, "argv", ["judge.py", str(tmp_path / "list.tsv"), "--out", str(tmp_path / "judged.json")])
    judge.main()
    assert json.loads((tmp_path / "judged.json").read_text())["hits"] == {"views": "1 of 1", "mesh": "0 of 0"}


def test_forms_of_the_recipe_are_compared_in_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prior: DiffusionPrior
) -> None:
    tune = script("tune", monkeypatch)
    for name, form in tune.FORMS.items():  # every form is a recipe
        assert (form(preset("mini")) == preset("mini")) == (name == "shipped")
    monkeypatch.setattr(tune, "preset", lambda name: SMALL)
    monkeypatch.setattr(tune, "load_prior", lambda name: prior)
    argv = ["tune.py", "--out", str(tmp_path / "tuned"), "--forms", "shipped", "--prompts", "a red chair"]
    for _ in range(2):  # a run that is in the table is not done again
        monkeypatch.setattr(sys, "argv", argv)
        tune.main()
    with (tmp_path / "tuned/table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["form"], row["prompt"], row["seed"]) for row in rows] == [("shipped", "a red chair", "0")]
    assert 0 < float(rows[0]["iou"]) <= 1
    assert (tmp_path / "tuned/shipped-a-red-chair-0.png").stat().st_size > 1000


def test_rounds_of_a_sheet_are_over_field_and_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (torch.zeros(4, size, size, 3, dtype=torch.uint8).numpy() for size in (64, 128))
    assert script("tune", monkeypatch).sheet([small, large]).shape == (2 * 128 + 2, 4 * 128, 3)
