"""The metrics of the evaluation: values worked out by hand, known answers, and other libraries on the same numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from dream3d.evaluation.image_sets import frechet_distance, inception_score
from dream3d.evaluation.intervals import Interval, bootstrap_difference, bootstrap_mean, jackknife
from dream3d.evaluation.pixels import MAX_PSNR, psnr, ssim
from dream3d.evaluation.preference import Answer, bradley_terry, preferences, wins_of
from dream3d.evaluation.retrieval import recall_at
from dream3d.evaluation.similarity import image_image_similarity, text_image_similarity, view_agreement

RNG = np.random.default_rng(7)


def random_images(count: int, side: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


class Given(nn.Module):
    """Stands for Inception in torchmetrics: a picture's first pixels are its features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.flatten(1)[:, : self.num_features].double()


# --- sets of pictures -------------------------------------------------------------------------------------------


def test_identical_sets_have_no_distance() -> None:
    features = RNG.normal(size=(30, 8))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features, features[::-1]) == pytest.approx(0, abs=1e-9)


def test_the_distance_of_gaussians_worked_out_by_hand() -> None:
    a = np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]])  # covariance 2/3 in both directions, mean 0
    b = 2 * a + (3, 4)  # covariance 8/3, mean (3, 4)
    # 25 + 2 * (2/3 + 8/3) - 2 * 2 * (4/3)
    assert frechet_distance(a, b) == pytest.approx(25 + 20 / 3 - 16 / 3)
    turned = np.array([[-1.0, 0], [1, 0]]), np.array([[0.0, -2], [0, 2]])  # covariances that share no direction
    assert frechet_distance(*turned) == pytest.approx(2 + 8)


@pytest.mark.parametrize("count", [6, 60])  # fewer pictures than features, and more
def test_the_distance_is_that_of_torchmetrics(count: int) -> None:
    pictures = [(random_images(count, 4, seed) * 255).byte() for seed in (0, 1)]
    metric = FrechetInceptionDistance(feature=Given(12))
    metric.set_dtype(torch.float64)
    metric.update(pictures[0], real=True)
    metric.update(pictures[1], real=False)
    features = [one.flatten(1)[:, :12].double().numpy() for one in pictures]
    assert frechet_distance(*features) == pytest.approx(float(metric.compute()), rel=1e-6, abs=1e-4)


@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 9))
def test_the_distance_is_symmetric_and_not_negative(count: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(count, width)), rng.normal(2, 3, size=(count + 3, width))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, b) >= 0


@pytest.mark.parametrize(
    ("first", "second"),
    [(np.zeros((1, 2)), np.zeros((3, 2))), (np.zeros((3, 2)), np.zeros((3, 1))), (np.full((3, 2), np.nan),) * 2],
)
def test_sets_without_a_distance_are_refused(first: np.ndarray, second: np.ndarray) -> None:
    with pytest.raises(ValueError, match="features"):
        frechet_distance(first, second)


def test_the_inception_score_of_certain_and_of_uncertain_classes() -> None:
    assert inception_score(np.eye(5)) == pytest.approx(5)  # certain, and each another
    assert inception_score(np.tile([1.0, 0, 0], (4, 1))) == pytest.approx(1)  # certain, and all the same
    assert inception_score(np.full((4, 8), 1 / 8)) == pytest.approx(1)  # uncertain
    half = np.array([[0.75, 0.25], [0.25, 0.75]])
    assert inception_score(half) == pytest.approx(math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5)))
    with pytest.raises(ValueError, match="sum to 1"):
        inception_score(np.array([[0.5, 0.6]]))


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save all extracted features:UserWarning")
@pytest.mark.filterwarnings("ignore:std:UserWarning")  # of one split
def test_the_inception_score_is_that_of_torchmetrics() -> None:
    pictures = (random_images(40, 4) * 255).byte()
    metric = InceptionScore(feature=Given(10), splits=1)
    metric.update(pictures)
    logits = pictures.flatten(1)[:, :10].double()
    assert inception_score(logits.softmax(1).numpy()) == pytest.approx(float(metric.compute()[0]), rel=1e-6)


# --- vectors ----------------------------------------------------------------------------------------------------


