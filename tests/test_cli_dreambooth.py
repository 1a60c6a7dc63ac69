"""``dream3d dreambooth`` from photos to a mesh, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_photos import write_personal_prior, write_photos
from typer.testing import CliRunner, Result

import dream3d.personalise.samples as samples
from dream3d.cli import dreambooth as command
from dream3d.cli import generate as generate_command
from dream3d.cli.app import app
from dream3d.images import write_png
from dream3d.personalise.check import Drawn, difference, judge, measure
from dream3d.personalise.recipe import method_for
from dream3d.personalise.words import Subject
from dream3d.prior.sampling import SamplingRecipe
from dream3d.training import optimizers
from dream3d.training.loop import Trainer
from dream3d.weights.loading import load_prior

FAST = ("--set", "keep_sets=1", "--set", "sample_every=0", "--set", "batch=2", "--steps", "2", "--device", "cpu")
SUBJECT = Subject("sks", "dog")


@pytest.fixture(autouse=True)
def short_sampling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(samples, "sampling_for", lambda preset: SamplingRecipe(steps=2))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a prior and photos."""
    place = tmp_path_factory.mktemp("place")
    write_personal_prior(place / "prior")
    write_photos(place / "dog-photos", 3)
    return place


def run(place: Path, *words: str, token: str = "sks", photos: str = "dog-photos") -> Result:
    command = ["dreambooth", str(place / photos), "--token", token, "--prior", str(place / "prior"), *FAST, *words]
    return CliRunner().invoke(app, command)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_photos_become_a_prior(place: Path, method: str, tmp_path: Path) -> None:
    result = run(place, "--method", method)
    assert result.exit_code == 0, result.output
    assert "class: dog, by the folder's name" in result.output
    assert "wrote sks-dog" in result.output
    kept = tmp_path / "sks-dog/dreambooth"
    assert {"seen.png", "class-views.png", "check.png", "check.json", "metrics.csv"} <= {p.name for p in kept.iterdir()}
    figures = json.loads((kept / "check.json").read_text())["figures"]
    assert {"agreement_thing_new", "identity_thing_new", "change_class"} <= figures.keys()
    assert load_prior("sks-dog").settings.base == str(place / "prior")


@pytest.mark.slow
def test_a_personalised_prior_makes_meshes(place: Path, tmp_path: Path) -> None:
    assert run(place, "--method", "lora").exit_code == 0
    words = ["--out", "dog.glb", "--steps", "2", "--resolution", "12", "--texture", "0", "--device", "cpu"]
    made = CliRunner().invoke(app, ["generate", "a sks dog", "--prior", "sks-dog", *words])
    assert made.exit_code == 0, made.output
    assert "never seen" not in made.output
    assert json.loads((tmp_path / "runs/a-sks-dog-0/run.json").read_text())["prior"]["name"] == "sks-dog"


