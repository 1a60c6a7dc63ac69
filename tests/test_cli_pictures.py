"""``--retrieve`` and ``--images``: how they are read, what they find, and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import FakeEngine
from PIL import Image
from tiny_adapter import write_tiny_adapter
from tiny_prior import write_tiny_prior
from typer.testing import CliRunner, Result

from dream3d.cli.app import app
from dream3d.cli.open_ended import spelled_out
from dream3d.run.folder import read_run

KNOWN = "a red fox"
"""The built-in corpus has pictures of it."""
UNKNOWN = "a carburettor gasket"


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_adapter(write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 12), (200, 0, 0)).save("red.png")
    Image.new("RGB", (12, 20), (0, 0, 200)).save("blue.jpg")
    Path("text.jpg").write_text("no picture\n" * 9)
    return tmp_path


def views(prior: Path, *args: str) -> Result:
    command = [
        "views",
        KNOWN,
        "--prior",
        str(prior),
        "--device",
        "cpu",
        "--steps",
        "2",
        "--views",
        "2",
        "--out",
        "v.png",
    ]
    return CliRunner().invoke(app, [*command, *args])


@pytest.mark.parametrize(
    ("args", "read"),
    [
        (["p", "--images", "a.jpg", "b.PNG"], ["p", "--images", "a.jpg", "--images", "b.PNG"]),
        (["--images", "a.jpg", "an axolotl"], ["--images", "a.jpg", "an axolotl"]),
        (["--images", "odd", "b.jpg", "--seed", "1"], ["--images", "odd", "--images", "b.jpg", "--seed", "1"]),
        (["p", "--images"], ["p", "--images"]),
        (["p", "--retrieve"], ["p", "--retrieve", ""]),
        (["--retrieve", "an axolotl"], ["--retrieve", "", "an axolotl"]),
        (["p", "--retrieve", "corpus/", "--seed", "1"], ["p", "--retrieve", "corpus/", "--seed", "1"]),
        (["p", "--retrieve", "s3://bucket/corpus"], ["p", "--retrieve", "s3://bucket/corpus"]),
        (["p", "--retrieve", "--images", "a.jpg"], ["p", "--retrieve", "", "--images", "a.jpg"]),
        (["--", "--retrieve"], ["--", "--retrieve"]),
    ],
)
def test_open_ended_options_are_spelled_out(args: list[str], read: list[str]) -> None:
    assert spelled_out(args) == read


def test_an_existing_folder_is_a_corpus(here: Path) -> None:
    (here / "mine").mkdir()
    assert spelled_out(["--retrieve", "mine"]) == ["--retrieve", "mine"]
    assert spelled_out(["--retrieve", "yours"]) == ["--retrieve", "", "yours"]


def test_views_by_given_pictures(prior: Path, here: Path) -> None:
    text = views(prior)
    before = (here / "v.png").read_bytes()
    result = views(prior, "--images", "red.png", "blue.jpg", "text.jpg", "--seeds", "0,4")
    assert (text.exit_code, result.exit_code) == (0, 0), result.stderr
    assert "warning: not used: the picture text.jpg: cannot be read" in result.stderr
    assert result.stdout.count("(measured): the text counts") == 2
    assert (here / "v.png").read_bytes() != before
    with Image.open("v.png") as image:
        made_by = json.loads(image.info["dream3d"])["images"]
    assert [one["source"] for one in made_by["pictures"]] == ["given: red.png", "given: blue.jpg"]
    assert sorted(made_by["fusion"]) == ["0", "4"]


def test_the_same_seed_and_pictures_give_the_same_views(prior: Path, here: Path) -> None:
    views(prior, "--images", "red.png")
    before = (here / "v.png").read_bytes()
    views(prior, "--images", "red.png")
    assert (here / "v.png").read_bytes() == before
    views(prior, "--images", "red.png", "--fusion", "0.9")
    assert (here / "v.png").read_bytes() != before


def test_views_by_retrieved_pictures(prior: Path, here: Path) -> None:
    result = views(prior, "--retrieve", "--retrieve-count", "2", "--fusion", "0.25")
    assert result.exit_code == 0, result.stderr
    assert f"the built-in corpus: 2 pictures of '{KNOWN}' (best similarity" in result.stderr
    assert "seed 0: alpha 0.250 (given): the text counts 0.25, the pictures 1.25" in result.stdout
    with Image.open("v.png") as image:
        made_by = json.loads(image.info["dream3d"])["images"]
    assert all(one["author"] and one["licence"] and one["source"] for one in made_by["pictures"])


def test_nothing_that_passes_means_the_text_alone(
    prior: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real loader
    fake = FakeEngine()
    monkeypatch.setattr("dream3d.generate.generate", fake.generate)
    monkeypatch.chdir(prior.parent)
    args = ["generate", UNKNOWN, "--retrieve", "--prior", str(prior), "--device", "cpu"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.stderr
    assert f"nothing passes for '{UNKNOWN}'" in result.stderr
    assert "below the threshold of 0.75" in result.stderr
    assert "prior 'tiny' draws by the text alone" in result.stderr
    (call,) = fake.calls
    assert call["guides"] is None
    assert call["request"]["retrieved"]["pictures"] == 0
    assert call["request"]["retrieved"]["best_similarity"] < call["request"]["retrieved"]["threshold"] == 0.75


def test_generate_by_pictures(prior: Path, here: Path) -> None:
    args = [
        "generate",
        KNOWN,
        "--images",
        "red.png",
        "text.jpg",
        "--prior",
        str(prior),
        "--device",
        "cpu",
        "--steps",
        "1",
    ]
    args += ["--resolution", "16", "--faces", "100", "--texture", "0", "--run-dir", "run", "--out", "fox.glb"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.stderr
    assert "1 picture, alpha" in result.stdout
    facts = read_run(here / "run")
    assert facts["images"]["fusion"]["measured"] is True
    (line,) = facts["request"]["pictures_not_used"]
    assert line.startswith("the picture text.jpg: cannot be read")
    again = CliRunner().invoke(app, ["resume", "run"])
    assert "is finished" in again.stdout


def test_previewed_seeds_are_drawn_by_the_pictures_too(
    prior: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeEngine()
    monkeypatch.setattr("dream3d.generate.generate", fake.generate)
    args = ["generate", KNOWN, "--prior", str(prior), "--device", "cpu", "--preview-seeds", "2"]
    text = CliRunner().invoke(app, args)
    shown = CliRunner().invoke(app, [*args, "--images", "red.png"])
    lines = [[line for line in one.stdout.splitlines() if line.startswith("seed 0")] for one in (text, shown)]
    assert lines[0] != lines[1]
    assert fake.calls[1]["guides"] is not None


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--images", "none.png"], "the picture none.png is not a file"),
        (["--images", "text.jpg"], "none of the pictures can be used: the picture text.jpg: cannot be read"),
        (["--images", "red.png", "--fusion", "2"], "--fusion is '2', which should be auto or a number from 0 to 1"),
        (["--images", "red.png", "--fusion", "nan"], "--fusion is 'nan'"),
        (["--images", "red.png", "--fusion", "much"], "--fusion is 'much'"),
        (["--fusion", "0.5"], "--fusion and --retrieve-count go with --images or --retrieve"),
        (["--retrieve", "--retrieve-count", "0"], "--retrieve-count is 0"),
        (["--retrieve", "nowhere/"], "nowhere"),
    ],
)
def test_bad_requests_write_nothing(prior: Path, here: Path, args: list[str], says: str) -> None:
    result = views(prior, *args)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (here / "v.png").exists()


def test_a_prior_without_adapter_says_so_for_pictures(here: Path) -> None:
    result = CliRunner().invoke(app, ["views", KNOWN, "--retrieve", "--device", "cpu"])
    assert result.exit_code == 2
    assert "prior 'mini' has no image adapter" in result.stderr
    assert 'task = "retrieval" (docs/mv-rag.md)' in result.stderr
