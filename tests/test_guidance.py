"""The mathematics of score distillation, against values computed by hand and the published fixtures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dream3d import guidance
from dream3d.recipe.generation import GuidanceRecipe
from dream3d.recipe.presets import preset
from dream3d.recipe.scene import Linear

FIXTURES = json.loads((Path(__file__).parent / "data" / "mvdream_fixtures.json").read_text())
CASES = {case["name"]: case for case in FIXTURES["x0_recon_cfg_rescale"]["cases"]}


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def run_case(case: dict[str, Any], mix: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient of one published case, through the same functions as the optimisation."""
    recipe = GuidanceRecipe(guidance_scale=case["guidance_scale"], rescale=mix)
    latents = tensor(case["latents"]).requires_grad_()
    alpha_bar = case["alpha_bar"]
    x_t = guidance.add_noise(latents.detach(), tensor(case["noise"]), alpha_bar)
    x0_text, x0_uncond = (
        guidance.x0_from_prediction(x_t, tensor(case[name]), alpha_bar, "epsilon")
        for name in ("eps_text", "eps_uncond")
    )
    target = guidance.guided_target(x0_text, x0_uncond, case["n_view"], recipe)
    loss = guidance.distillation_loss(latents, target, x_t, tensor(case["noise"]), alpha_bar, recipe)
    loss.backward()
    assert latents.grad is not None
    return loss.detach(), latents.grad


@pytest.mark.parametrize("name", CASES)
def test_published_losses_and_gradients(name: str) -> None:
    case = CASES[name]
    loss, gradient = run_case(case, case["recon_std_rescale"])
    assert float(loss) == pytest.approx(case["expected"]["loss"], rel=1e-6)
    torch.testing.assert_close(gradient, tensor(case["expected"]["grad_latents"]), atol=1e-6, rtol=1e-6)


def test_without_rescale_by_hand() -> None:
    case = CASES["by_hand"]
    loss, gradient = run_case(case, 0.0)
    assert float(loss) == pytest.approx(5.34375)
    torch.testing.assert_close(gradient, tensor(case["expected_without_rescale"]["grad_latents"]))


def test_x0_gradient_is_the_scaled_noise_residual() -> None:
    # Without rescale dL/dz = (sigma / alpha) (e_cfg - noise) / B (docs/method.md, Guidance); .6 / .8 = .75, B = 2.
    case = CASES["by_hand"]
    _, gradient = run_case(case, 0.0)
    residual = tensor(case["expected"]["eps_cfg"]) - tensor(case["noise"])
    torch.testing.assert_close(gradient, 0.75 * residual / 2)


def test_plain_sds_gradient_by_hand() -> None:
    case = CASES["by_hand"]
    recipe = GuidanceRecipe(loss="sds", guidance_scale=5.0, rescale=0.0)
    latents = tensor(case["latents"]).requires_grad_()
    noise = tensor(case["noise"])
    x_t = guidance.add_noise(latents.detach(), noise, 0.64)
    loss = guidance.distillation_loss(latents, tensor(case["expected"]["x0_cfg"]), x_t, noise, 0.64, recipe)
    loss.backward()
    # w = 1 - .64 = .36; e_cfg - noise = [-3, 0 | -5, 2]; over B = 2: .18 times that.
    torch.testing.assert_close(latents.grad, tensor([[[[-0.54, 0.0]]], [[[-0.9, 0.36]]]]))


def test_sigma_weighting_scales_the_loss() -> None:
    latents, target = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    recipe = GuidanceRecipe(weighting="sigma")
    loss = guidance.distillation_loss(latents, target, latents, latents, 0.64, recipe)
    assert float(loss) == pytest.approx(0.36 * 0.5)


def test_v_prediction_by_hand() -> None:
    # alpha = .8, sigma = .6: x0 = .8 * 1 - .6 * .5 = .5
    x0 = guidance.x0_from_prediction(tensor([1.0]), tensor([0.5]), 0.64, "v_prediction")
    torch.testing.assert_close(x0, tensor([0.5]))


