"""``dream3d evaluate``: cases, subjects, results that are never computed twice, figures, the record and the page."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from colored_shapes import write_shapes
from evaluation_models import GREEN, RED, WHITE, YELLOW, colored_box, models
from safetensors.torch import save_file
from tiny_judge import tiny_judges, write_tiny_judge
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.errors import UsageError
from dream3d.evaluation.protocols.priors import read_split
from dream3d.evaluation.suite.cases import (
    Case,
    cases_of_objects,
    cases_of_prompts,
)
from dream3d.evaluation.suite.measure import Judges, evaluate, measure
from dream3d.evaluation.suite.report import Evaluation, run_evaluation
from dream3d.evaluation.suite.store import Result, ResultStore, claim_folder
from dream3d.evaluation.suite.subjects import PriorSubject, TruthSubject, assets_subject
from dream3d.evaluation.suite.summary import summarise, with_differences
from dream3d.prior.diffusion import DiffusionPrior

BLUE = (0.2, 0.4, 0.6)
PROMPTS = ["a red chair", "a green table", "a tree"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_judge(tmp_path_factory.mktemp("judge") / "tiny")


@pytest.fixture(scope="module")
def judges(folder: Path) -> Judges:
    return tiny_judges(folder)


@pytest.fixture(scope="module")
def prior(folder: Path) -> DiffusionPrior:
    return DiffusionPrior(folder)


def test_a_mesh_with_two_fronts_is_a_janus_and_one_with_four_sides_is_none(tmp_path: Path, judges: Judges) -> None:
    two, four = colored_box(RED, WHITE, RED, (0.9, 0.9, 0.9)), colored_box(RED, WHITE, GREEN, YELLOW)
    subject = assets_subject("boxes", [models(tmp_path, two=two, four=four)], BLUE)
    figures = {}
    for name in ("two", "four"):
        case = Case(name, orbit(4))
        figures[name] = measure(case, 0, subject.views(case, 0), BLUE, judges).figures
    assert figures["two"]["janus"] > 0.8
    assert figures["four"]["janus"] < 0.15


# --- results ----------------------------------------------------------------------------------------------------


def test_the_truth_itself_is_perfect(tmp_path: Path, judges: Judges) -> None:
    objects = read_split([write_shapes(tmp_path / "s", [("red", "table"), ("green", "chair")], copies=1)], ["heldout"])
    cases = cases_of_objects(objects, is_exact=True)
    evaluation = Evaluation("ind", [TruthSubject(BLUE)], cases, [0, 1], judges)
    (summary,), computed = run_evaluation(evaluation, tmp_path / "out")
    assert computed == 2  # the truth has one answer, whatever the seed
    assert summary.figures["psnr"].value > 50
    assert summary.figures["ssim"].value == pytest.approx(1, abs=1e-3)
    assert summary.figures["fid"].value == pytest.approx(0, abs=1e-3)


def test_one_view_repeated_four_times_agrees_wholly_and_one_prompt_has_no_rank(judges: Judges) -> None:
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    result = measure(Case("a tree", orbit(4)), 0, picture.repeat(4, 1, 1, 1), BLUE, judges)
    assert result.figures["view_agreement"] == pytest.approx(1)
    assert result.figures["janus"] == 0  # no side differs, so there is no front
    summary = summarise("one", [result], {"a tree": result.text}, None)
    assert "r_at_1" not in summary.figures
    assert "fid" not in summary.figures


def test_pictures_of_what_a_prompt_names_are_compared_with_the_views(judges: Judges) -> None:
    views = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    case = Case("a tree", orbit(4), pictures=(views * 255).round() / 255)
    figures = measure(case, 0, views, BLUE, judges).figures
    expected = (1 + 1 / 3 * 3 * figures["view_agreement"] * 3) / 4
    assert figures["image_image"] == pytest.approx(expected, abs=1e-5)  # each view with itself and with three others
    assert figures["image_image_classifier"] > 0.9


def result(prompt: str, vectors: Sequence[Sequence[float]], **figures: float) -> Result:
    count = len(vectors)
    views, nothing = torch.zeros(count, 3, 4, 4, dtype=torch.uint8), torch.zeros(count, 0)
    return Result(
        prompt, 0, figures, views, torch.tensor(vectors, dtype=torch.float32), torch.zeros(2), nothing, nothing
    )


def test_figures_worked_out_by_hand() -> None:
    captions = {"a chair": torch.tensor([1.0, 0]), "a table": torch.tensor([0.0, 1])}
    ours = [
        result("a chair", [[1, 0], [0, 1]], janus=0.75, text_image=0.5),
        result("a table", [[0, 1], [0, 1]], janus=0.25, text_image=1.0),
    ]
    theirs = [result("a chair", [[0.6, 0.8]] * 2, janus=0.25, text_image=0.6)]
    first, second = (summarise(name, one, captions, None) for name, one in (("ours", ours), ("theirs", theirs)))
    values = {key: found.value for key, found in first.figures.items()}
    assert values == pytest.approx({"text_image": 0.75, "r_at_1": 0.75, "r_at_5": 1, "janus": 0.5, "janus_share": 0.5})
    assert first.figures["text_image"].low == pytest.approx(0.5)
    assert first.figures["text_image"].high == pytest.approx(1)
    _, compared = with_differences([first, second], captions)
    # On the chair alone, which both have.
    assert compared.differences["janus"].value == pytest.approx(-0.5)
    assert compared.differences["text_image"].value == pytest.approx(0.1)
    assert compared.differences["r_at_1"].value == pytest.approx(-0.5)


def test_a_result_that_was_kept_is_the_same_and_a_damaged_one_is_none(tmp_path: Path, judges: Judges) -> None:
    store = ResultStore(tmp_path)
    made = measure(Case("a tree", orbit(4)), 3, torch.rand(4, 3, 16, 16), BLUE, judges)
    path = store.path(["x"], "a tree", 3)
    assert store.find(path) is None
    store.keep(path, made)
    found = store.find(path)
    assert found is not None
    assert (found.prompt, found.seed, found.figures) == (made.prompt, made.seed, made.figures)
    for name in ("views", "vectors", "text", "features", "probabilities"):
        assert torch.equal(getattr(found, name), getattr(made, name))
    assert store.path(["y"], "a tree", 3) != path
    whole = path.read_bytes()
    for damaged in (
        whole[:-5],
        b"",
        b"x" * 100,
        whole.replace(b'"seed', b'"sead'),
        whole.replace(b'\\"seed', b'\\"sead'),
    ):
        path.write_bytes(damaged)
        assert damaged == whole or store.find(path) is None
    path.unlink()
    save_file({"views": torch.zeros(4, 3, 2, 2)}, path, {"result": '{"prompt": "a", "seed": 0, "figures": {}}'})
    assert store.find(path) is None


def drawing(prior: DiffusionPrior, judges: Judges) -> Evaluation:
    return Evaluation("quick", [PriorSubject("tiny", prior, 2)], cases_of_prompts(PROMPTS), [0, 1], judges)


def killed_in_the_third_answer(evaluation: Evaluation, folder: Path) -> None:
    """In a process of its own: SIGKILL, in the middle of drawing."""
    calls = 0
    views = PriorSubject.views

    def draw_or_die(self: PriorSubject, case: Case, seed: int) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return views(self, case, seed)

    PriorSubject.views = draw_or_die  # type: ignore[method-assign]
    run_evaluation(evaluation, folder)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_and_started_again_it_computes_nothing_twice(
    tmp_path: Path, prior: DiffusionPrior, judges: Judges
) -> None:
    evaluation = drawing(prior, judges)
    process = multiprocessing.get_context("fork").Process(
        target=killed_in_the_third_answer, args=(evaluation, tmp_path / "killed")
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed/results").iterdir()}
    assert len(before) == 2
    (tmp_path / "killed" / ".evaluation-dream3d-abcd1234.json").write_text("half")  # as a kill while writing leaves it
    heard: list[str] = []
    _, computed = run_evaluation(evaluation, tmp_path / "killed", lambda name, one: heard.append(one.prompt))
    assert computed == 4
    assert len(heard) == 6
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed/results").iterdir()}
    assert {name: after[name] for name in before} == before
    _, computed = run_evaluation(evaluation, tmp_path / "whole")
    assert computed == 6
    for name in ("evaluation.json", "evaluation.html"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [
        "evaluation.html",
        "evaluation.json",
        "results",
    ]
    assert run_evaluation(evaluation, tmp_path / "killed")[1] == 0


def test_another_seed_prior_or_judge_is_another_result(tmp_path: Path, prior: DiffusionPrior, judges: Judges) -> None:
    store, cases = ResultStore(tmp_path), cases_of_prompts(PROMPTS[:1])
    subject = PriorSubject("tiny", prior, 2)
    evaluate(subject, cases, [0], judges, store)
    evaluate(PriorSubject("renamed", prior, 2), cases, [0], judges, store)
    assert store.computed == 1
    evaluate(PriorSubject("tiny", prior, 3), cases, [0], judges, store)
    evaluate(subject, cases, [0], Judges(judges.encoder), store)
    assert store.computed == 3


def test_a_model_that_cannot_be_read_is_told_and_not_tried_again(tmp_path: Path, judges: Judges) -> None:
    models(tmp_path / "boxes", good=colored_box(RED, RED, GREEN, RED))
    (tmp_path / "boxes" / "a-<bad>.glb").write_bytes(b"not a GLB, but long enough for its header")
    subject = assets_subject("boxes", [tmp_path / "boxes"], BLUE)
    evaluation = Evaluation("own", [subject], cases_of_prompts(subject.prompts), [0], judges)
    (summary,), computed = run_evaluation(evaluation, tmp_path / "out")
    assert (summary.prompts, computed) == (1, 2)
    failures = [one.failure for one in summary.results if one.failure]
    assert "glTF" in failures[0]
    page = (tmp_path / "out/evaluation.html").read_text("utf-8")
    assert "a &lt;bad&gt;" in page
    assert run_evaluation(evaluation, tmp_path / "out")[1] == 0


def test_pictures_of_the_first_prompts_alone_are_kept_in_memory(
    tmp_path: Path, judges: Judges, prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dream3d.evaluation.suite.measure.MAX_PICTURED", 1)
    monkeypatch.setattr("dream3d.evaluation.suite.page.MAX_PICTURED", 1)
    (summary,), _ = run_evaluation(drawing(prior, judges), tmp_path)
    assert [len(one.views) for one in summary.results] == [4, 4, 0, 0, 0, 0]
    assert summary.prompts == 3
    page = (tmp_path / "evaluation.html").read_text("utf-8")
    assert page.count("data:image/png") == 1
    assert "The first 1 of 3 prompts." in page


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="choose another --out-dir"):
        claim_folder(tmp_path)
    (tmp_path / "evaluation.json").write_text('{"format": "another"}')
    with pytest.raises(UsageError, match="choose another --out-dir"):
        claim_folder(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "mine.txt"]
