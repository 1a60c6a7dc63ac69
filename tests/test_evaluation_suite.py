"""``dream3d evaluate``: cases, subjects, results that are never computed twice, figures, the record and the page."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colored_shapes import write_shapes
from mesh_assets import axis_object
from PIL import Image
from safetensors.torch import save_file
from tiny_judge import tiny_judges, write_tiny_judge
from torch import Tensor
from typer.testing import CliRunner

from dream3d.cameras import orbit
from dream3d.cli.app import app
from dream3d.errors import DatasetError, UsageError
from dream3d.evaluation.encoders import EfficientNetLite2, is_installed
from dream3d.evaluation.protocols.priors import read_split
from dream3d.evaluation.suite.cases import (
    PROTOCOLS,
    Case,
    cases_of_objects,
    cases_of_prompts,
    packaged_prompts,
)
from dream3d.evaluation.suite.measure import Judges, evaluate, measure
from dream3d.evaluation.suite.report import Evaluation, run_evaluation
from dream3d.evaluation.suite.sheets import read_sheet
from dream3d.evaluation.suite.store import Result, ResultStore, claim_folder
from dream3d.evaluation.suite.subjects import PriorSubject, TruthSubject, assets_subject
from dream3d.evaluation.suite.summary import summarise, with_differences
from dream3d.mesh.appearance import VertexColors
from dream3d.mesh.export import Asset, export
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


def colored_box(*sides: tuple[float, float, float]) -> Asset:
    """A cube whose front, left, back and right have these colours; top and bottom are grey."""
    vertices, faces, colors = [], [], []
    for number, color in enumerate([*sides, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)]):
        axis, sign = ((0, 1), (1, 1), (0, -1), (1, -1), (2, 1), (2, -1))[number]
        corners = np.zeros((4, 3))
        others = [index for index in range(3) if index != axis]
        corners[:, others[0]], corners[:, others[1]] = [-1, 1, 1, -1], [-1, -1, 1, 1]
        corners[:, axis] = sign
        vertices.append(corners)
        is_outward = (sign > 0) != (axis == 1)  # x to z turns the other way round y than x to y does round z
        faces.append(np.array([[0, 1, 2], [0, 2, 3]])[:, :: 1 if is_outward else -1] + 4 * number)
        colors.append(np.tile(np.array(color, np.float32), (4, 1)))
    appearance = VertexColors(np.concatenate(colors))
    return Asset(np.concatenate(vertices).astype(np.float32), np.concatenate(faces), appearance, {})


RED, GREEN, WHITE, YELLOW = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0, 1.0), (1.0, 1.0, 0.0)


def models(folder: Path, **named: Asset) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, asset in named.items():
        export(asset, folder / f"{name.replace('_', '-')}.glb")
    return folder


# --- cases ------------------------------------------------------------------------------------------------------


def test_every_protocol_has_prompts_and_a_limit() -> None:
    for protocol in PROTOCOLS.values():
        assert protocol.limit > 0
        if protocol.prompts:
            prompts = packaged_prompts(protocol.prompts)
            assert len(prompts) == len(set(prompts)) >= 20
            assert not any(prompt.startswith("#") for prompt in prompts)


def test_quick_is_the_gallery() -> None:
    lines = (Path(__file__).parent.parent / "prompts/gallery.txt").read_text("utf-8").splitlines()
    assert packaged_prompts("quick") == [line for line in lines if line and not line.startswith("#")]


def test_a_case_of_an_object_has_its_longest_caption_its_cameras_and_its_views(tmp_path: Path) -> None:
    objects = read_split([write_shapes(tmp_path, [("red", "table")], copies=1)], ["heldout"])
    (case,) = cases_of_objects(objects, is_exact=True)
    assert case.prompt == "a red table"
    azimuths = [np.degrees(np.arctan2(float(c2w[1, 3]), float(c2w[0, 3]))) % 360 for c2w in case.cameras.c2w]
    assert azimuths == pytest.approx([0, 90, 180, 270], abs=1e-3)
    truth = case.truth_over(BLUE)
    assert truth is not None
    assert truth.shape == (4, 3, 16, 16)
    assert truth[0, :, 0, 0].tolist() == pytest.approx(BLUE)
    assert truth[0, :, 8, 8].tolist() == pytest.approx([220 / 255, 30 / 255, 30 / 255])
    (other,) = cases_of_objects(objects, is_exact=False)
    assert other.digest != case.digest  # what a result holds depends on it


def test_a_prompt_that_comes_twice_is_one_case() -> None:
    assert [case.prompt for case in cases_of_prompts(["a", "b", "a"])] == ["a", "b"]


# --- subjects ---------------------------------------------------------------------------------------------------


def test_assets_are_found_by_the_words_of_their_prompts(tmp_path: Path) -> None:
    models(tmp_path, a_red_chair=axis_object(), b=colored_box(RED, RED, RED, RED))
    (tmp_path / "notes.txt").write_text("not a model")
    subject = assets_subject("ours", [tmp_path], BLUE)
    assert subject.prompts == ("axes", "b")  # what the file says comes before its name
    assert subject.key(Case("Axes", orbit(4)), 0) is not None
    assert subject.key(Case("axes", orbit(4)), 1) is None  # there is one model
    assert subject.key(Case("a chair", orbit(4)), 0) is None
    views = subject.views(Case("axes", orbit(4)), 0)
    assert views.shape == (4, 3, 256, 256)
    assert views[0, :, 0, 0].tolist() == pytest.approx(BLUE, abs=0.003)
    with pytest.raises(UsageError, match="no model"):
        assets_subject("none", [tmp_path / "notes.txt"], BLUE)


def test_models_in_folders_of_their_own_are_called_after_them(tmp_path: Path) -> None:
    for name in ("a-red-box", "a-green-box"):
        models(tmp_path / name, mesh=colored_box(RED, RED, RED, RED))
    assert assets_subject("runs", [tmp_path], BLUE).prompts == ("a green box", "a red box")


def test_views_of_other_systems_may_be_pictures(tmp_path: Path) -> None:
    sheet = np.zeros((12, 48, 4), np.uint8)
    for number in range(4):
        sheet[2:10, 12 * number + 2 : 12 * number + 10] = (60 * number, 0, 255, 255)
    Image.fromarray(sheet).save(tmp_path / "a-red-chair.png")
    Image.fromarray(sheet[:, :40]).save(tmp_path / "a-tree.png")
    subject = assets_subject("views", [tmp_path], BLUE)
    assert subject.prompts == ("a red chair", "a tree")
    views = subject.views(Case("a red chair", orbit(4)), 0)
    assert views.shape == (4, 3, 12, 12)
    assert views[:, 0, 6, 6].tolist() == pytest.approx([0, 60 / 255, 120 / 255, 180 / 255])
    assert views[3, :, 0, 0].tolist() == pytest.approx(BLUE, abs=0.003)
    assert read_sheet(tmp_path / "a-red-chair.png", 8, BLUE).shape == (4, 3, 8, 8)
    with pytest.raises(DatasetError, match="40 x 12 pixels are not 4 square views"):
        subject.views(Case("a tree", orbit(4)), 0)
    models(tmp_path, b=colored_box(RED, RED, RED, RED))
    assert assets_subject("models", [tmp_path], BLUE).prompts == ("b",)  # pictures beside models are previews


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


# --- the command ------------------------------------------------------------------------------------------------


def command(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["evaluate", *map(str, words)], prog_name="dream3d")
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def no_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream3d.evaluation.encoders.is_installed", lambda: False)


@pytest.mark.usefixtures("no_classifier")
def test_a_prior_and_assets_are_columns_of_one_table(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models(tmp_path / "ours", a_red_chair=colored_box(RED, RED, GREEN, RED), a_tree=colored_box(*[GREEN] * 4))
    output = command(folder, "ours", "--protocol", "quick", "--limit", 2, "--steps", 2)
    assert "tiny" in output
    record = json.loads((tmp_path / "evaluation/evaluation.json").read_text("utf-8"))
    assert record["prompts"] == packaged_prompts("quick")[:2]
    assert record["subjects"]["ours"]["prompts"] == 0  # it has no model of these
    output = command(folder, "ours", "--prompts", "list.txt", "--steps", 2, code=2)
    (tmp_path / "list.txt").write_text("a red chair\na tree\n")
    output = command("ours", folder, "--prompts", "list.txt", "--steps", 2)
    assert "computed    4 answers" in output
    assert "inception" in output  # the note that there is no classifier
    record = json.loads((tmp_path / "evaluation/evaluation.json").read_text("utf-8"))
    assert list(record["subjects"]) == ["ours", "tiny"]
    assert record["subjects"]["tiny"]["differences_to_the_first"].keys() >= {"text_image", "janus", "r_at_1"}
    assert record["comparable_with_published_numbers"] is False
    page = (tmp_path / "evaluation/evaluation.html").read_text("utf-8")
    assert page.count("data:image/png") == 4
    assert "http:" not in page
    assert "https:" not in page
    assert command("ours", folder, "--prompts", "list.txt", "--steps", 2, "--quiet") == "evaluation/evaluation.json\n"


@pytest.mark.usefixtures("no_classifier")
def test_the_protocols_with_held_out_objects_add_their_renders(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_shapes(tmp_path / "data", [("red", "table"), ("green", "chair")], copies=1)
    command(folder, "--protocol", "ind", "--reference", "data", "--limit", 2, "--steps", 2, "--out-dir", "ind")
    subjects = json.loads((tmp_path / "ind/evaluation.json").read_text("utf-8"))["subjects"]
    assert list(subjects) == ["tiny", "held-out renders"]
    assert {"psnr", "ssim", "fid"} <= subjects["tiny"]["figures"].keys()
    command(folder, "--protocol", "mvdream", "--reference", "data", "--limit", 2, "--steps", 2, "--out-dir", "table1")
    subjects = json.loads((tmp_path / "table1/evaluation.json").read_text("utf-8"))["subjects"]
    assert "psnr" not in subjects["tiny"]["figures"]  # a caption has more than one right answer
    assert "fid" in subjects["tiny"]["figures"]


@pytest.mark.usefixtures("no_classifier")
def test_pictures_of_the_corpus_are_what_new_things_are_compared_with(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("a bicycle\nan astrolabe\n")
    command(folder, "--protocol", "ood", "--prompts", "list.txt", "--steps", 2)
    (subject,) = json.loads((tmp_path / "evaluation/evaluation.json").read_text("utf-8"))["subjects"].values()
    have = ["image_image" in answer["figures"] for answer in subject["answers"]]
    assert have == [True, False]  # the built-in corpus has bicycles, and no astrolabe


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("mini", "--protocol", "ind"), "needs --reference"),
        (("mini", "--protocol", "mvdream", "--reference", "x", "--prompts", "y.txt"), "leave --prompts out"),
        (("mini", "--reference", "x"), "goes with --protocol mvdream or ind"),
        (("mini", "--corpus", "x"), "goes with --protocol ood"),
        (("mini", "--limit", 0), "--limit is 1 or more, got 0"),
        (("mini", "--steps", 0), "--steps is 1 to 1000, got 0"),
        (("nowhere",), "unknown prior 'nowhere'"),
        (("mini", "--seeds", "x"), "not a list of seeds"),
    ],
)
def test_wrong_requests_are_one_line(words: tuple[object, ...], says: str, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["evaluate", *map(str, words)], prog_name="dream3d")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert says in line
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not is_installed(), reason="the extra 'evaluate' is not installed")
@pytest.mark.slow
def test_the_classifier_knows_what_it_is_shown() -> None:
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    classifier = EfficientNetLite2()
    features, probabilities = classifier.classify(pictures)
    assert features.shape == (2, 1280)
    assert probabilities.shape == (2, 1000)
    assert probabilities.sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert len(classifier.digest) == 64


@pytest.mark.usefixtures("no_classifier")
def test_without_the_extra_the_classifier_says_how_to_get_it() -> None:
    with pytest.raises(UsageError, match=r"pip install 'dream3d\[evaluate\]'"):
        EfficientNetLite2()
