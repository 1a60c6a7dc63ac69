"""Variational score distillation: the learnt copy beside the field, by hand on a tiny prior."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import MASCOT, OraclePrior
from test_optimise import TINY
from tiny_adapter import write_tiny_adapter
from tiny_prior import write_tiny_prior
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.distill import Distillation, start
from dream3d.errors import CheckpointError, UsageError
from dream3d.generate import generate
from dream3d.guidance import add_noise, diffuse, distillation_loss, epsilon_from_x0
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.memory import MemoryPlan
from dream3d.recipe.generation import GuidanceRecipe, Recipe, TargetRecipe
from dream3d.recipe.presets import preset
from dream3d.recipe.scene import Linear
from dream3d.recipe.vsd import VsdRecipe
from dream3d.run.checkpointer import Checkpointer
from dream3d.run.folder import RunFolder
from dream3d.targets import Target, find_target
from dream3d.vsd import LearntCopy

GUIDANCE = GuidanceRecipe("vsd", guidance_scale=4.0, rescale=0.0, t_min=Linear(0.5, 0.5, 1), t_max=Linear(0.5, 0.5, 1))
RECIPE = replace(TINY.with_steps(4), targets=(TargetRecipe(),), guidance=GUIDANCE, key=None, vsd=VsdRecipe(2, 1e-2))
VIEWS = 2
CAMERAS = orbit(VIEWS)
LATENTS = torch.randn(VIEWS, 4, 4, 4, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPrior:
    return DiffusionPrior(write_tiny_adapter(write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")))


@pytest.fixture
def copy(prior: DiffusionPrior) -> LearntCopy:
    return LearntCopy(prior, VsdRecipe(2, 1e-2), together=True, seed=0)


def told(prior: DiffusionPrior) -> Conditioning:
    return prior.encode_prompt("a red chair", "")


def found(prior: DiffusionPrior, recipe: Recipe = RECIPE, text: Conditioning | None = None) -> Target:
    noise = torch.Generator().manual_seed(1)
    return find_target(prior, recipe, 0, CAMERAS, LATENTS, text or told(prior), noise)


def epsilons(prior: DiffusionPrior, target: Target, text: Conditioning) -> tuple[Tensor, Tensor]:
    """What the prior takes for noise, with the prompt and without."""
    pair = prior.predict_x0(target.x_t, target.timestep, target.cameras, text, VIEWS)
    first, second = (epsilon_from_x0(target.x_t, x0, target.alpha_bar) for x0 in pair)
    return first, second


def gradient_of(target: Target) -> Tensor:
    latents = LATENTS.clone().requires_grad_()
    target.loss(latents, GUIDANCE).backward()
    assert latents.grad is not None
    return latents.grad


def awake(copy: LearntCopy) -> None:
    """Matrices as after much learning: none of them is zero."""
    generator = torch.Generator().manual_seed(3)
    for parameter in copy.parameters.values():
        parameter.data = torch.randn(parameter.shape, generator=generator)


def test_at_first_the_gradient_is_that_of_guidance_alone(prior: DiffusionPrior, copy: LearntCopy) -> None:
    # Before it has learnt, e_copy = e_text: w (e_uncond + s (e_text - e_uncond) - e_text) / B.
    target = found(prior)
    text, uncond = epsilons(prior, target, told(prior))
    expected = (1 - target.alpha_bar) * 3.0 * (text - uncond) / VIEWS
    got = gradient_of(copy.compare(target, told(prior), VIEWS))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_the_gradient_by_hand_of_a_copy_that_has_learnt(
    prior: DiffusionPrior, copy: LearntCopy, tmp_path: Path
) -> None:
    awake(copy)
    other = DiffusionPrior(write_tiny_prior(tmp_path / "tiny"))  # the same random weights, to which B A is added
    for name, layer in other.unet.named_modules():
        if f"{name}.lora_A.weight" in copy.parameters:
            down, up = (copy.parameters[f"{name}.lora_{letter}.weight"] for letter in "AB")
            layer.weight.data = layer.weight.data + up.data @ down.data
    target = found(prior)
    learnt, _ = epsilons(other, target, told(prior))
    text, uncond = epsilons(prior, target, told(prior))
    expected = (1 - target.alpha_bar) * (uncond + 4.0 * (text - uncond) - learnt) / VIEWS
    got = gradient_of(copy.compare(target, told(prior), VIEWS))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)
    assert float((text - learnt).abs().max()) > 0.05


def error_of(copy: LearntCopy, prior: DiffusionPrior) -> float:
    """Of the noise in the field's views, at three timesteps."""
    errors = []
    for timestep in (100, 500, 900):
        alpha_bar = float(prior.alphas_cumprod[timestep])
        noise = torch.randn(LATENTS.shape, generator=torch.Generator().manual_seed(timestep))
        x_t = add_noise(LATENTS, noise, alpha_bar)
        target = Target(CAMERAS, LATENTS, x_t, noise, alpha_bar, timestep, (0, 999))
        errors.append((copy.compare(target, told(prior), VIEWS).noise - noise).square().mean())
    return float(torch.stack(errors).mean())