def test_cosines_do_not_depend_on_lengths() -> None:
    images = torch.tensor([[3.0, 0], [0, 5]])
    assert text_image_similarity(images, torch.tensor([2.0, 0])) == pytest.approx(0.5)
    references = torch.tensor([[1.0, 1], [-1, 1]])
    root = math.sqrt(0.5)
    assert image_image_similarity(images, references) == pytest.approx((root - root + root + root) / 4)
    with pytest.raises(ValueError, match="0 references"):
        image_image_similarity(images, images[:0])


def test_one_view_repeated_four_times_agrees_wholly() -> None:
    assert view_agreement(torch.tensor([[1.0, 2, 3]]).repeat(4, 1)) == pytest.approx(1)
    assert view_agreement(torch.eye(3)) == pytest.approx(0)
    assert view_agreement(torch.tensor([[1.0, 0], [-1, 0], [0, 1]])) == pytest.approx(-1 / 3)
    with pytest.raises(ValueError, match="two at least"):
        view_agreement(torch.ones(1, 3))


def test_shuffled_captions_are_found_by_chance() -> None:
    count = 400
    vectors = torch.nn.functional.normalize(torch.randn(count, 64, generator=torch.Generator().manual_seed(1)), dim=1)
    right: list[set[int]] = [{index} for index in range(count)]
    assert recall_at(vectors @ vectors.t(), right, 1) == 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(2)).tolist()
    shuffled: list[set[int]] = [{index} for index in order]
    assert recall_at(vectors @ vectors.t(), shuffled, 1) <= 3 / count
    assert recall_at(vectors @ vectors.t(), shuffled, count // 2) == pytest.approx(0.5, abs=0.1)


# --- pixels -----------------------------------------------------------------------------------------------------


def test_psnr_by_hand() -> None:
    truth = torch.full((2, 3, 12, 12), 0.5)
    images = truth.clone()
    images[0] += 0.1  # a mean square of 0.01: 20 dB
    images[1, :, :6] += 0.5  # 0.125: 9.03 dB
    assert psnr(images, truth).tolist() == pytest.approx([20, -10 * math.log10(0.125)], abs=1e-4)
    assert psnr(truth, truth).tolist() == [MAX_PSNR] * 2
    expected = [float(peak_signal_noise_ratio(a, b, data_range=1.0)) for a, b in zip(images, truth, strict=True)]
    assert psnr(images, truth).tolist() == pytest.approx(expected, abs=1e-4)


def test_ssim_is_that_of_other_libraries() -> None:
    truth = random_images(2, 24)
    images = (0.7 * truth + 0.3 * random_images(2, 24, 1)).clamp(0, 1)
    found = ssim(images, truth)
    assert ssim(truth, truth).tolist() == pytest.approx([1, 1])
    _, theirs = structural_similarity_index_measure(images, truth, data_range=1.0, return_full_image=True)
    inside = theirs[..., 5:-5, 5:-5]  # torchmetrics goes on beyond the border, into the mirrored picture
    assert found.tolist() == pytest.approx(inside.mean((1, 2, 3)).tolist(), abs=1e-4)
    compare: Any = structural_similarity
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    pair = images[0].numpy(), truth[0].numpy()
    assert float(found[0]) == pytest.approx(compare(*pair, channel_axis=0, **options), abs=1e-4)


def test_ssim_of_flat_pictures_by_hand() -> None:
    a, b = torch.full((1, 3, 11, 11), 0.2), torch.full((1, 3, 11, 11), 0.8)
    assert float(ssim(a, b)) == pytest.approx((2 * 0.16 + 1e-4) / (0.04 + 0.64 + 1e-4), abs=1e-6)


@pytest.mark.parametrize(
    ("images", "truth"),
    [
        (torch.zeros(1, 3, 12, 12), torch.zeros(1, 3, 12, 13)),
        (torch.full((1, 3, 12, 12), 2.0), torch.zeros(1, 3, 12, 12)),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)),
    ],
)
def test_pictures_that_cannot_be_compared_are_refused(images: Tensor, truth: Tensor) -> None:
    with pytest.raises(ValueError, match=r"truth|colours|window"):
        ssim(images, truth)


# --- intervals --------------------------------------------------------------------------------------------------


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = generator(3).normal(5, 2, 400)
    found = bootstrap_mean(values.tolist(), generator())
    reach = 1.96 * values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.03)
    assert bootstrap_mean(values.tolist(), generator()) == found  # the generator alone decides
    assert bootstrap_mean([2.0] * 5, generator()) == Interval(2, 2, 2)
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean([], generator())


