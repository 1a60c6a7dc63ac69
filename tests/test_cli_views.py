"""``dream3d views`` and ``generate --preview-seeds`` on a tiny prior: files, bytes, lines and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v3 as iio
import imageio_ffmpeg
import pytest
from conftest import FakeEngine
from PIL import Image
from tiny_prior import write_tiny_prior
from typer.testing import CliRunner, Result

from dream3d.checks import check_preview_seeds, parse_seeds
from dream3d.cli.app import app
from dream3d.errors import UsageError


@pytest.fixture
def prior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny prior of two views at 16 pixels, and an empty current folder beside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return write_tiny_prior(tmp_path / "prior")


def invoke(prior: Path | str, *args: str) -> Result:
    return CliRunner().invoke(app, ["views", *args, "--prior", str(prior), "--device", "cpu"])


def test_a_row_for_each_seed_and_a_column_for_each_view(prior: Path) -> None:
    result = invoke(prior, "a red chair", "--seeds", "3..4", "--views", "3", "--steps", "2")
    assert result.exit_code == 0, result.stderr
    assert Path("a-red-chair.png").exists()
    assert iio.imread("a-red-chair.png").shape == (2 * 128 + 2, 3 * 128, 3)
    assert "wrote a-red-chair.png" in result.stdout
    assert "6 views in" in result.stdout


def test_same_seed_same_bytes(prior: Path) -> None:
    for name, seed in (("a.png", "1"), ("b.png", "1"), ("c.png", "2")):
        assert invoke(prior, "a tree", "--out", name, "--seeds", seed, "--steps", "2").exit_code == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert iio.imread("a.png").tolist() != iio.imread("c.png").tolist()


def test_separate_files_and_a_turntable(prior: Path) -> None:
    options = ["--views", "3", "--steps", "2", "--separate", "--turntable", "turn/t.gif", "--seeds", "0,7", "--quiet"]
    result = invoke(prior, "a tree", "--out", "sheets/s.png", *options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "sheets/s.png\n"
    names = sorted(path.name for path in Path("sheets").iterdir())
    assert names == [*(f"s-seed{seed}-view{view}.png" for seed in (0, 7) for view in range(3)), "s.png"]
    assert iio.imread("sheets/s-seed7-view2.png").shape == (16, 16, 3)
    assert iio.imread("turn/t.gif", index=None).shape == (3, 128, 128, 3)


def test_an_mp4_turntable(prior: Path) -> None:
    assert invoke(prior, "a tree", "--steps", "1", "--turntable", "t.mp4").exit_code == 0
    assert imageio_ffmpeg.count_frames_and_secs("t.mp4")[0] == 4


def test_the_sheet_says_where_it_came_from(prior: Path) -> None:
    invoke(prior, "a tree", "--out", "s.png", "--steps", "2", "--elevation", "30", "--guidance-scale", "4")
    with Image.open("s.png") as image:
        made_by = json.loads(image.info["dream3d"])
    assert (made_by["prompt"], made_by["seeds"], made_by["prior"]["name"]) == ("a tree", [0], "tiny")
    assert made_by["sampling"]["guidance_scale"] == 4
    assert made_by["sampling"]["steps"] == 2
    assert made_by["cameras"] == {"views": 4, "elevation": 30.0, "azimuth": 0.0, "span": 360.0}


@pytest.mark.parametrize(
    "change", [["--elevation", "40"], ["--azimuth", "45"], ["--span", "90"], ["--negative", "green"]]
)
def test_every_camera_and_text_option_changes_the_image(prior: Path, change: list[str]) -> None:
    assert invoke(prior, "a red chair", "--out", "a.png", "--steps", "2").exit_code == 0
    assert invoke(prior, "a red chair", "--out", "b.png", "--steps", "2", *change).exit_code == 0
    assert iio.imread("a.png").tolist() != iio.imread("b.png").tolist()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["  "], "the prompt is empty"),
        (["x", "--views", "0"], "--views is 0,"),
        (["x", "--views", "65"], "--views is 65,"),
        (["x", "--elevation", "91"], "--elevation is 91.0,"),
        (["x", "--span", "nan"], "--span is nan,"),
        (["x", "--seeds", "5..1"], "'5..1' is not a list of seeds"),
        (["x", "--seeds", "0..99999999999"], "more than 64 seeds"),
        (["x", "--steps", "0"], "--steps is 0,"),
        (["x", "--sampler", "euler"], "--sampler is 'euler', which should be"),
        (["x", "--guidance-scale", "inf"], "--guidance-scale is inf,"),
        (["x", "--out", "x.jpg"], "the file extension must be .png"),
        (["x", "--turntable", "x.avi"], "--turntable x.avi: the file extension must be .gif or .mp4"),
        (["x", "--out", "."], "the file extension must be .png"),
    ],
)
def test_bad_requests_write_nothing(prior: Path, args: list[str], says: str) -> None:
    result = invoke(prior, *args)
    assert result.exit_code == 2, result.stdout
    assert len(result.stderr.splitlines()) == 1
    assert says in result.stderr
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("7", [7]),
        ("0..3", [0, 1, 2, 3]),
        ("0-3", [0, 1, 2, 3]),
        ("7,0-1,3..4", [7, 0, 1, 3, 4]),
        ("4, 1,9", [4, 1, 9]),
        ("2..3,3..4", [2, 3, 4]),
        ("9223372036854775807", [2**63 - 1]),
    ],
)
def test_seeds_are_read(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


NO_SEEDS = ["", "-1", "1..", "1-", "1--3", "1.-3", "3-1", "a", "1;2", "0x5", "1,,2", "9223372036854775808", "٣"]


@pytest.mark.parametrize("text", NO_SEEDS)
def test_what_is_no_seed_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_seeds(text)


@pytest.mark.parametrize(("count", "first"), [(1, 0), (65, 0), (-2, 0), (2, 2**63 - 1)])
def test_preview_counts_that_make_no_sense(count: int, first: int) -> None:
    with pytest.raises(UsageError):
        check_preview_seeds(count, first)


def test_a_run_continues_with_the_best_of_the_previewed_seeds(prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, object]] = []
    engine = FakeEngine()

    def generate(prompt: str, **request: object) -> object:
        calls.append(request)
        return engine.generate(prompt, **request)

    monkeypatch.setattr("dream3d.generate.generate", generate)
    args = ["generate", "a tree", "--prior", str(prior), "--device", "cpu", "--preview-seeds", "3", "--seed", "5"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("seed ")]
    assert [line.split(":")[0] for line in lines] == ["seed 5", "seed 6", "seed 7"]
    (call,) = calls
    assert f"continuing with seed {call['seed']}" in result.stdout
    assert call["run_dir"] == Path(f"runs/a-tree-{call['seed']}")
    with Image.open(f"runs/a-tree-{call['seed']}/seeds.png") as image:
        assert json.loads(image.info["dream3d"])["seeds"][0] == call["seed"]
        assert image.size == (2 * 128, 3 * 128 + 4)