def test_v_prediction_at_zero_terminal_snr() -> None:
    # alpha = 0: x_t is pure noise and x0 = -v.
    x0 = guidance.x0_from_prediction(tensor([3.0]), tensor([0.25]), 0.0, "v_prediction")
    assert x0.tolist() == [-0.25]


def test_epsilon_cannot_be_inverted_without_signal() -> None:
    with pytest.raises(ValueError, match="alpha_bar = 0"):
        guidance.x0_from_prediction(tensor([1.0]), tensor([1.0]), 0.0, "epsilon")


@given(st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_both_predictions_invert_the_forward_process(alpha_bar: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=generator)
    x_t = guidance.add_noise(x0, noise, alpha_bar)
    v = alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * x0
    kinds: tuple[tuple[guidance.PredictionType, torch.Tensor], ...] = (("epsilon", noise), ("v_prediction", v))
    for kind, prediction in kinds:
        torch.testing.assert_close(guidance.x0_from_prediction(x_t, prediction, alpha_bar, kind), x0)
    torch.testing.assert_close(guidance.epsilon_from_x0(x_t, x0, alpha_bar), noise)


def test_guidance_in_x0_space_equals_guidance_in_epsilon_space() -> None:
    case = CASES["by_hand"]
    expected = case["expected"]
    x_t = tensor(expected["latents_noisy"])
    x0_text = guidance.x0_from_prediction(x_t, tensor(case["eps_text"]), 0.64, "epsilon")
    x0_uncond = guidance.x0_from_prediction(x_t, tensor(case["eps_uncond"]), 0.64, "epsilon")
    torch.testing.assert_close(guidance.classifier_free_guidance(x0_text, x0_uncond, 5.0), tensor(expected["x0_cfg"]))


def test_rescale_uses_one_factor_per_object_over_all_its_views() -> None:
    text = torch.cat([torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1), torch.tensor([-3.0, 3.0]).view(2, 1, 1, 1)])
    guided = torch.tensor([-2.0, 2.0, -3.0, 3.0]).view(4, 1, 1, 1)
    # First object's spread halves, the second's stays. A per-image spread would be nan, a whole-batch one 0.88.
    rescaled = guidance.rescale_guided(guided, text, views=2, mix=1.0)
    torch.testing.assert_close(rescaled.flatten(), torch.tensor([-1.0, 1.0, -3.0, 3.0]))
    mixed = guidance.rescale_guided(guided, text, views=2, mix=0.5)
    torch.testing.assert_close(mixed.flatten(), torch.tensor([-1.5, 1.5, -3.0, 3.0]))


def test_rescale_off_changes_nothing() -> None:
    guided = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(guidance.rescale_guided(guided, guided * 2, views=4, mix=0.0), guided)


def test_a_batch_must_hold_whole_objects() -> None:
    with pytest.raises(ValueError, match="3 images is not a multiple of 2 views"):
        guidance.rescale_guided(torch.ones(3, 1, 1, 1), torch.ones(3, 1, 1, 1), views=2, mix=0.5)


def test_dynamic_threshold_fixture() -> None:
    fixture = FIXTURES["dynamic_threshold"]
    variant = fixture["latent_variant"]
    shape = (4, 1, 1, 1)
    clamped = guidance.dynamic_threshold(
        tensor(variant["x0_cfg"]).view(shape), tensor(variant["x0_text"]).view(shape), 4, fixture["percentile"]
    )
    torch.testing.assert_close(clamped.flatten(), tensor(variant["expected"]))


def test_dynamic_threshold_is_per_object() -> None:
    # Object 1 is wider than its text (s = 4, c = 2): clipped and halved. Object 2 is narrower: untouched.
    guided = torch.tensor([4.0, -4.0, 1.0, -1.0]).view(4, 1, 1, 1)
    text = torch.tensor([2.0, -2.0, 3.0, -3.0]).view(4, 1, 1, 1)
    clamped = guidance.dynamic_threshold(guided, text, views=2, percentile=1.0)
    assert clamped.flatten().tolist() == [2.0, -2.0, 1.0, -1.0]


