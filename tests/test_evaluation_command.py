"""``dream3d evaluate`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from colored_shapes import write_shapes
from evaluation_models import GREEN, RED, colored_box, models
from tiny_judge import write_tiny_judge
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.errors import UsageError
from dream3d.evaluation.encoders import EfficientNetLite2, is_installed
from dream3d.evaluation.suite.cases import (
    packaged_prompts,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_judge(tmp_path_factory.mktemp("judge") / "tiny")


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
