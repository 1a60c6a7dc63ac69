"""Training of the contrastive encoder: the loss by hand, what is no negative, and that it learns."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colored_shapes import shape_views, write_shapes
from tiny_prior import write_tiny_prior
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.dataset.compositing import over, premultiplied
from dream3d.errors import DatasetError, TrainingError, UsageError
from dream3d.evaluation.retrieval import recall_at
from dream3d.prior.image_encoder import EncoderConfig, ImageEncoder, Towers, load_image_encoder, load_text
from dream3d.training import contrastive
from dream3d.training.contrastive import ContrastiveRecipe, contrastive_loss, train_encoder
from dream3d.training.contrastive_data import (
    BACKGROUND,
    Captioned,
    batches,
    blurred,
    caption_fits,
    disturbed,
    fitting,
    read_captioned,
)

CONFIG = EncoderConfig(image_size=16, channels=(16, 32, 32), dim=16, text_width=12)
KINDS = [("red", "table"), ("green", "chair")]
RNG = np.random.default_rng(5)
COLORS = frozenset({"red", "green"})


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Captioned:
    return read_captioned([write_shapes(tmp_path_factory.mktemp("shards"), KINDS)], "train", 16)


def test_the_loss_of_two_pairs_is_that_computed_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    none = torch.zeros(2, 2, dtype=torch.bool)
    # logits 2 * [[1, 0.6], [0, 0.8]]: rows softplus(-0.8), softplus(-1.6); columns softplus(-2), softplus(-0.4)
    softplus = [math.log1p(math.exp(-value)) for value in (0.8, 1.6, 2.0, 0.4)]
    loss = contrastive_loss(images, texts, torch.tensor(2.0), none)
    assert float(loss) == pytest.approx(sum(softplus) / 4, abs=1e-6)


def test_a_pair_that_fits_is_no_negative() -> None:
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    scale = torch.tensor(5.0)
    none = torch.zeros(2, 2, dtype=torch.bool)
    assert float(contrastive_loss(images, images, scale, none)) == pytest.approx(math.log(2))
    assert float(contrastive_loss(images, images, scale, ~none)) == 0
    one = torch.tensor([[True, True], [False, True]])  # text 1 fits picture 0: row 0 and column 1 are freed
    assert float(contrastive_loss(images, images, scale, one)) == pytest.approx(math.log(2) / 2)


def test_a_caption_fits_its_concept_but_not_in_another_color() -> None:
    red = shape_views("red", "chair", "a", RNG).record
    green = shape_views("green", "chair", "b", RNG).record
    table = shape_views("red", "table", "c", RNG).record
    assert caption_fits("a chair", red, green, COLORS)
    assert caption_fits("an old chair", red, green, COLORS)
    assert not caption_fits("a red chair", red, green, COLORS)
    assert not caption_fits("a red chair", red, table, COLORS)
    assert fitting(["a red chair", "a chair"], [red, green], COLORS).tolist() == [[True, True], [False, True]]


def test_an_object_of_unknown_colors_refutes_no_caption_of_its_concept() -> None:
    red = shape_views("red", "chair", "a", RNG).record
    unknown = type(red)(**{**vars(red), "colors": (), "captions": ("a chair",)})
    assert caption_fits("a red chair", red, unknown, COLORS)


def test_batches_take_every_object_once_a_round_and_are_reproducible(data: Captioned) -> None:
    def drawn(seed: int) -> list[tuple[str, ...]]:
        stream = batches(data, 3, torch.Generator().manual_seed(seed))
        return [next(stream).captions for _ in range(4)]

    words = [caption for captions in drawn(1)[:2] for caption in captions]
    assert sum("table" in caption for caption in words) == 3
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_disturbed_pictures_keep_their_color_and_their_range(data: Captioned) -> None:
    rgba = data.rgba[0].float() / 255
    pictures = disturbed(rgba.repeat(8, 1, 1, 1), torch.Generator().manual_seed(0))
    assert pictures.shape == (32, 3, 16, 16)
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1
    middle = pictures[:, :, 7:9, 7:9].mean((2, 3))
    assert bool((middle[:, 0] > 2 * middle[:, 1:].amax(1)).all())


def test_pictures_lie_over_the_background_by_their_alpha() -> None:
    rgba = torch.tensor([0.25, 0.0, 0.5, 0.5]).view(1, 4, 1, 1)
    assert over(rgba, torch.tensor([1.0, 0.5, 0.5])).flatten().tolist() == [0.75, 0.25, 0.75]


def test_smaller_pictures_of_an_object_show_no_dark_fringe() -> None:
    views = shape_views("red", "chair", "a", RNG)
    rgba = premultiplied(views, 8).float()
    assert rgba.shape == (4, 4, 8, 8)
    edge = (rgba[:, 3] > 20) & (rgba[:, 3] < 235)
    straight = rgba[:, 0][edge] / rgba[:, 3][edge] * 255
    assert bool(((straight - 220).abs() < 15).all())


def test_the_blur_spreads_a_point_by_the_binomial_weights() -> None:
    point = torch.zeros(1, 1, 5, 5)
    point[..., 2, 2] = 1
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    torch.testing.assert_close(blurred(point)[0, 0], torch.outer(row, row))


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    recipe = ContrastiveRecipe(steps=100)
    assert [recipe.rate_at(step) for step in (0, 4, 5)] == pytest.approx([0.2, 1.0, 1.0])
    assert recipe.rate_at(99) < 0.001


@pytest.mark.parametrize("changes", [{"steps": 0}, {"batch": 1}, {"learning_rate": 0.0}])
def test_a_recipe_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="got --"):
        ContrastiveRecipe(**changes)


def test_the_encoder_learns_to_tell_red_squares_from_green_discs(prior: Path, data: Captioned) -> None:
    text = load_text(prior)
    towers, rows = train_encoder(data, text, ContrastiveRecipe(steps=80, batch=6, seed=3), config=CONFIG)
    assert rows[-1].loss < rows[0].loss
    encoder = ImageEncoder(towers, text)
    rng = np.random.default_rng(99)  # fresh draws
    fresh = [premultiplied(shape_views(color, name, "x", rng), 16) for color, name in KINDS for _ in range(5)]
    pictures = over(torch.cat(fresh).float() / 255, torch.tensor(BACKGROUND))
    texts = encoder.embed_texts([f"a {color} {name}" for color, name in KINDS])
    similarity = encoder.embed_images(pictures) @ texts.t()
    assert recall_at(similarity, [{0}] * 20 + [{1}] * 20, 1) == 1


def test_the_same_seed_gives_the_same_weights(prior: Path, data: Captioned) -> None:
    text = load_text(prior)

    def weights(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # whatever was drawn elsewhere changes nothing
        towers, _ = train_encoder(data, text, ContrastiveRecipe(steps=3, batch=4, seed=seed), config=CONFIG)
        return torch.cat([value.flatten() for value in towers.state_dict().values()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_loss_that_is_not_finite_ends_the_training(
    prior: Path, data: Captioned, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr(contrastive, "contrastive_loss", lambda *_: nan)
    with pytest.raises(TrainingError, match="nan at step 0"):
        train_encoder(data, load_text(prior), ContrastiveRecipe(steps=2, batch=4), config=CONFIG)


def test_an_encoder_for_which_all_is_alike_recalls_nothing(prior: Path, data: Captioned) -> None:
    towers = Towers(CONFIG)
    torch.nn.init.zeros_(towers.text.weight)
    measured = contrastive.heldout_recall(ImageEncoder(towers, load_text(prior)), data)
    assert measured["R@1"] == 0
    assert measured["pictures"] == 24
    assert measured["sentences"] == 2


def test_train_encoder_writes_a_folder_that_loads(prior: Path, tmp_path: Path) -> None:
    shards = write_shapes(tmp_path / "shards", KINDS, copies=1)
    command = ["train-encoder", str(shards), "--out", str(tmp_path / "out"), "--prior", str(prior)]
    result = CliRunner().invoke(app, [*command, "--steps", "2", "--batch", "2"])
    assert result.exit_code == 0, result.output
    assert "heldout: R@1" in result.output
    written = tmp_path / "out/image_encoder"
    assert sorted(path.name for path in written.iterdir()) == [
        "config.json",
        "heldout.json",
        "metrics.csv",
        "model.safetensors",
    ]
    assert load_image_encoder(tmp_path / "out", prior).dim == 256
    assert (written / "metrics.csv").read_text().splitlines()[0] == "step,loss,accuracy,scale"
    assert json.loads((written / "heldout.json").read_text())["heldout"]["heldout"]["pictures"] == 8
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "exists" in again.output + again.stderr


def test_too_few_objects_are_an_error_that_names_the_folder(tmp_path: Path) -> None:
    data = read_captioned([tmp_path], "train", 16)
    with pytest.raises(DatasetError, match="0 training objects"):
        contrastive.check_data(data, [tmp_path])
    with pytest.raises(DatasetError, match="at least two"):
        next(batches(data, 4, torch.Generator()))


def test_a_place_that_cannot_hold_the_encoder_is_refused_before_training(tmp_path: Path) -> None:
    contrastive.check_place(tmp_path / "new" / "deep")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        contrastive.check_place(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be written"):
        contrastive.check_place(tmp_path / "file" / "below")
