"""The measures of the evaluation, on cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
from colored_shapes import shape_views
from hypothesis import given
from hypothesis import strategies as st
from tiny_prior import write_tiny_prior

from dream3d.cameras import orbit
from dream3d.dataset.cameras import pass_cameras
from dream3d.dataset.records import ObjectRecord, Pass
from dream3d.evaluation.compositional import COLORS, Pair, composition, rivals, seen_pairs, unseen_pairs
from dream3d.evaluation.consistency import cross_view_consistency, differing_pairs, janus_score
from dream3d.evaluation.losses import denoising_losses, view_set
from dream3d.evaluation.retrieval import ranks, recall_at
from dream3d.guidance import add_noise
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.report.tables import bar, number, table, with_bar

RNG = np.random.default_rng(2)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPrior:
    return DiffusionPrior(write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny"))


def record(name: str, captions: tuple[str, ...], colors: tuple[str, ...] = ()) -> ObjectRecord:
    trip = Pass(0.0, 40.0, 3.0, (0.0, 90.0, 180.0, 270.0))
    return ObjectRecord("key", name, "", captions, colors, (), "train", "", "", "", (trip,))


def test_recall_counts_rows_whose_right_column_is_among_the_first_k() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5], [0.2, 0.3, 0.1]])
    right = [{0}, {2}, {2}]
    assert ranks(similarity, right).tolist() == [0, 1, 2]
    assert [recall_at(similarity, right, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_ties_with_wrong_columns_count_against_the_right_one() -> None:
    assert recall_at(torch.zeros(4, 3), [{0}, {1}, {2}, {0}], 2) == 0
    assert recall_at(torch.zeros(4, 3), [{0}, {1}, {2}, {0}], 3) == 1


def test_several_right_columns_do_not_stand_in_each_others_way() -> None:
    similarity = torch.tensor([[0.9, 0.8, 0.7, 0.1]])
    assert ranks(similarity, [{1, 2}]).tolist() == [1]
    assert ranks(similarity, [{0, 1}]).tolist() == [0]
    assert ranks(torch.zeros(1, 3), [{0, 1, 2}]).tolist() == [0]


@given(st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=1, max_size=6))
def test_recall_never_falls_with_k_and_is_whole_at_the_end(rows: list[list[int]]) -> None:
    similarity = torch.tensor(rows, dtype=torch.float32)
    right = [{index % 4} for index in range(len(rows))]
    shares = [recall_at(similarity, right, k) for k in (1, 2, 3, 4)]
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize(
    ("similarity", "right", "k"),
    [
        (torch.zeros(1, 2), [set[int]()], 1),
        (torch.zeros(1, 2), [{2}], 1),
        (torch.zeros(1, 2), [{-1}], 1),
        (torch.zeros(1, 2), [{0}, {1}], 1),
        (torch.tensor([[math.nan, 1.0]]), [{0}], 1),
        (torch.zeros(1, 2), [{0}], 0),
    ],
)
def test_requests_without_answer_are_refused(similarity: torch.Tensor, right: list[set[int]], k: int) -> None:
    with pytest.raises(ValueError, match=r"column|finite|at least 1"):
        recall_at(similarity, right, k)


def test_one_picture_drawn_four_times_is_exposed() -> None:
    picture = torch.full((3, 16, 16), 0.5)
    picture[:, 4:12, 4:12] = 1.0
    same = picture.repeat(4, 1, 1, 1)
    assert cross_view_consistency(same, orbit(4, elevation_deg=0)) > 0.6
    assert differing_pairs(same) == 0
    grain = 0.1 * torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).repeat_interleave(4, -1)
    assert differing_pairs(same.repeat_interleave(4, -1).repeat_interleave(4, -2) + grain.repeat(1, 1, 4, 1)) == 0
    moved = torch.stack([picture.roll(3 * i, -1) for i in range(4)])
    assert differing_pairs(moved) == 1


def test_pairs_that_differ_are_counted_around_the_circle() -> None:
    shades = torch.tensor([0.0, 0.5, 0.0, 0.01])
    pictures = shades.view(4, 1, 1, 1).expand(4, 3, 2, 2)
    assert differing_pairs(pictures) == 0.5  # 0-1 and 1-2 differ, 2-3 and 3-0 by less than the threshold
    assert differing_pairs(pictures, step=2) == 0.5  # 1-3 and 3-1
    with pytest.raises(ValueError, match="no pairs"):
        differing_pairs(pictures, step=4)


def around(*grays: float) -> torch.Tensor:
    """Views of plain colours."""
    return torch.tensor(grays)[:, None, None, None].expand(-1, 3, 16, 16)


@pytest.mark.parametrize(
    ("grays", "score"),
    [
        ((0.8, 0.2, 0.8, 0.2), 1.0),  # front and back the same, the sides another
        ((0.9, 0.5, 0.1, 0.5), 0.5),  # the back differs twice as much as the side, but left and right are the same
        ((0.5, 0.5, 0.5, 0.5), 0.0),  # a vase
        ((0.8, 0.4, 0.6, 0.4), 0.625),  # back over side: 0.2 / 0.4, 0 / 0.2, 0.2 / 0.2, 0 / 0.4
        ((0.8, 0.5, 0.2, 0.5, 0.8, 0.5, 0.2, 0.5), 0.5),  # eight views: 0.6 and 0 a quarter turn away, 0 to the back
    ],
)
def test_a_back_that_repeats_the_front_is_a_janus(grays: tuple[float, ...], score: float) -> None:
    assert janus_score(around(*grays)) == pytest.approx(score)


def test_four_different_sides_are_no_janus() -> None:
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])  # any two differ by two of three channels
    assert janus_score(colors[:, :, None, None].expand(-1, -1, 16, 16)) == 0


def test_a_janus_needs_views_a_quarter_turn_apart() -> None:
    with pytest.raises(ValueError, match="got 6"):
        janus_score(around(*[0.5] * 6))
    with pytest.raises(ValueError, match="got 2"):
        janus_score(around(0.5, 0.5))


def test_cameras_of_a_pass_stand_where_it_says() -> None:
    cameras = pass_cameras(Pass(0.0, 40.0, 3.0, (0.0, 90.0, 180.0, 270.0)), [0, 1])
    torch.testing.assert_close(
        cameras.c2w[:, :3, 3], torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]), atol=1e-5, rtol=0
    )
    assert cameras.fovy_deg.tolist() == [40.0, 40.0]
    near = pass_cameras(Pass(0.0, 40.0, 3.0, (0.0, 90.0, 180.0, 270.0)), [1], distance=1.0)
    torch.testing.assert_close(near.c2w[:, :3, 3], torch.tensor([[0.0, 1.0, 0.0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(near.conditioning(), cameras.conditioning()[1:])


def test_a_prior_of_two_views_gets_opposite_ones_over_the_background(prior: DiffusionPrior) -> None:
    views = shape_views("red", "chair", "a", RNG)
    pictures, cameras = view_set(views, 0, prior, (0.25, 0.5, 1.0))
    assert pictures.shape == (2, 3, 16, 16)
    assert float(cameras.c2w[1, 0, 3]) == pytest.approx(-float(cameras.c2w[0, 0, 3]), abs=1e-4)
    assert pictures[0, :, 0, 0].tolist() == pytest.approx([0.25, 0.5, 1.0])
    assert pictures[1, :, 8, 8].tolist() == pytest.approx([220 / 255, 30 / 255, 30 / 255])


def test_a_prediction_that_is_right_costs_only_what_the_codec_loses(
    prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = [shape_views("red", "chair", "a", RNG)]
    pictures, _ = view_set(objects[0], 0, prior, prior.background)
    latents = prior.encode_images(pictures, torch.Generator())
    monkeypatch.setattr(prior, "predict_x0", lambda *_: (latents, latents))
    right = denoising_losses(prior, objects)
    assert right.codec > 0
    for level in right.levels:
        assert level.pixels == pytest.approx(right.codec, rel=1e-4)
        assert level.eps == pytest.approx(0, abs=1e-8)
    monkeypatch.setattr(prior, "predict_x0", lambda *_: (latents + 1, latents))
    wrong = denoising_losses(prior, objects, levels=(0.5,))
    alpha_bar = float(prior.alphas_cumprod[500])  # eps is off by alpha / sigma everywhere
    assert wrong.levels[0].eps == pytest.approx(alpha_bar / (1 - alpha_bar), rel=1e-3)


def test_losses_depend_on_the_seed_and_the_background_alone(prior: DiffusionPrior) -> None:
    objects = [shape_views(color, "chair", "a", RNG) for color in ("red", "green")]
    first = denoising_losses(prior, objects, levels=(0.2, 0.8), seed=1)
    torch.rand(3)
    assert denoising_losses(prior, objects, levels=(0.2, 0.8), seed=1) == first
    assert denoising_losses(prior, objects, levels=(0.2, 0.8), seed=2) != first
    assert denoising_losses(prior, objects, levels=(0.2, 0.8), background=(1.0, 1.0, 1.0), seed=1) != first
    assert first.mean_pixels == pytest.approx((first.levels[0].pixels + first.levels[1].pixels) / 2)
    with pytest.raises(ValueError, match="at least one"):
        denoising_losses(prior, [])


def test_the_noise_of_the_losses_is_added_as_in_training(
    prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the prior is shown, less its signal, has the schedule's spread."""
    shown = []

    def predict(noisy: torch.Tensor, timestep: int, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
        shown.append((noisy, timestep))
        return noisy, noisy

    monkeypatch.setattr(prior, "predict_x0", predict)
    views = shape_views("red", "chair", "a", RNG)
    denoising_losses(prior, [views], levels=(0.9,))
    latents = prior.encode_images(view_set(views, 0, prior, prior.background)[0], torch.Generator())
    (noisy, timestep), alpha_bar = shown[0], float(prior.alphas_cumprod[900])
    assert timestep == 900
    noise = (noisy - add_noise(latents, torch.zeros_like(latents), alpha_bar)) / (1 - alpha_bar) ** 0.5
    assert float(noise.std()) == pytest.approx(1, abs=0.25)


def test_pairs_of_captions_and_of_measured_colors_are_seen() -> None:
    records = [
        record("couch", ("a blue sofa", "a couch"), ("white",)),
        record("sofa", ("a brown sofa",)),
        record("redwood", ("a redwood",)),
    ]
    seen = seen_pairs(records)
    expected = {Pair("blue", "couch"), Pair("white", "couch"), Pair("blue", "sofa"), Pair("white", "sofa")}
    assert seen == expected | {Pair("brown", "sofa")}  # a redwood is not red


def test_unseen_pairs_are_known_colors_and_names_that_never_met() -> None:
    records = [record("chair", ("a red chair",)), record("car", ("a blue car",)), record("cup", ("a cup",))]
    pairs = unseen_pairs(records, 100)
    assert set(pairs) == {Pair("blue", "chair"), Pair("red", "car"), Pair("red", "cup"), Pair("blue", "cup")}
    assert {pair.name for pair in pairs[:3]} == {"chair", "car", "cup"}  # every name once before one comes again
    assert unseen_pairs(records, 2) == pairs[:2]
    assert unseen_pairs([], 5) == []


def test_prompts_of_pairs_have_their_article() -> None:
    assert Pair("red", "chair").prompt == "a red chair"
    assert Pair("orange", "chair").prompt == "an orange chair"


def test_rivals_are_other_colors_and_other_objects() -> None:
    found = rivals(Pair("red", "chair"), ["car", "chair"], ("red", "blue"))
    assert found == [Pair("red", "chair"), Pair("blue", "chair"), Pair("red", "car")]
    assert len(rivals(Pair("red", "chair"), ["car", "chair"])) == len(COLORS) + 1


def test_composition_tells_the_wrong_color_from_the_wrong_object() -> None:
    right = torch.tensor([0.9, 0.5, 0.5])
    wrong_color = torch.tensor([0.5, 0.9, 0.1])
    wrong_object = torch.tensor([0.5, 0.1, 0.9])
    undecided = torch.tensor([0.5, 0.5, 0.5])
    result = composition([right, wrong_color, wrong_object, undecided], color_count=1)
    assert (result.both, result.color, result.name) == (0.25, 0.5, 0.5)
    with pytest.raises(ValueError, match="no images"):
        composition([], 1)


def test_bars_are_as_long_as_their_share() -> None:
    assert bar(0.5, width=4) == "██"
    assert bar(1 / 8, width=1) == "▏"
    assert (bar(0), bar(2.0, width=3), bar(-1), bar(math.nan)) == ("", "███", "", "")
    assert with_bar(0.5) == "0.500 █████"
    assert with_bar(3.0, top=0.0) == "3.000"
    assert number(math.inf) == "-"


def test_a_table_keeps_its_columns_whatever_the_cells_hold() -> None:
    text = table(["a", "b"], [["x|y", "two\nlines"]])
    assert text == "| a | b |\n| --- | --- |\n| x\\|y | two lines |\n"
    with pytest.raises(ValueError, match="1 cells under 2"):
        table(["a", "b"], [["x"]])
