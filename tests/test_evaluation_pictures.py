"""Columns of an evaluation that draw by pictures: by all of them, by one, and by none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_adapter import write_tiny_adapter
from tiny_prior import write_tiny_prior
from typer.testing import CliRunner

from dream3d.cameras import orbit
from dream3d.cli.app import app
from dream3d.cli.evaluate_inputs import Asked
from dream3d.cli.evaluate_pictures import search_in, shared_out
from dream3d.errors import UsageError
from dream3d.evaluation.suite.cases import Case
from dream3d.evaluation.suite.subjects import PriorSubject
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.sampling import sampling_for
from dream3d.retrieval.by_pictures import ByPictures
from dream3d.retrieval.references import Reference

BICYCLE = "a bicycle"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_adapter(write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny"))


@pytest.fixture(scope="module")
def prior(folder: Path) -> DiffusionPrior:
    return DiffusionPrior(folder)


@pytest.fixture(scope="module")
def references() -> list[Reference]:
    return list(search_in(None, 8)(BICYCLE))


def test_no_picture_both_guides_and_judges(references: list[Reference]) -> None:
    assert len(references) > 2
    drawn, judged = shared_out(references, draws=True)
    assert {one.sha256 for one in drawn}.isdisjoint(one.sha256 for one in judged)
    assert [drawn[0], judged[0]] == references[:2]
    assert len(drawn) + len(judged) == len(references)
    assert shared_out(references, draws=False) == ((), references)


def test_one_picture_counts_as_much_as_the_text(prior: DiffusionPrior, references: list[Reference]) -> None:
    text, recipe = prior.encode_prompt(BICYCLE, ""), sampling_for("mini")
    one = ByPictures({BICYCLE: references}, one=True).tell(prior, BICYCLE, text, 0, orbit(2), recipe)
    assert (one.text_weight, one.image_weight) == (1.0, 1.0)
    assert one.conditional.image_tokens is not None
    assert one.conditional.image_tokens.shape == (1, 3, 12)  # of the tiny resampler, for one picture
    many = ByPictures({BICYCLE: references}, alpha=0.3).tell(prior, BICYCLE, text, 0, orbit(2), recipe)
    assert (many.text_weight, many.image_weight) == pytest.approx((0.3, 1.2))
    assert many.conditional.image_tokens is not None
    assert many.conditional.image_tokens.shape == (1, 3 * len(references), 12)


def test_what_is_told_is_part_of_the_key_and_of_the_drawing(prior: DiffusionPrior, references: list[Reference]) -> None:
    case, pictures = Case(BICYCLE, orbit(4)), {BICYCLE: references}
    told = (None, ByPictures(pictures, one=True), ByPictures(pictures, alpha=0.3), ByPictures(pictures, alpha=0.4))
    subjects = [PriorSubject(str(number), prior, 2, one) for number, one in enumerate(told)]
    assert len({subject.key(case, 0) for subject in subjects}) == 4
    assert subjects[1].key(Case("a tree", orbit(4)), 0) is None  # no picture, no answer
    views = [subject.views(case, 0) for subject in subjects[:3]]
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[1], views[2])


def test_the_command_makes_a_column_of_each_way(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dream3d.evaluation.encoders.is_installed", lambda: False)
    (tmp_path / "list.txt").write_text(f"{BICYCLE}\nan astrolabe\n")
    words = ["evaluate", str(folder), "--protocol", "ood", "--prompts", "list.txt", "--steps", "1", "--quiet"]
    done = CliRunner().invoke(app, [*words, "--draw-by", "text,pictures,one-picture"])
    assert done.exit_code == 0, done.output
    subjects = json.loads((tmp_path / "evaluation/evaluation.json").read_text("utf-8"))["subjects"]
    assert list(subjects) == ["tiny", "tiny, by pictures", "tiny, by one picture"]
    # The built-in corpus has no astrolabe: there is nothing to draw by.
    assert [one["prompts"] for one in subjects.values()] == [2, 1, 1]
    assert all("image_image" in one["figures"] for one in subjects.values())
    done = CliRunner().invoke(app, ["evaluate", "mini", "--protocol", "ood", "--draw-by", "pictures"])
    assert done.exit_code != 0
    assert "image adapter" in done.output


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protocol": "quick", "draw_by": ("pictures",)}, "--draw-by goes with --protocol ood"),
        ({"draw_by": ("text", "pictures", "text")}, "--draw-by is text,pictures,text; it is some of text"),
        ({"draw_by": ("photos",)}, "--draw-by is photos; it is some of text,pictures,one-picture, each once"),
        ({"draw_by": ("one-picture",), "fusion": "0.5"}, "--fusion goes with --draw-by pictures"),
        ({"draw_by": ("pictures",), "fusion": "much"}, "--fusion is 'much', which should be auto or a number"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Asked(
            **{
                "subjects": ("mini",),
                "protocol": "ood",
                "prompts": None,
                "limit": None,
                "reference": None,
                "corpus": None,
                "seeds": (0,),
                "steps": None,
                **changes,
            }  # type: ignore[arg-type]
        )
