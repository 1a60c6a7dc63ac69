"""Batches whose lines ask for pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_adapter import write_tiny_adapter
from tiny_prior import write_tiny_prior
from typer.testing import CliRunner

from dream3d.batch.jobs import BatchJob, plan
from dream3d.batch.places import LocalPlace
from dream3d.batch.prompts import Entry
from dream3d.batch.work import Shared, do_job
from dream3d.cli.app import app
from dream3d.errors import UsageError
from dream3d.retrieval.gathering import PictureOptions, parse_options


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 12), (200, 0, 0)).save("red.png")
    Image.new("RGB", (20, 12), (0, 0, 200)).save("blue.png")
    return tmp_path


def job(adapter: str = "", shared: dict[str, str] | None = None, **settings: str) -> BatchJob:
    return plan([Entry("a red chair", settings, "list:3")], [0], shared or {}, "mini", adapter)[0][0]


def test_settings_of_pictures_are_read() -> None:
    asked = parse_options({"images": "a.jpg, b.jpg", "retrieve": "yes", "retrieve_count": "2", "fusion": "0.5"})
    assert asked == PictureOptions("", (Path("a.jpg"), Path("b.jpg")), 2, "0.5")
    assert asked.alpha == 0.5
    assert not parse_options({"retrieve": "no"}).asked
    assert parse_options({"retrieve": "s3://bucket/corpus"}).retrieve == "s3://bucket/corpus"


def test_a_job_keeps_its_pictures_apart_from_the_recipe(here: Path) -> None:
    found = job(images="red.png,blue.png", steps="4", fusion="0.25")
    assert found.changes == {"steps": "4"}
    assert found.pictures == PictureOptions(None, (here / "red.png", here / "blue.png"), 4, "0.25")
    assert found.settings == {"steps": "4", "images": "red.png,blue.png", "fusion": "0.25"}
    assert job(retrieve="mine").pictures.retrieve == str(here / "mine")


def test_a_line_can_turn_off_what_all_have() -> None:
    assert job(shared={"retrieve": "yes"}).pictures.asked
    assert not job(shared={"retrieve": "yes"}, retrieve="no").pictures.asked


def test_names_follow_the_pictures_and_the_adapter(here: Path) -> None:
    before = job("adapter", images="red.png").key
    assert before == job("adapter", images="red.png").key
    assert before != job("other", images="red.png").key
    Image.new("RGB", (20, 12), (0, 200, 0)).save("red.png")
    assert before != job("adapter", images="red.png").key
    assert job("adapter").key == job("other").key  # which text alone does not ask


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": "none.png"}, "list:3: the picture .*none.png: No such file"),
        ({"fusion": "0.5"}, "list:3: --fusion and --retrieve-count go with"),
        ({"retrieve": "yes", "fusion": "often"}, "list:3: --fusion is 'often'"),
        ({"retrieve": "yes", "retrieve_count": "some"}, "list:3: retrieve_count is 'some'"),
        ({"retrieve": "yes", "retrieve_count": "99"}, "list:3: --retrieve-count is 99"),
    ],
)
def test_wrong_settings_name_their_line(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan([Entry("a red chair", settings, "list:3")], [0], {}, "mini")


def test_a_worker_gathers_the_pictures_of_its_job(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = write_tiny_adapter(write_tiny_prior(here / "tiny"))
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("dream3d.generate.generate", lambda prompt, **request: calls.append(request))
    asked = plan(
        [Entry("a red fox", {"retrieve": "yes", "images": "red.png", "retrieve_count": "1"}, "1")], [0], {}, ""
    )
    result = do_job(asked[0][0], Shared(LocalPlace(here / "out"), str(prior), "cpu", 1))
    assert result.reason == ""
    (call,) = calls
    sources = [one.attribution["source"] for one in call["guides"].references]
    assert sources[0] == "given: red.png"
    assert len(sources) == 2
    assert call["request"]["retrieved"]["pictures"] == 1


def test_a_prior_without_adapter_is_one_error_for_the_whole_batch(here: Path) -> None:
    prior = write_tiny_prior(here / "tiny")
    (here / "list.txt").write_text("a red chair | images=red.png\n")
    result = CliRunner().invoke(app, ["batch", "list.txt", "--out-dir", "out", "--prior", str(prior)])
    assert result.exit_code == 2
    assert "prior 'tiny' has no image adapter" in result.stderr
    assert not (here / "out").exists()
