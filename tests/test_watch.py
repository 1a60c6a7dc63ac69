"""The watch over an optimisation: figures, what is wrong, what is done; and that a resumed run does the same."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import MASCOT, OraclePrior
from small_pictures import small_pictures
from test_not_finite import Broken
from test_optimise import TINY

from dream3d import distill
from dream3d.errors import NotFiniteError, UsageError
from dream3d.generate import generate, optimise, resume
from dream3d.recipe.generation import MeshRecipe, Recipe, TargetRecipe, WatchRecipe
from dream3d.recipe.presets import PRESETS
from dream3d.run.folder import read_run
from dream3d.run.progress import Progress
from dream3d.run.session import Session
from dream3d.watch import (
    Answer,
    Figures,
    Look,
    Trouble,
    answer_to,
    eased,
    is_due,
    judge,
    looks_from,
    measure,
    seed_of,
)

PRIOR = OraclePrior(MASCOT, image_size=16)
WELL = Figures(0.3, 0.02, 0.0)
NOTHING = Figures(math.nan, math.nan, math.nan)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with small_pictures():
        yield


def scene(opacity: list[list[float]], color: tuple[float, float, float] = (0.5, 0.5, 0.5)) -> Figures:
    """Figures of one view."""
    alpha = torch.tensor(opacity)[None, ..., None]
    return measure(torch.tensor(color).expand(1, *alpha.shape[1:3], 3), alpha)


def test_figures_by_hand() -> None:
    # Patches of 2 and of 1 solid pixels, and half a pixel of haze: 1.5 of 3.5 are not the object's.
    found = scene([[1, 1, 0], [0, 0, 0.5], [1, 0, 0]])
    assert found.opacity == pytest.approx(3.5 / 9)
    assert found.floaters == pytest.approx(1.5 / 3.5)
    assert found.saturated == 0
    assert scene([[0.2, 0.2], [0.2, 0.2]]).floaters == 1  # haze alone
    assert scene([[0.0, 0.0], [0.0, 0.0]]) == Figures(0, 0, 0)
    assert scene([[1.0, math.nan]]).opacity != scene([[1.0, math.nan]]).opacity


@pytest.mark.parametrize(
    ("color", "share"),
    [((1.0, 0.0, 0.4), 1.0), ((0.985, 0.015, 0.0), 1.0), ((1.0, 1.0, 1.0), 0.0), ((0.9, 0.0, 0.0), 0.0)],
)
def test_a_colour_at_the_edge_of_what_can_be_shown_is_saturated(
    color: tuple[float, float, float], share: float
) -> None:
    assert scene([[1.0, 1.0], [0.0, 0.4]], color).saturated == share


RECIPE = WatchRecipe()


@pytest.mark.parametrize(
    ("figures", "before", "trouble"),
    [
        (WELL, WELL, None),
        (NOTHING, None, "not finite"),
        (replace(WELL, opacity=0.0005), None, "empty"),
        (replace(WELL, opacity=0.99), None, "full"),
        (replace(WELL, floaters=0.7), None, None),
        (replace(WELL, floaters=0.7), replace(WELL, floaters=0.65), "floaters"),
        (replace(WELL, floaters=0.7), replace(WELL, floaters=0.8), None),
        (replace(WELL, saturated=0.9), None, "saturated"),
        (Figures(0.0005, 0.9, 0.9), WELL, "empty"),
    ],
)
def test_what_is_wrong(figures: Figures, before: Figures | None, trouble: Trouble | None) -> None:
    assert judge(figures, before, RECIPE) == trouble


def looks(*answers: Answer) -> list[Look]:
    """Looks with these answers, one after another."""
    return [Look(sum(one == "restart" for one in answers[:i]), i, WELL, None, one) for i, one in enumerate(answers)]


@pytest.mark.parametrize(
    ("trouble", "before", "is_last", "answer"),
    [
        (None, (), False, "none"),
        ("empty", (), False, "restart"),
        ("empty", (), True, "restart"),
        ("empty", ("restart",), False, "none"),
        ("saturated", (), False, "rescale"),
        ("saturated", (), True, "none"),
        ("saturated", ("rescale", "rescale"), False, "none"),
        ("saturated", ("rescale", "rescale", "restart"), False, "rescale"),
    ],
)
def test_what_is_done(trouble: Trouble | None, before: tuple[Answer, ...], is_last: bool, answer: Answer) -> None:
    assert answer_to(trouble, looks(*before), RECIPE, is_last) == answer


def test_each_rescale_halves_what_is_left() -> None:
    recipe = PRESETS["mini"]
    assert eased(recipe, []) is recipe
    assert eased(recipe, looks("rescale", "none")).guidance.rescale == pytest.approx(1 - 0.5 / 2)
    assert eased(recipe, looks("rescale", "rescale")).guidance.rescale == pytest.approx(1 - 0.5 / 4)
    assert eased(recipe, looks("rescale", "restart")) is recipe


def test_looks_are_at_the_ends_of_equal_parts() -> None:
    assert [step for step in range(241) if is_due(PRESETS["mini"], step)] == [60, 120, 180, 240]
    one = replace(TINY.with_steps(1), watch=WatchRecipe(looks=4))
    assert [step for step in range(2) if is_due(one, step)] == [1]
    assert not any(is_due(replace(TINY, watch=WatchRecipe(looks=0)), step) for step in range(9))


def test_seeds_of_attempts_differ() -> None:
    assert seed_of(7, 0) == 7
    assert len({seed_of(seed, attempt) for seed in range(100) for attempt in range(17)}) == 1700
    assert 0 <= seed_of(2**63 - 1, 16) < 2**63


# --- in a run -----------------------------------------------------------------------------------------------------


def field(state: distill.Distillation) -> torch.Tensor:
    return torch.cat([value.flatten() for value in state.scene.field.state_dict().values()])


def test_a_run_in_which_nothing_is_wrong_is_the_one_without_a_watch() -> None:
    plain = optimise("", PRIOR, replace(TINY, watch=WatchRecipe(looks=0)), 0, "cpu")
    assert torch.equal(field(plain), field(optimise("", PRIOR, TINY, 0, "cpu")))


EMPTY = replace(TINY, watch=WatchRecipe(looks=4, empty=1.0))
"""Any field is empty to it, at steps 2, 4, 6, 8."""


def test_a_field_that_went_wrong_begins_again_with_another_seed() -> None:
    heard: list[Progress] = []
    state = optimise("", PRIOR, EMPTY, 5, "cpu", Session(heard.append))
    other = optimise("", PRIOR, TINY, seed_of(5, 1), "cpu")
    assert torch.equal(field(state), field(other))
    said = [report.message.partition("; ")[2] for report in heard if report.message and "empty" in report.message]
    assert said == ["beginning again with another seed"] + 4 * [
        "going on, since the recipe's remedies are used up or it has none"
    ]


def test_numbers_that_are_not_finite_begin_again_too() -> None:
    recipe = replace(TINY.with_steps(24), targets=(TargetRecipe(),))
    state = optimise("", Broken(range(1, 21), math.nan), recipe, 0, "cpu")
    assert torch.equal(field(state), field(optimise("", OraclePrior(MASCOT), recipe, seed_of(0, 1), "cpu")))
    none_left = replace(recipe, watch=WatchRecipe(restarts=0))
    with pytest.raises(NotFiniteError, match="the last 20 updates"):
        optimise("", Broken(range(1, 21), math.nan), none_left, 0, "cpu")


def run(folder: Path, recipe: Recipe, observer: Any = lambda progress: None) -> bytes:
    generate(
        "a mascot",
        prior=PRIOR,
        recipe=recipe,
        seed=3,
        device="cpu",
        out=folder / "mascot.glb",
        run_dir=folder / "run",
        observer=observer,
        checkpoint_seconds=1e-9,
    )
    return (folder / "mascot.glb").read_bytes()


def saturated(color: torch.Tensor, opacity: torch.Tensor) -> Figures:
    return Figures(0.3, 0.0, 1.0)


@pytest.mark.parametrize("kind", ["restart", "rescale"])
def test_a_run_that_was_stopped_anywhere_answers_as_a_whole_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(EMPTY, mesh=MeshRecipe(resolution=24, texture=64))
    if kind == "rescale":
        monkeypatch.setattr(distill, "measure", saturated)
        recipe = replace(recipe, watch=WatchRecipe(looks=4))
    whole = run(tmp_path / "whole", recipe)
    facts = read_run(tmp_path / "whole/run")
    expected = facts["watch"]
    answers = {"restart": ["restart", *["none"] * 4], "rescale": ["rescale", "rescale", "none", "none"]}[kind]
    assert [look["answer"] for look in expected] == answers
    metrics = (tmp_path / "whole/run/metrics.csv").read_bytes()
    for stop in (1, 2, 3, 8):  # reports of the optimisation, over both attempts
        left = stop
        folder = tmp_path / str(stop)

        def fall(progress: Progress) -> None:
            nonlocal left
            left -= progress.stage == "optimise" and progress.loss is not None
            if left == 0:
                left = -1
                raise RuntimeError("the machine is on fire")

        with pytest.raises(RuntimeError, match="on fire"):
            run(folder, recipe, fall)
        assert resume(folder / "run", prior=PRIOR, checkpoint_seconds=1e-9) is not None
        assert (folder / "mascot.glb").read_bytes() == whole
        assert read_run(folder / "run")["watch"] == expected
        assert read_run(folder / "run")["targets"] == facts["targets"]
        assert (folder / "run/metrics.csv").read_bytes() == metrics


def test_checkpoints_of_an_attempt_that_was_given_up_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the record of the restart and the removal of its checkpoints."""
    recipe = replace(EMPTY, mesh=MeshRecipe(resolution=24, texture=64))
    whole = run(tmp_path / "whole", recipe)

    def die(self: object, paths: object = None) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("dream3d.run.checkpointer.Checkpointer.discard", die)
        with pytest.raises(RuntimeError, match="killed"):
            run(tmp_path / "other", recipe)
    assert list((tmp_path / "other/run/checkpoints").iterdir())
    assert resume(tmp_path / "other/run", prior=PRIOR, checkpoint_seconds=1e-9) is not None
    assert (tmp_path / "other/mascot.glb").read_bytes() == whole


# --- the record ---------------------------------------------------------------------------------------------------


def test_looks_come_back_from_run_json() -> None:
    made = [Look(0, 4, WELL), Look(0, 8, Figures(0.1, 1 / 3, 1.0), "floaters", "restart")]
    assert looks_from(json.loads(json.dumps([one.to_dict() for one in made])), "x") == made
    (found,) = looks_from([Look(1, 2, NOTHING, "not finite").to_dict()], "x")
    assert math.isnan(found.figures.opacity)
    assert looks_from(None, "x") == []


plain = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=4)


@given(st.sampled_from(["attempt", "step", "opacity", "trouble", "answer"]), plain)
def test_a_record_of_anybody_is_looks_or_refused(key: str, value: object) -> None:
    record = [{**Look(0, 4, WELL).to_dict(), key: value}]
    with contextlib.suppress(UsageError):
        assert [one.to_dict() for one in looks_from(record, "run.json")] == record
    with pytest.raises(UsageError, match="'watch' is not valid"):
        looks_from({"a": 1}, "run.json")