def test_every_guidance_option_changes_the_target() -> None:
    generator = torch.Generator().manual_seed(1)
    text, uncond = torch.randn(2, 4, 3, 4, 4, generator=generator)
    base = GuidanceRecipe(guidance_scale=5.0, rescale=0.0)
    plain = guidance.guided_target(text, uncond, 4, base)
    changed = (replace(base, guidance_scale=6.0), replace(base, rescale=0.5), replace(base, dynamic_threshold=0.9))
    for recipe in changed:
        assert not torch.allclose(guidance.guided_target(text, uncond, 4, recipe), plain)


@pytest.mark.parametrize("item", FIXTURES["sds_timestep_range"]["items"], ids=lambda item: str(item["step"]))
def test_published_timestep_range(item: dict[str, Any]) -> None:
    bounds = guidance.timestep_bounds(preset("mvdream").guidance, item["step"], 1000)
    assert bounds == (item["t_min"], item["t_max"])


def test_timestep_range_without_annealing() -> None:
    recipe = GuidanceRecipe(t_min=Linear(0.02, 0.02, 0), t_max=Linear(0.98, 0.98, 0))
    assert guidance.timestep_bounds(recipe, 123, 1000) == (20, 980)


def test_one_denoising_step_is_the_prediction() -> None:
    seen: list[int] = []

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        seen.append(t)
        return x * 3

    assert guidance.denoise(torch.tensor([2.0]), 800, 1, [0.5] * 1000, predict).tolist() == [6.0]
    assert seen == [800]


def test_two_denoising_steps_by_hand() -> None:
    # alpha^2 is .36 at t = 4 and .64 at t = 2. From x = 2 the prediction x0 = x / 2 = 1 leaves the noise
    # (2 - .6 * 1) / .8 = 1.75, so x at t = 2 is .8 * 1 + .6 * 1.75 = 1.85 and the answer half of that.
    alphas = [1.0, 0.9, 0.64, 0.5, 0.36]
    result = guidance.denoise(tensor([2.0]), 4, 2, alphas, lambda x, t: x / 2)
    assert result.tolist() == pytest.approx([0.925])


@given(st.integers(1, 12), st.integers(20, 999))
def test_denoising_with_the_truth_stays_with_the_truth(steps: int, timestep: int) -> None:
    alphas = torch.linspace(0.999, 0.001, 1000).tolist()
    truth = tensor([0.25, -2.0])
    times: list[int] = []

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        times.append(t)
        return truth

    result = guidance.denoise(tensor([1.0, 1.0]), timestep, steps, alphas, predict)
    assert torch.equal(result, truth)
    assert times[0] == timestep
    assert len(times) == steps
    assert times == sorted(times, reverse=True)
    assert times[-1] > 0


def test_chroma_key_by_hand() -> None:
    # Distances from (0.5, 0.5, 0.5): 0, 0.1, 0.2, 0.3 along one axis, and 0.5 = sqrt(0.3^2 + 0.4^2) across two.
    pixels = tensor([[0.5, 0.5, 0.5], [0.6, 0.5, 0.5], [0.5, 0.3, 0.5], [0.5, 0.5, 0.8], [0.8, 0.1, 0.5]])
    opacity = guidance.keyed_opacity(pixels.t().view(1, 3, 1, 5), (0.5, 0.5, 0.5), low=0.1, high=0.3)
    assert opacity.shape == (1, 1, 1, 5)
    assert opacity.flatten().tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-6)


@pytest.mark.parametrize(("share", "kept"), [(0.0, 20), (0.04, 18), (0.05, 18), (0.25, 10), (0.49, 0)])
def test_a_clear_border_is_empty_and_the_inside_stays(share: float, kept: int) -> None:
    opacity = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(0)) + 0.1
    cleared = guidance.clear_border(opacity, share)
    width = (20 - kept) // 2
    inside = slice(width, 20 - width)
    assert torch.equal(cleared[..., inside, inside], opacity[..., inside, inside])
    assert int((cleared > 0).sum()) == 2 * kept * kept


def test_the_target_carries_no_gradient() -> None:
    latents = torch.ones(1, 1, 1, 1, requires_grad=True)
    target = (latents * 3).square()
    (gradient,) = torch.autograd.grad(guidance.x0_reconstruction_loss(latents, target), latents)
    assert float(gradient) == -8.0  # (1 - 9) / 1, not the chain rule through the target