def test_make_goes_on_to_the_mesh(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(generate_command, "generate", lambda prompt, **rest: asked.append((prompt, rest)))
    result = run(place, "--out", "mine", "--class", "a chair", "--make", "a sks chair on a skateboard", "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["mine"]
    assert asked == [("a sks chair on a skateboard", {"prior": "mine", "device": "cpu", "vram": None, "quiet": True})]


def test_a_stopped_run_goes_on_with_resume_and_only_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    train_step = Trainer.train_step

    def stop_after_one(self: Any) -> Any:
        if self.step == 1:
            raise KeyboardInterrupt
        steps.append(self.step)
        return train_step(self)

    with monkeypatch.context() as during:
        during.setattr(Trainer, "train_step", stop_after_one)
        assert run(place, "--set", "checkpoint_every=1").exit_code == 130
    again = run(place)
    assert again.exit_code == 2
    assert "holds a run that was stopped; add --resume to go on" in again.output
    resumed = run(place, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "resuming after step 1" in resumed.output
    finished = run(place)
    assert finished.exit_code == 2
    assert "holds a finished prior; give another --out" in finished.output
    Path("sks-dog/dreambooth/check.json").unlink()
    assert run(place, "--resume").exit_code == 0
    assert Path("sks-dog/dreambooth/check.json").is_file()


def test_a_small_card_gets_an_adapter(place: Path) -> None:
    result = run(place, "--vram", "0.0001")
    assert result.exit_code == 0, result.output
    assert "all weights would need more than 0.0001 GB, so an adapter is trained" in result.output
    assert Path("sks-dog/adapter_config.json").is_file()


FULL_SIZE = 867_572_164
"""Weights. 20 bytes of each are 17.4 GB, 14 bytes 12.1 GB, and there are 6 GB beside them."""


@pytest.mark.parametrize(
    ("vram", "weights", "given", "chosen"),
    [
        (None, FULL_SIZE, {}, ("full", 32)),
        (24, FULL_SIZE, {}, ("full", 32)),
        (20, FULL_SIZE, {}, ("full", 8)),
        (20, FULL_SIZE, {"eight": False}, ("lora", 32)),
        (16, FULL_SIZE, {}, ("lora", 32)),
        (16, FULL_SIZE, {"method": "full"}, ("full", 8)),
        (16, FULL_SIZE, {"method": "full", "bits": 32}, ("full", 32)),
        (20, FULL_SIZE, {"bits": 32}, ("lora", 32)),
        (None, FULL_SIZE, {"bits": 8}, ("full", 8)),
        (8, FULL_SIZE, {"method": "lora", "bits": 8}, ("lora", 8)),
        (2, 28_000_000, {}, ("full", 32)),
    ],
)
def test_what_fits_a_card(vram: float | None, weights: int, given: dict[str, Any], chosen: tuple[str, int]) -> None:
    assert method_for(vram, weights, **given) == chosen


def test_a_card_for_8_bits_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(command, "say", lambda text, **rest: told.append(str(text)))
    monkeypatch.setattr(optimizers, "has_8_bits", lambda: True)
    monkeypatch.setattr("dream3d.personalise.recipe.ROOM_GB", 0.0)
    assert command._fitting(place / "prior", None, None, 1e-6) == ("lora", 32)
    weights = sum(value.numel() for value in load_prior(str(place / "prior")).unet.parameters())
    assert command._fitting(place / "prior", None, None, weights * 17 / 1e9) == ("full", 8)
    assert "the optimiser keeps 8 bits" in told[-1]


def test_8_bits_need_a_package(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "has_8_bits", lambda: False)
    result = run(place, "--optimizer-bits", "8")
    assert result.exit_code == 2
    assert "needs bitsandbytes; pip install 'dream3d[dreambooth]'" in result.output


def test_matting_cuts_out_of_busy_backgrounds(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alpha = np.zeros((32, 32), np.float32)
    alpha[8:24, 8:24] = 1
    monkeypatch.setattr("dream3d.personalise.matting.SegmentAnything", lambda folder, device: lambda rgb: alpha)
    Path("busy").mkdir()
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        write_png(Path(f"busy/{index}.png"), noise)
    base = command._base(str(place / "prior"), "full", None, None, [], steps=1, seed=0)
    for folder, found in ((None, "whole picture"), (Path("sam"), "cut out")):
        cut_out = command._matting(folder, "cpu")
        request = command._request(base, Path("busy"), "sks", "dog", Path("out"), "cpu", cut_out)
        assert {photo.found for photo in request.photos.photos} == {found}
        assert ("(--matting cuts it out)" in capsys.readouterr().err) is (folder is None)


def test_pictures_of_the_class_come_from_a_folder(place: Path) -> None:
    write_photos(Path("others"), 2, side=40)
    Path("others/torn.png").write_bytes(b"no")
    result = run(place, "--class-images", "others")
    assert result.exit_code == 0, result.output
    assert "2 pictures of 'a dog'" in result.output
    assert "others: torn.png is left out" in result.output


def test_the_prior_draws_pictures_of_the_class_if_asked(place: Path) -> None:
    result = run(place, "--set", "class_pictures=3", "--set", "keep_sets=0")
    assert result.exit_code == 0, result.output
    assert "drawing 3 pictures of 'a dog'" in result.output
    assert Path("sks-dog/dreambooth/class.png").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--resume",), "holds no run of dreambooth"),
        (("--out", "full"), "--out full is not empty"),
        (("--out", "file"), "--out file is a file"),
        (("--make", " "), "the prompt is empty"),
        (("--class", "??"), "is no name of a kind of thing"),
        (("--class-images", "none"), "is no folder"),
        (("--set", "rate=-1"), "recipe key 'rate' is -1"),
        (("--set", "speed=1"), "unknown recipe key 'speed'"),
        (("--vram", "0"), "--vram is 0"),
        (("--prior", "nowhere"), "unknown prior 'nowhere'"),
        (("--token", "dog"), "which the prior knows"),
        (("--method", "half"), "half"),
        (("--optimizer-bits", "4"), "--optimizer-bits is 4, which should be 8 or 32"),
        (("--set", "optimizer_bits=4"), "recipe key 'optimizer_bits' is 4, which should be 8 or 32"),
    ],
)
def test_wrong_requests_write_nothing(place: Path, words: tuple[str, ...], told: str) -> None:
    Path("full").mkdir()
    Path("full/letter.txt").write_text("mine")
    Path("file").write_text("mine")
    before = sorted(str(path) for path in Path().rglob("*"))
    result = run(place, *words)
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert sorted(str(path) for path in Path().rglob("*")) == before


def test_kept_pictures_are_drawn_once_and_again_if_they_do_not_fit(tmp_path: Path) -> None:
    drawn: list[int] = []

    def draw() -> torch.Tensor:
        drawn.append(1)
        return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    path = tmp_path / "strip.png"
    first, second = (samples.kept(path, 3, 8, draw) for _ in range(2))
    assert (first == second).all()
    assert len(drawn) == 1
    path.write_bytes(b"torn")
    assert (samples.kept(path, 3, 8, draw) == first).all()
    write_png(path, first[:2].reshape(16, 8, 3))
    assert samples.kept(path, 3, 8, draw).shape == (3, 8, 8, 3)
    assert len(drawn) == 3


# Whether it worked.

GOOD = {
    "agreement_thing_base": 0.86,
    "agreement_class_base": 0.87,
    "agreement_thing_new": 0.84,
    "agreement_class_new": 0.86,
    "sides_differ": 0.75,
    "sides_differ_class": 0.75,
    "change_thing": 0.05,
    "change_class": 0.02,
    "token_matters": 0.05,
    "identity_thing_base": 0.39,
    "identity_thing_new": 0.61,
    "identity_class_base": 0.48,
    "identity_class_new": 0.53,
}


def test_good_figures_are_no_problem() -> None:
    verdict = judge(GOOD, SUBJECT)
    assert verdict.worked
    assert verdict.identity == (0.39, 0.61)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"change_thing": 0.01, "identity_thing_new": 0.4, "identity_class_new": 0.48}, "looks as it did before"),
        ({"token_matters": 0.01}, "look the same: the token was not learnt"),
        (
            {"identity_thing_new": 0.42, "identity_class_new": 0.48},
            "do not resemble the photos more than before (+0.03)",
        ),
        ({"identity_thing_new": 0.2, "identity_class_new": 0.48}, "(-0.19): the training went astray"),
        ({"identity_class_new": 0.65}, "'a dog' has become like the photos too (+0.17, the thing +0.22)"),
        ({"agreement_thing_new": 0.7}, "do not fit one solid thing (0.70, the base's class 0.87)"),
        ({"sides_differ": 0.0}, "looks the same from all sides"),
    ],
)
def test_each_problem_is_said(changes: dict[str, float], told: str) -> None:
    (problem,) = judge({**GOOD, **changes}, SUBJECT).problems
    assert told in problem


def test_without_an_image_encoder_the_rest_is_judged() -> None:
    figures = {name: value for name, value in GOOD.items() if "identity" not in name}
    verdict = judge(figures, SUBJECT)
    assert verdict.worked
    assert verdict.identity is None


def test_differences_are_those_of_coarse_colours() -> None:
    black = torch.zeros(2, 2, 3, 16, 16)
    assert difference(black, black + 0.25) == pytest.approx(0.25)
    stripes = black.clone()
    stripes[..., ::2] = 1  # finer than 8 x 8 pixels can show
    assert difference(stripes, black + 0.5) == pytest.approx(0, abs=1e-6)


def test_figures_of_a_prior_against_itself(place: Path) -> None:
    prior = load_prior(str(place / "prior"))
    views = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    drawn = Drawn(views, views.flip(1))
    figures = measure(prior, views[0], drawn, drawn)
    assert figures["change_thing"] == figures["change_class"] == 0
    assert figures["token_matters"] > 0
    assert figures["identity_thing_base"] == figures["identity_thing_new"]
    assert "looks as it did before" in judge(figures, SUBJECT).problems[0]
