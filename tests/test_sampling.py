"""Views from noise: samplers by hand, determinism, any number of views, and refusal of nonsense."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from tiny_prior import write_tiny_prior

from dream3d.cameras import Cameras, orbit
from dream3d.errors import UsageError
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.sampling import SAMPLING, SamplingRecipe, build_scheduler, sample_views
from dream3d.weights.loading import load_prior

QUICK = SamplingRecipe(steps=4, guidance_scale=3.0)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPrior:
    return load_prior(str(write_tiny_prior(tmp_path_factory.mktemp("prior"))))


def sample(prior: DiffusionPrior, recipe: SamplingRecipe = QUICK, seed: int = 0, views: int = 2) -> torch.Tensor:
    return sample_views(prior, prior.encode_prompt("a red chair", ""), orbit(views), recipe, seed)


@pytest.mark.parametrize("views", [1, 2, 3, 7])
def test_any_number_of_views(prior: DiffusionPrior, views: int) -> None:
    pictures = sample(prior, views=views)
    assert pictures.shape == (views, 3, 16, 16)
    assert bool(pictures.isfinite().all())
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1


def test_same_seed_same_pictures_another_seed_others(prior: DiffusionPrior) -> None:
    assert torch.equal(sample(prior, seed=5), sample(prior, seed=5))
    assert not torch.equal(sample(prior, seed=5), sample(prior, seed=6))


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_with_a_perfect_network_every_sampler_ends_at_the_truth(
    prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch, sampler: Any, steps: int
) -> None:
    """For v = alpha e - sigma x0 with the x0 fixed, the path is straight and ends in x0, whatever the steps."""
    truth = torch.linspace(-0.9, 0.9, 2 * 4 * 4 * 4).view(2, 4, 4, 4)

    def perfect(x_t: torch.Tensor, timestep: int, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        # A schedule that ends at zero signal gives the solvers a tiny one instead; this is the one they use.
        alpha_bar = max(float(prior.alphas_cumprod[timestep]), 2.0**-24)
        alpha, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        v = alpha * (x_t - alpha * truth) / sigma - sigma * truth
        return v, v

    monkeypatch.setattr(prior, "predict", perfect)
    pictures = sample(prior, SamplingRecipe(sampler=sampler, steps=steps))
    torch.testing.assert_close(pictures, prior.decode_latents(truth), atol=5e-3, rtol=0)


def test_the_views_are_attended_together(prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    original = prior.predict

    def spy(x: torch.Tensor, t: int, cameras: Cameras, conditioning: Conditioning, views: int) -> Any:
        seen.append((len(cameras), views))
        return original(x, t, cameras, conditioning, views)

    monkeypatch.setattr(prior, "predict", spy)
    sample(prior, views=5)
    assert seen == [(5, 5)] * 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sampler": "euler"}, "--sampler is 'euler', which should be"),
        ({"steps": 0}, "--steps is 0, which should be a whole number from 1 to 1000"),
        ({"steps": 1001}, "--steps is 1001,"),
        ({"rescale": 1.5}, "--rescale is 1.5, which should be a number from 0 to 1"),
        ({"eta": -0.1}, "--eta is -0.1,"),
        ({"eta": 0.5, "sampler": "dpm++"}, "--eta 0.5 needs --sampler ddim"),
    ],
)
def test_nonsense_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        SamplingRecipe(**change)
    assert says in str(caught.value)


def test_samplers_keep_the_schedule_of_the_training(prior: DiffusionPrior) -> None:
    for sampler in ("ddim", "dpm++"):
        config = build_scheduler(prior.schedule, sampler, 3).config
        for key in ("beta_start", "beta_end", "beta_schedule", "prediction_type", "timestep_spacing"):
            assert config[key] == prior.schedule.config[key]


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_every_number_of_steps_stays_in_the_schedule(sampler: Any, spacing: str) -> None:
    trained = DDIMScheduler(timestep_spacing=spacing, steps_offset=int(spacing == "leading"), clip_sample=False)
    for steps in (1, 2, 3, 7, 25, 30, 50, 333, 501, 999, 1000):
        scheduler = build_scheduler(trained, sampler, steps)
        times = scheduler.timesteps.tolist()
        assert 0 <= min(times) <= max(times) <= 999
        assert all(later < earlier for earlier, later in itertools.pairwise(times)), steps
        assert len(times) >= min(steps, 999)
        if spacing == "leading":
            assert times == [t for t in (np.arange(0, 1000, 1000 // steps) + 1)[::-1].tolist() if t < 1000]
        x = torch.ones(1, 1, 2, 2)
        for time in times[:2] + times[-2:]:
            if sampler == "ddim":
                assert bool(scheduler.step(x, time, x).prev_sample.isfinite().all())
    with pytest.raises(UsageError, match="has 1000 timesteps, got --steps 1001"):
        build_scheduler(trained, sampler, 1001)


def test_the_last_strides_of_ddim_are_the_official_ones(prior: DiffusionPrior) -> None:
    """MVDream's sampler for 7 steps: 995, 853, ... 1, and from each to the next; at the end to timestep 0."""
    trained = DDIMScheduler(timestep_spacing="leading", steps_offset=1, set_alpha_to_one=False, clip_sample=False)
    scheduler = build_scheduler(trained, "ddim", 7)
    times = scheduler.timesteps.tolist()
    assert times == [995, 853, 711, 569, 427, 285, 143, 1]
    x, noise = torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 0.25)
    for now, after in itertools.pairwise([*times, 0]):
        a, b = trained.alphas_cumprod[now], trained.alphas_cumprod[after]
        expected = b.sqrt() * (x - (1 - a).sqrt() * noise) / a.sqrt() + (1 - b).sqrt() * noise
        torch.testing.assert_close(scheduler.step(noise, now, x).prev_sample, expected.view_as(x))


@pytest.mark.slow
def test_the_built_in_priors_views_show_something_on_its_background() -> None:
    prior = load_prior("mini")
    text = prior.encode_prompt("a traffic cone", "")
    pictures = sample_views(prior, text, orbit(4), replace(SAMPLING["mini"], sampler="dpm++", steps=12), seed=0)
    corner = pictures[:, :, :6, :6].mean((0, 2, 3))
    torch.testing.assert_close(corner, torch.tensor(prior.background), atol=0.08, rtol=0)
    red = pictures[:, 0] - pictures[:, 2]  # the cone's stripes; the background is blue
    assert bool((red.flatten(1) > 0.3).float().mean(1).gt(0.03).all())
