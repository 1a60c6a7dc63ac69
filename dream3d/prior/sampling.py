"""Sampling views of an object from a prior by itself: what the 3D run would be steered by."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from dream3d.bounds import Between, Options, Share
from dream3d.cameras import Cameras
from dream3d.errors import UsageError
from dream3d.guidance import classifier_free_guidance, rescale_guided
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.folder import check_finite, known_arguments
from dream3d.recipe.generation import GuidanceScale

SamplerName = Literal["ddim", "dpm++"]
MAX_STEPS = 1000
"""Timesteps of the schedules that the priors were trained with."""


@dataclass(frozen=True)
class SamplingRecipe(Options):
    """How noise becomes views. Steps are those of MVDream's command line, the scale its demo's (docs/method.md)."""

    sampler: SamplerName = "ddim"
    """``ddim`` (Song et al. 2021) or ``dpm++``: DPM-Solver++ of order 2 (Lu et al. 2022), good in fewer steps."""
    steps: Annotated[int, Between(1, MAX_STEPS)] = 50
    guidance_scale: GuidanceScale = 7.5
    rescale: Share = 0.0
    """How much of the CFG-rescaled prediction is mixed in (Lin et al. 2023); 0 turns it off."""
    eta: Share = 0.0
    """Noise that ``ddim`` adds between steps; 0 is deterministic, 1 is as random as DDPM."""

    def __post_init__(self) -> None:
        """See :class:`Options`; raises UsageError too for noise that a sampler cannot add."""
        super().__post_init__()
        if self.eta and self.sampler != "ddim":
            raise UsageError(f"--eta {self.eta} needs --sampler ddim; {self.sampler} adds no noise")


SAMPLING: dict[str, SamplingRecipe] = {
    # Its schedule ends at zero signal, which wants the rescale (Lin et al. 2023, section 3.4).
    "mini": SamplingRecipe(steps=25, guidance_scale=5.0, rescale=0.7),
}


def sampling_for(preset: str) -> SamplingRecipe:
    """Defaults for a prior by the preset that it recommends; MVDream's for all that have none of their own."""
    return SAMPLING.get(preset, SamplingRecipe())


def sample_views(
    prior: DiffusionPrior, conditioning: Conditioning, cameras: Cameras, recipe: SamplingRecipe, seed: int
) -> Tensor:
    """(N, 3, S, S) pictures in [0, 1] of one object from N cameras, which are attended together.

    All noise comes from a generator with ``seed`` on the CPU: the same seed gives the same pictures on one device.
    """
    return _sample(prior, conditioning, cameras.to(prior.device), len(cameras), recipe, seed)


def sample_pictures(
    prior: DiffusionPrior, conditioning: Conditioning, count: int, recipe: SamplingRecipe, seed: int
) -> Tensor:
    """(count, 3, S, S) pictures in [0, 1], each of an object of its own, in image mode: no camera, no other view.

    All noise comes from a generator with ``seed`` on the CPU, as in :func:`sample_views`.
    """
    return _sample(prior, conditioning, None, count, recipe, seed)


def _sample(
    prior: DiffusionPrior,
    conditioning: Conditioning,
    cameras: Cameras | None,
    count: int,
    recipe: SamplingRecipe,
    seed: int,
) -> Tensor:
    """(count, 3, S, S): views that are attended together if there are cameras, else single pictures."""
    generator = torch.Generator().manual_seed(seed)
    config, views = prior.unet.config, 1 if cameras is None else count
    shape = (count, config.in_channels, config.sample_size, config.sample_size)
    scheduler = build_scheduler(prior.schedule, recipe.sampler, recipe.steps)
    latents = torch.randn(shape, generator=generator).to(prior.device) * scheduler.init_noise_sigma
    noise: dict[str, Any] = {"generator": generator}
    if recipe.sampler == "ddim":
        # From zero signal, eta = 1 asks for the square root of a difference that rounding can put below zero.
        noise["eta"] = min(recipe.eta, 1 - 1e-6)
    for timestep in scheduler.timesteps.tolist():
        conditional, unconditional = prior.predict(latents, timestep, cameras, conditioning, views)
        guided = classifier_free_guidance(conditional, unconditional, recipe.guidance_scale)
        guided = rescale_guided(guided, conditional, views, recipe.rescale)
        latents = scheduler.step(guided, timestep, latents, **noise).prev_sample
    images = prior.decode_latents(latents)
    for values in (latents, images):
        check_finite(values, f"the views that prior {prior.name!r} sampled", "colours")
    return images


def build_scheduler(
    trained: DDIMScheduler, sampler: SamplerName, steps: int
) -> DDIMScheduler | DPMSolverMultistepScheduler:
    """A fresh sampler of so many steps on the noise schedule that a prior was trained with.

    With spacing "leading", MVDream's, timesteps are counted as its sampler does, from the first upwards: if the number
    does not divide the schedule's it takes more of them, and starts from more noise than diffusers would.
    Raises UsageError for more steps than the schedule has.
    """
    total = trained.config.num_train_timesteps
    if steps > total:
        raise UsageError(f"this prior's noise schedule has {total} timesteps, got --steps {steps}")
    scheduler: DDIMScheduler | DPMSolverMultistepScheduler
    if sampler == "ddim":
        scheduler = DDIMScheduler(**known_arguments(DDIMScheduler, trained.config))
    else:
        # The last step lands on x0 itself: no noise is left for a later one to take away.
        scheduler = DPMSolverMultistepScheduler(
            **known_arguments(DPMSolverMultistepScheduler, trained.config),
            algorithm_type="dpmsolver++",
            final_sigmas_type="zero",
        )
    with warnings.catch_warnings():
        # diffusers hands a torch tensor to numpy in a way that numpy 2 deprecates; the result is the same.
        warnings.filterwarnings("ignore", category=DeprecationWarning, message="__array__")
        scheduler.set_timesteps(steps)
        times = list(dict.fromkeys(scheduler.timesteps.tolist()))  # where many are rounded, some come twice
        if trained.config.timestep_spacing == "leading":
            times = list(range(trained.config.steps_offset, total, total // steps))[::-1]
        if sampler == "ddim":  # whose stride stays that of so many steps
            scheduler.timesteps = torch.tensor(times)
        elif times != scheduler.timesteps.tolist():
            scheduler.set_timesteps(timesteps=times)
    return scheduler