def test_it_learns_the_views_and_leaves_the_prior_as_it_is(prior: DiffusionPrior) -> None:
    copy = LearntCopy(prior, VsdRecipe(4, 0.1), together=True, seed=0)
    weights = {name: value.clone() for name, value in prior.unet.state_dict().items()}
    before, error = prior.predict(LATENTS, 300, CAMERAS, told(prior), VIEWS), error_of(copy, prior)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        copy.learn(LATENTS, CAMERAS, told(prior), VIEWS, generator)
    assert error_of(copy, prior) < 0.98 * error  # all that matrices in attention can do to random convolutions
    after = prior.predict(LATENTS, 300, CAMERAS, told(prior), VIEWS)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    now = prior.unet.state_dict()
    assert now.keys() == weights.keys()
    assert all(torch.equal(value, now[name]) for name, value in weights.items())


def test_the_frozen_weights_are_held_once(prior: DiffusionPrior, copy: LearntCopy) -> None:
    own = {value.data_ptr() for value in prior.unet.parameters()}
    matrices = {id(value) for value in copy.parameters.values()}
    others = [value for value in copy.unet.parameters() if id(value) not in matrices]
    assert {value.data_ptr() for value in others} == own
    assert not any(value.requires_grad for value in others)
    assert 0 < sum(value.numel() for value in copy.parameters.values()) < sum(map(torch.numel, others))


