"""Score distillation as pure functions on tensors: MVDream's x0-reconstruction loss and its parts.

Batches are (B, C, H, W) with the views of one object consecutive. Everything up to the target is
computed without gradients; the losses are differentiable in ``latents`` only. Source of the formulas:
MVDream (Shi et al. 2023), section 3.2 and appendix A.2, and its released guidance; numbers in docs/method.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from dream3d.recipe.generation import GuidanceRecipe

PredictionType = Literal["epsilon", "v_prediction"]


def timestep_bounds(recipe: GuidanceRecipe, step: int, train_timesteps: int) -> tuple[int, int]:
    """Inclusive bounds of the annealed timestep range at a step (docs/method.md, Timestep schedule).

    Truncated like the released code: int(1000 * x), so that step 500 of MVDream's 8000 gives 919.
    """
    low, high = recipe.t_min.at(step), recipe.t_max.at(step)
    return int(low * train_timesteps), int(high * train_timesteps)


def add_noise(latents: Tensor, noise: Tensor, alpha_bar: float) -> Tensor:
    """The forward process: sqrt(alpha_bar) * latents + sqrt(1 - alpha_bar) * noise."""
    return alpha_bar**0.5 * latents + (1 - alpha_bar) ** 0.5 * noise


def diffuse(x0: Tensor, noise: Tensor, alpha_bar: Tensor, kind: PredictionType) -> tuple[Tensor, Tensor]:
    """Noisy latents and the network's target, both (N, C, h, w), at signal variances ``alpha_bar`` (N,).

    The target is the noise (Ho et al. 2020), or v = alpha * noise - sigma * x0 (Salimans & Ho 2022).
    """
    alpha = alpha_bar.sqrt()[:, None, None, None]
    sigma = (1 - alpha_bar).sqrt()[:, None, None, None]
    target = noise if kind == "epsilon" else alpha * noise - sigma * x0
    return alpha * x0 + sigma * noise, target


def x0_from_prediction(x_t: Tensor, prediction: Tensor, alpha_bar: float, kind: PredictionType) -> Tensor:
    """The clean latents that a network output stands for.

    ``epsilon``: (x_t - sigma e) / alpha. ``v_prediction`` (Salimans & Ho 2022): alpha x_t - sigma v,
    which stays finite at zero terminal SNR (alpha = 0).
    """
    alpha, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    if kind == "epsilon":
        if alpha == 0:
            raise ValueError("epsilon prediction cannot be inverted at zero signal (alpha_bar = 0)")
        return (x_t - sigma * prediction) / alpha
    return alpha * x_t - sigma * prediction


def epsilon_from_x0(x_t: Tensor, x0: Tensor, alpha_bar: float) -> Tensor:
    """The noise that turns ``x0`` into ``x_t``: (x_t - alpha x0) / sigma."""
    return (x_t - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5


def classifier_free_guidance(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """uncond + scale * (cond - uncond) (Ho & Salimans 2022).

    The same in epsilon, v or x0 space, since these are affine in each other at a fixed x_t.
    """
    return unconditional + scale * (conditional - unconditional)


def _per_object(values: Tensor, views: int) -> Tensor:
    if values.shape[0] % views:
        raise ValueError(f"a batch of {values.shape[0]} images is not a multiple of {views} views")
    return values.reshape(values.shape[0] // views, -1)


def _to_batch(per_object: Tensor, like: Tensor, views: int) -> Tensor:
    return per_object.repeat_interleave(views).view(-1, *([1] * (like.dim() - 1)))


def rescale_guided(x0_cfg: Tensor, x0_text: Tensor, views: int, mix: float) -> Tensor:
    """CFG rescale (Lin et al. 2023): bring the guided x0 back to the spread of the unguided one.

    One factor per object from the unbiased standard deviation over (views, C, H, W); ``mix`` in [0, 1]
    blends the rescaled with the unscaled (0 returns ``x0_cfg``).
    """
    if mix == 0:
        return x0_cfg
    spread_text = _per_object(x0_text, views).std(-1) + 1e-8
    spread_cfg = _per_object(x0_cfg, views).std(-1) + 1e-8
    factor = _to_batch(spread_text / spread_cfg, x0_cfg, views)
    return mix * factor * x0_cfg + (1 - mix) * x0_cfg


def dynamic_threshold(x0_cfg: Tensor, x0_text: Tensor, views: int, percentile: float) -> Tensor:
    """Clamp a guided x0 to its percentile and shrink it to the unguided one's (latent form of Imagen's rule).

    Per object over all its views: s = quantile(|x0_cfg|), c = quantile(|x0_text|); where s > c the
    guided latents are clipped to [-s, s] and scaled by c / s. Imagen (Saharia et al. 2022, section 2.3)
    uses c = 1, which fits pixels in [-1, 1] but not latents.
    """
    s = _per_object(x0_cfg, views).abs().quantile(percentile, dim=-1)
    c = _per_object(x0_text, views).abs().quantile(percentile, dim=-1)
    limit = _to_batch(s, x0_cfg, views)
    scale = _to_batch(torch.where(s > c, c / s.clamp_min(1e-8), torch.ones_like(s)), x0_cfg, views)
    clipped = torch.maximum(torch.minimum(x0_cfg, limit), -limit)
    return torch.where(_to_batch(s > c, x0_cfg, views), clipped * scale, x0_cfg)


def guided_target(x0_text: Tensor, x0_uncond: Tensor, views: int, recipe: GuidanceRecipe) -> Tensor:
    """What the latents should become: CFG, then rescale, then the dynamic threshold, each if turned on."""
    guided = classifier_free_guidance(x0_text, x0_uncond, recipe.guidance_scale)
    guided = rescale_guided(guided, x0_text, views, recipe.rescale)
    if recipe.dynamic_threshold is not None:
        guided = dynamic_threshold(guided, x0_text, views, recipe.dynamic_threshold)
    return guided


def denoise(
    x_t: Tensor, timestep: int, steps: int, alphas_cumprod: Sequence[float], predict: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Clean latents from ``x_t`` by ``steps`` evenly spaced deterministic DDIM steps (Song et al. 2021, eq. 12).

    ``predict(x, t)`` gives the (guided) x0 at a timestep. One step is ``predict`` itself, MVDream's
    target. A single prediction from much noise is the blurred mean of all that could be there; a few
    steps commit to one of them, which a small prior needs to get past soft shapes.
    """
    times = [round(timestep * (steps - index) / steps) for index in range(steps)]
    x0 = predict(x_t, timestep)
    for previous, current in itertools.pairwise(times):
        noise = epsilon_from_x0(x_t, x0, alphas_cumprod[previous])
        x_t = add_noise(x0, noise, alphas_cumprod[current])
        x0 = predict(x_t, current)
    return x0


