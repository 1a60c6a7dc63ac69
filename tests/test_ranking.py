"""Ranking of sampled views, on pictures of known objects and on priors whose answers are known."""

import pytest
import torch
from oracle import MASCOT, TABLE, draw
from tiny_prior import write_tiny_prior

from dream3d.cameras import orbit
from dream3d.evaluation.consistency import cross_view_consistency
from dream3d.evaluation.ranking import Ranked, rank, text_similarity
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.weights.loading import load_prior

CAMERAS = orbit(4)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPrior:
    return load_prior(str(write_tiny_prior(tmp_path_factory.mktemp("prior"))))


def test_pictures_of_one_solid_thing_agree() -> None:
    pictures, _ = draw(MASCOT, CAMERAS, 64)
    assert cross_view_consistency(pictures, CAMERAS) > 0.93


def test_views_in_the_wrong_places_agree_less() -> None:
    table, _ = draw(TABLE, CAMERAS, 64)
    right = cross_view_consistency(table, CAMERAS)
    assert cross_view_consistency(table[[0, 0, 2, 2]], CAMERAS) < right - 0.02  # the front from the side, too
    mascot, _ = draw(MASCOT, CAMERAS, 64)
    mixed = torch.stack([table[0], mascot[1], table[2], mascot[3]])
    assert cross_view_consistency(mixed, CAMERAS) < right - 0.05


def test_empty_pictures_have_no_hull() -> None:
    assert cross_view_consistency(torch.full((4, 3, 32, 32), 0.4), CAMERAS) == 0.0


def test_text_similarity_by_hand(prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prior that is off by 0.1 with the text and by 0.3 without it gains 0.09 - 0.01 at every noise level."""
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    latents = prior.encode_images(pictures, torch.Generator())
    monkeypatch.setattr(prior, "predict_x0", lambda *_: (latents + 0.1, latents - 0.3))
    text = Conditioning.from_text(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    assert text_similarity(prior, pictures, orbit(2), text) == pytest.approx(0.08, abs=1e-5)


def test_text_that_says_nothing_gains_nothing(prior: DiffusionPrior) -> None:
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    text = prior.encode_prompt("", "")
    assert text_similarity(prior, pictures, orbit(2), text) == pytest.approx(0.0, abs=1e-9)


def test_places_are_added_and_consistency_breaks_ties() -> None:
    nothing = torch.zeros(1, 3, 1, 1)
    candidates = [
        Ranked(10, nothing, consistency=0.5, text_similarity=0.9),  # places 2 + 0
        Ranked(11, nothing, consistency=0.8, text_similarity=0.1),  # places 0 + 2
        Ranked(12, nothing, consistency=0.7, text_similarity=0.5),  # places 1 + 1
        Ranked(13, nothing, consistency=0.1, text_similarity=0.0),  # places 3 + 3
    ]
    assert [candidate.seed for candidate in rank(candidates)] == [11, 12, 10, 13]


@pytest.mark.slow
def test_the_built_in_prior_knows_which_text_fits() -> None:
    prior = load_prior("mini")
    cone, chair = prior.encode_prompt("a traffic cone", ""), prior.encode_prompt("a chair", "")
    from dream3d.prior.sampling import SamplingRecipe, sample_views

    pictures = sample_views(prior, cone, CAMERAS, SamplingRecipe("dpm++", 10, 5.0, 0.7), seed=0)
    assert text_similarity(prior, pictures, CAMERAS, cone) > 0 > text_similarity(prior, pictures, CAMERAS, chair)