def test_an_update_that_is_not_finite_is_left_out(prior: DiffusionPrior, copy: LearntCopy) -> None:
    before = {name: value.clone() for name, value in copy.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    copy.learn(torch.full_like(LATENTS, float("nan")), CAMERAS, told(prior), VIEWS, generator)
    assert all(torch.equal(value, before[name]) for name, value in copy.state_dict().items())


def test_beside_a_prior_in_half_precision_the_matrices_are_whole(tmp_path: Path) -> None:
    prior = DiffusionPrior(write_tiny_prior(tmp_path / "tiny"), memory=MemoryPlan(precision="bf16"))
    copy = LearntCopy(prior, VsdRecipe(2, 1e-5), together=True, seed=0)
    before = {name: value.detach().clone() for name, value in copy.parameters.items()}
    loss = copy.learn(LATENTS, CAMERAS, told(prior), VIEWS, torch.Generator().manual_seed(0))
    assert bool(loss.isfinite())
    assert {value.dtype for value in copy.parameters.values()} == {torch.float32}
    moved = [name for name, value in copy.parameters.items() if not torch.equal(value, before[name])]
    assert (
        sum(".lora_B." in name for name in moved) > len(before) / 4
    )  # a half of them; half precision would round 1e-5
    assert copy.compare(found(prior), told(prior), VIEWS).noise.dtype == torch.float32


def test_its_loss_is_the_diffusion_loss_by_hand(prior: DiffusionPrior, copy: LearntCopy) -> None:
    drawn = torch.Generator().manual_seed(7)
    timestep = int(torch.randint(0, 1000, (1,), generator=drawn))  # one for both views: they are attended together
    noise = torch.randn(LATENTS.shape, generator=drawn)
    alpha_bar = prior.alphas_cumprod[[timestep] * VIEWS].float()
    x_t, wanted = diffuse(LATENTS, noise, alpha_bar, prior.prediction_type)
    said, _ = prior.predict(x_t, timestep, CAMERAS, told(prior), VIEWS)
    loss = copy.learn(LATENTS, CAMERAS, told(prior), VIEWS, torch.Generator().manual_seed(7))
    assert float(loss) == pytest.approx(float((said - wanted).square().sum() / VIEWS), rel=1e-4)


def test_of_a_single_view_prior_it_alone_hears_of_cameras(prior: DiffusionPrior) -> None:
    recipe = replace(RECIPE, guidance=replace(GUIDANCE, prior_views="alone"))
    copy, target = LearntCopy(prior, VsdRecipe(), together=False, seed=0), found(prior, recipe)
    said = copy.compare(target, told(prior), VIEWS).noise
    turned = copy.compare(replace(target, cameras=orbit(VIEWS, elevation_deg=60)), told(prior), VIEWS).noise
    assert not torch.equal(said, turned)
    other = replace(target, x_t=torch.cat([target.x_t[:1], target.x_t[1:] + 1]))
    torch.testing.assert_close(copy.compare(other, told(prior), VIEWS).noise[0], said[0])  # each view by itself


def test_it_is_told_of_pictures_as_the_prior_is(prior: DiffusionPrior, copy: LearntCopy) -> None:
    generator = torch.Generator().manual_seed(2)
    tokens, blank = (torch.randn(1, 3, 12, generator=generator) for _ in range(2))
    text = told(prior).with_images(tokens, blank, 0.7, 0.4)
    target = found(prior, text=text)
    expected, _ = epsilons(prior, target, text)
    got = copy.compare(target, text, VIEWS).noise
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(got, copy.compare(target, told(prior), VIEWS).noise, atol=1e-2)


def after(state: Distillation, steps: range, prior: DiffusionPrior) -> Distillation:
    for step in steps:
        state.step(step, told(prior))
    return state


def test_a_run_goes_on_exactly_with_the_copy_as_it_was(prior: DiffusionPrior) -> None:
    whole = after(start(RECIPE, prior, 4), range(4), prior).state_dict()
    half = {name: value.clone() for name, value in after(start(RECIPE, prior, 4), range(2), prior).state_dict().items()}
    names = {name.split(".")[1] for name in half if name.startswith("copy.")}
    assert names == {"lora", "step", "exp_avg", "exp_avg_sq"}
    again = start(RECIPE, prior, 5)  # all of another seed until it is loaded
    again.load_state_dict(2, half)
    resumed = after(again, range(2, 4), prior).state_dict()
    assert resumed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    lora = next(name for name in half if name.startswith("copy.lora"))
    for damaged in (
        {name: value for name, value in half.items() if name != lora},
        {**half, lora: half[lora] * torch.nan},
    ):
        with pytest.raises(CheckpointError, match=r"copy\.lora"):
            start(RECIPE, prior, 4).load_state_dict(2, damaged)


def test_what_is_kept_of_a_finished_run_has_no_copy(prior: DiffusionPrior, tmp_path: Path) -> None:
    state = start(RECIPE, prior, 4)
    with RunFolder(tmp_path / "run", {}) as run:
        Checkpointer(run, 0).keep_field(state)
        kept = run.own("field.safetensors").read_bytes()
    assert b"field." in kept
    assert b"copy." not in kept


def test_the_copy_changes_the_field(prior: DiffusionPrior) -> None:
    fields = []
    for recipe in (RECIPE, replace(RECIPE, guidance=replace(GUIDANCE, loss="sds"), vsd=None)):
        state = after(start(recipe, prior, 4), range(2), prior)
        fields.append(torch.cat([value.flatten() for value in state.scene.field.state_dict().values()]))
        assert (state.copy is None) == (recipe.vsd is None)
    assert not torch.equal(*fields)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="loss vsd, which needs targets of one update each"):
        replace(RECIPE, targets=(TargetRecipe(updates=2),))
    with pytest.raises(UsageError, match="needs a prior with a UNet"):
        start(RECIPE, OraclePrior(MASCOT), 0)
    out, run = tmp_path / "x.glb", tmp_path / "run"
    with pytest.raises(UsageError, match="needs a prior with a UNet"):
        generate("x", prior=OraclePrior(MASCOT), recipe=RECIPE, seed=0, device="cpu", out=out, run_dir=run)
    assert not run.exists()  # it is said before anything is written


def test_without_peft_the_loss_is_named(prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_peft(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "peft":
            raise ModuleNotFoundError("No module named 'peft'", name="peft")
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(UsageError, match=r"guidance.loss=vsd needs peft; pip install .*, or use another loss"):
        start(RECIPE, prior, 0)


def test_presets_and_recipes_of_before() -> None:
    for name in ("mini", "mvdream"):
        recipe, plain = preset(f"{name}-vsd"), preset(name)
        assert Recipe.from_dict(recipe.to_dict()) == recipe
        assert recipe.cameras == plain.cameras
        assert "vsd" not in plain.to_dict()  # the bytes of its assets stay as they were
        assert recipe.with_steps(10).guidance.t_max.until_step == 5


def test_the_loss_by_hand() -> None:
    z, x0, x_t, noise = (torch.full((2, 1, 1, 1), value, requires_grad=value == 1.0) for value in (1.0, 2.0, 3.0, 0.5))
    distillation_loss(z, x0, x_t, noise, 0.36, GUIDANCE).backward()
    assert z.grad is not None
    # (1 - 0.36) ((3 - 0.6 * 2) / 0.8 - 0.5) / 2 for each of two
    assert z.grad.flatten().tolist() == pytest.approx([0.64 * 1.75 / 2] * 2)