def test_pairs_cancel_what_is_hard_about_a_prompt() -> None:
    hard = generator(1).normal(0, 10, 50)
    a, b = (hard + 1).tolist(), hard.tolist()
    paired = bootstrap_difference(a, b, generator(), paired=True)
    apart = bootstrap_difference(a, b, generator(), paired=False)
    assert paired.value == apart.value == pytest.approx(1)
    assert (paired.low, paired.high) == pytest.approx((1, 1))
    assert paired.excludes_zero
    assert not apart.excludes_zero
    with pytest.raises(ValueError, match="no pairs"):
        bootstrap_difference(a, b[:3], generator(), paired=True)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = generator(5).normal(size=40)
    found = jackknife(lambda kept: float(values[kept].mean()), 40, groups=40)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(1.959964 * values.std(ddof=1) / math.sqrt(40))
    with pytest.raises(ValueError, match="left out"):
        jackknife(lambda kept: 0.0, 1)


# --- preference -------------------------------------------------------------------------------------------------

BASEBALL = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ]
)
"""Wins among the teams of the American League East, 1987: Milwaukee, Detroit, Toronto, New York, Boston, Cleveland,
Baltimore (Agresti, Categorical Data Analysis, 2nd edition, section 10.6)."""


def test_the_textbooks_baseball_season() -> None:
    strengths = bradley_terry(BASEBALL)
    assert (strengths - strengths[-1]).tolist() == pytest.approx([1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0], abs=0.005)
    assert strengths.mean() == pytest.approx(0)


def test_two_systems_have_the_odds_of_their_wins() -> None:
    low, high = bradley_terry(np.array([[0, 1], [3, 0]]))
    assert high - low == pytest.approx(math.log(3))
    low, high = bradley_terry(np.array([[0, 0], [3, 0]]), prior=0.5)
    assert 0 < high - low < 10
    with pytest.raises(ValueError, match="use a prior"):
        bradley_terry(np.array([[0, 0], [3, 0]]))
    with pytest.raises(ValueError, match="square"):
        bradley_terry(np.array([[0, 1, 2], [3, 0, 1]]))


def answers(shares: Sequence[float], people: int = 1) -> list[Answer]:
    return [Answer(0, 1, share, str(number % people)) for number, share in enumerate(shares)]


def test_wins_are_counted_and_the_same_is_half_of_one() -> None:
    assert wins_of(answers([1, 1, 0, 0.5]), 2).tolist() == [[0, 2.5], [1.5, 0]]
    with pytest.raises(ValueError, match="0 and 0"):
        wins_of([Answer(0, 0, 1, "a")], 2)
    with pytest.raises(ValueError, match="share"):
        wins_of([Answer(0, 1, 2, "a")], 2)


def test_a_clear_preference_is_sure_and_a_split_one_is_not() -> None:
    clear, other = preferences(answers([1] * 45 + [0] * 5), 2, generator(), 300)
    assert clear.won == 45
    assert clear.asked == other.asked == 50
    # Against the average of the two: half of the log odds between them.
    odds = math.log(45.5 / 5.5)
    assert clear.strength.value == pytest.approx(1 / (1 + math.exp(-odds / 2)), abs=0.01)
    assert other.strength.high < 0.5 < clear.strength.low
    split, _ = preferences(answers([1, 0] * 10), 2, generator(), 300)
    assert split.strength.value == pytest.approx(0.5)
    assert split.strength.low < 0.5 < split.strength.high


def test_many_people_are_drawn_as_a_whole() -> None:
    # Each of six people says the same ten times: as sure as six answers, not as sixty.
    opinions = [float(person < 4) for person in range(6)]
    by_people = [Answer(0, 1, opinion, str(person)) for person, opinion in enumerate(opinions) for _ in range(10)]
    by_one = [Answer(0, 1, one.share, "a") for one in by_people]
    wide, narrow = (preferences(given, 2, generator(), 300)[0].strength for given in (by_people, by_one))
    assert wide.value == pytest.approx(narrow.value)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    with pytest.raises(ValueError, match="no answers"):
        preferences([], 2, generator())
