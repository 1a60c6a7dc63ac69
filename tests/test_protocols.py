"""How priors are measured: what is drawn, what it is compared with, and the report of the script."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from colored_shapes import shape_views, write_shapes
from tiny_prior import write_tiny_prior
from tiny_shards import tiny_object

from dream3d.cameras import Cameras, orbit
from dream3d.dataset.shards import ObjectViews
from dream3d.errors import DatasetError
from dream3d.evaluation import losses
from dream3d.evaluation.compositional import Composition, Pair
from dream3d.evaluation.consistency import cross_view_consistency
from dream3d.evaluation.losses import Denoising, NoiseLoss, camera_sensitivity, denoising_losses, view_set
from dream3d.evaluation.protocols import views
from dream3d.evaluation.protocols.judging import Judged, bare, composed, judge, recalls
from dream3d.evaluation.protocols.priors import read_split
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.image_encoder import EncoderConfig, Towers, save_towers
from dream3d.prior.sampling import SamplingRecipe
from dream3d.report.sheet import labelled_sheet

RNG = np.random.default_rng(2)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPrior:
    return DiffusionPrior(write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny"))


def test_views_are_sampled_as_many_at_a_time_as_asked(prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Cameras, int, int]] = []

    def fake(prior: object, text: object, cameras: Cameras, recipe: SamplingRecipe, seed: int) -> torch.Tensor:
        seen.append((cameras, recipe.steps, seed))
        return torch.full((len(cameras), 3, 16, 16), float(seed))

    monkeypatch.setattr(views, "sample_views", fake)
    assert views.draw(prior, "a chair", 7, 4, steps=3)[:, 0, 0, 0].tolist() == [7, 7, 207, 207]
    assert [(len(cameras), steps) for cameras, steps, _ in seen] == [(2, 3), (2, 3)]
    torch.testing.assert_close(torch.cat([cameras.c2w for cameras, _, _ in seen]), orbit(4).c2w)
    assert len(views.draw(prior, "a chair", 0, 16, together=16)) == 16
    assert len(seen[2][0]) == 16
    assert len(views.draw(prior, "a chair", 0)) == prior.views


def test_consistency_of_more_views_is_also_that_of_four_a_quarter_apart(
    prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(prior: object, text: object, cameras: Cameras, recipe: object, seed: int) -> torch.Tensor:
        images, _ = oracle.draw(oracle.MASCOT, cameras, 48)
        images[1::2] = 0.4  # between the quarters there is nothing
        return images

    monkeypatch.setattr(views, "sample_views", fake)
    ((figures, rows),) = views.many_views(prior, ["a mascot"], counts=(8,))
    assert (figures.views, len(rows[0])) == (8, 8)
    assert figures.all == 0
    assert figures.quarters == pytest.approx(cross_view_consistency(rows[0][::2], orbit(4)))
    assert figures.quarters > 0.9
    assert views.mean_difference(rows) == 1


def test_a_prior_that_follows_cameras_is_worse_under_wrong_ones(
    prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = shape_views("red", "chair", "a", RNG)
    item.rgba[:, 1::2] = 255
    latents = prior.encode_images(view_set(item, 0, prior, prior.background)[0], torch.Generator())
    monkeypatch.setattr(prior, "predict_x0", lambda *_: (latents, latents))  # right for the views as they stand
    error, ratio = camera_sensitivity(prior, [item])
    assert error == pytest.approx(denoising_losses(prior, [item]).mean_pixels)
    assert ratio > 1.5
    item.rgba[:] = item.rgba[:, :1]
    assert camera_sensitivity(prior, [item])[1] == pytest.approx(1)
    turned: list[list[int]] = []

    def remember(prior: object, objects: list[ObjectViews]) -> Denoising:
        turned.append(objects[0].rgba[0, :, 0, 0, 0].tolist())
        return Denoising(0.0, (NoiseLoss(0.5, 2.0, 0.0),))

    monkeypatch.setattr(losses, "denoising_losses", remember)
    wide = tiny_object("a", "chair")
    wide.rgba[0, :, 0, 0, 0] = np.arange(8)
    assert camera_sensitivity(prior, [wide]) == (2.0, 1.0)
    assert turned == [list(range(8)), [6, 7, 0, 1, 2, 3, 4, 5]]


def test_captions_that_differ_in_their_article_are_one_answer() -> None:
    assert [bare(text) for text in ("A chair", "an elk", "chair", "apple")] == ["chair", "elk", "chair", "apple"]


class PrimaryColors:
    """An encoder for which an image is its mean colour, and a text the colour that it names."""

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[float(color in text.split()) for color in ("red", "green", "blue")] for text in texts])


def test_a_judge_counts_single_views_but_sees_a_pair_as_a_whole() -> None:
    def shown(*colors: int) -> torch.Tensor:
        return torch.eye(3)[list(colors)].view(-1, 3, 1, 1)

    encoder: Any = PrimaryColors()
    captions = ["a red chair", "green chair", "a blue chair"]
    drawn = [("A green chair", shown(1, 1)), ("a blue chair", shown(0, 2))]
    assert recalls(encoder, drawn, captions) == (0.75, 1.0)
    pairs = [(Pair("red", "chair"), shown(0, 0, 1)), (Pair("blue", "chair"), shown(0, 0, 2))]
    assert judge({"one": encoder}, drawn, captions, pairs, ["chair"]) == {
        "one": Judged(0.75, 1.0, Composition(both=0.5, color=0.5, name=1.0))
    }
    assert composed(encoder, [], ["chair"]) is None


def test_a_missing_split_is_one_line_and_a_large_one_is_thinned(tmp_path: Path) -> None:
    folder = write_shapes(tmp_path / "shards", [("red", "table"), ("green", "chair")])
    assert len(read_split([folder], ["unseen", "heldout"], 3)) == 3
    assert len(read_split([folder, folder], ["heldout"])) == 12
    with pytest.raises(DatasetError, match="no shards of unseen"):
        read_split([folder], ["unseen"])


def test_a_sheet_has_a_cell_for_each_row() -> None:
    views = torch.zeros(4, 3, 16, 16)
    sheet = labelled_sheet([("a", views)] * 4, columns=3)
    assert sheet.shape == (2 * (16 + 14), 3 * (64 + 4), 3)
    assert (sheet[13:29, :64] == 0).all()
    assert (sheet[30:, 68:] == 255).all()  # the last line has one cell


def test_the_evaluation_script_writes_tables_figures_and_a_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tiny_prior(tmp_path / "tiny")
    shards = write_shapes(tmp_path / "shards", [("red", "table"), ("green", "chair")], copies=1)
    judge = tmp_path / "judge"
    (judge / "image_encoder").mkdir(parents=True)
    save_towers(Towers(EncoderConfig(16, (8, 16), 8, text_width=12)), judge / "image_encoder")
    (tmp_path / "prompts.txt").write_text("a red table\n\ngreen chair\n")
    module = runpy.run_path(str(Path(__file__).parent.parent / "examples/mini/evaluate.py"))
    arguments = {"prior": folder, "text": folder, "views": shards, "judge": judge, "prompts": tmp_path / "prompts.txt"}
    options = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    out = tmp_path / "report"
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *options, "--out", str(out), "--steps", "2", "--seeds", "2"])
    module["main"]()
    assert sorted(path.name for path in out.iterdir()) == ["evaluation.json", "evaluation.md", "tiny-v3.png"]
    figures = json.loads((out / "evaluation.json").read_text())["priors"]["tiny-v3"]
    assert 0 <= figures["judged"]["judge"]["composition"]["color"] <= 1
    assert len(figures["denoising"]["levels"]) == 5
    report = (out / "evaluation.md").read_text()
    assert "2 held-out objects, 2 prompts, 2 unseen pairs, 2 seeds" in report
    assert report in capsys.readouterr().out