def keyed_opacity(images: Tensor, background: tuple[float, float, float], low: float, high: float) -> Tensor:
    """Chroma key: (B, 3, H, W) in [0, 1] -> opacity (B, 1, H, W) in [0, 1].

    0 up to the RGB distance ``low`` from the background's colour, 1 from ``high`` on, linear between.
    """
    away = (images - images.new_tensor(background)[:, None, None]).square().sum(1, keepdim=True).sqrt()
    return ((away - low) / (high - low)).clamp(0, 1)


def clear_border(opacity: Tensor, share: float) -> Tensor:
    """(B, 1, S, S) opacities with 0 along the edges, in a frame as wide as a share (0 to 0.5) of the side."""
    width = round(share * opacity.shape[-1])
    inside = torch.zeros_like(opacity)
    kept = slice(width, opacity.shape[-1] - width)
    inside[..., kept, kept] = opacity[..., kept, kept]
    return inside


def x0_reconstruction_loss(latents: Tensor, target: Tensor) -> Tensor:
    """0.5 * sum((latents - target)^2) / B with B images; gradient (latents - target) / B (MVDream, eq. 2)."""
    return 0.5 * (latents - target.detach()).square().sum() / latents.shape[0]


def sds_loss(latents: Tensor, target: Tensor, x_t: Tensor, noise: Tensor, alpha_bar: float) -> Tensor:
    """Plain SDS (Poole et al. 2022, equation 3) with w(t) = 1 - alpha_bar: gradient w (e - noise) / B.

    ``e`` is the noise that the guided ``target`` implies. The value is a surrogate,
    half the squared gradient, chosen because its own gradient is exact. With what a learnt copy of the prior takes for
    noise in the place of ``noise`` it is VSD (Wang et al. 2023, equation 9; see :mod:`dream3d.vsd`).
    """
    gradient = (1 - alpha_bar) * (epsilon_from_x0(x_t, target, alpha_bar) - noise)
    return 0.5 * (latents - (latents - gradient).detach()).square().sum() / latents.shape[0]


def distillation_loss(
    latents: Tensor, target: Tensor, x_t: Tensor, noise: Tensor, alpha_bar: float, recipe: GuidanceRecipe
) -> Tensor:
    """The loss of a recipe: ``x0`` with its weighting of timesteps, ``sds``, or ``vsd`` with the copy's noise."""
    if recipe.loss in ("sds", "vsd"):
        return sds_loss(latents, target, x_t, noise, alpha_bar)
    weight = 1 - alpha_bar if recipe.weighting == "sigma" else 1.0
    return weight * x0_reconstruction_loss(latents, target)
