"""What the renders should become: the prior is asked once, and its answer serves one update of the field or many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.cameras import Cameras, look_at_origin, sample_orthogonal
from dream3d.errors import CheckpointError
from dream3d.guidance import (
    add_noise,
    clear_border,
    denoise,
    distillation_loss,
    guided_target,
    keyed_opacity,
    timestep_bounds,
)
from dream3d.prior.base import MultiViewPrior
from dream3d.prior.conditioning import Conditioning
from dream3d.recipe.generation import GuidanceRecipe, Recipe, TargetRecipe


@dataclass(frozen=True)
class KeyedImages:
    """A target's images; cut out of their background, if the recipe has a key (see ``KeyRecipe``)."""

    images: Tensor
    """(N, 3, S, S) in [0, 1]."""
    opacity: Tensor
    """(N, 1, S, S) in [0, 1]: where an image is not the background; all ones without a key."""

    def replace_background(self, renders: Tensor) -> Tensor:
        """Renders (N, 3, S, S) inside the key, the target's own images outside: no colour is learnt there."""
        return torch.lerp(self.images, renders, self.opacity)

    def color_loss(self, color: Tensor) -> Tensor:
        """Mean absolute difference of rendered colours (N, H, W, 3) and the images, inside the key."""
        wanted, inside = (resized(one, color.shape[1]) for one in (self.images, self.opacity))
        return ((color - wanted).abs() * inside).mean()


def resized(images: Tensor, size: int) -> Tensor:
    """(N, C, S, S) averaged over the pixels of (N, size, size, C)."""
    return F.interpolate(images, (size, size), mode="area").movedim(1, -1)


@dataclass(frozen=True)
class Target:
    """The prior's answer to one set of renders."""

    cameras: Cameras
    """N, the views of one object consecutive."""
    x0: Tensor
    """(N, C, h, w) guided clean latents."""
    x_t: Tensor
    """(N, C, h, w) what the prior was shown."""
    noise: Tensor
    """(N, C, h, w) what of it was noise; with VSD, what the learnt copy takes for it."""
    alpha_bar: float
    timestep: int
    timestep_range: tuple[int, int]
    """Bounds that the timestep was drawn from, inclusive."""
    keyed: KeyedImages | None = None
    """The answer as images, if the recipe's key or loss needs them."""

    def loss(self, latents: Tensor, recipe: GuidanceRecipe) -> Tensor:
        """The recipe's distillation loss of latents (N, C, h, w) against this target."""
        return distillation_loss(latents, self.x0, self.x_t, self.noise, self.alpha_bar, recipe)

    def pick(self, indices: Tensor) -> Target:
        """The target of some of the views."""
        keyed = self.keyed and KeyedImages(self.keyed.images[indices], self.keyed.opacity[indices])
        cameras = Cameras(self.cameras.c2w[indices], self.cameras.fovy_deg[indices])
        x0, x_t, noise = (one[indices] for one in (self.x0, self.x_t, self.noise))
        return replace(self, cameras=cameras, x0=x0, x_t=x_t, noise=noise, keyed=keyed)

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of a target, for a checkpoint."""
        state = {name: getattr(self, name) for name in ("x0", "x_t", "noise")}
        state |= {"c2w": self.cameras.c2w, "fovy_deg": self.cameras.fovy_deg}
        state["timesteps"] = torch.tensor([self.timestep, *self.timestep_range])
        return state | ({} if self.keyed is None else {"images": self.keyed.images, "opacity": self.keyed.opacity})

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], prior: MultiViewPrior) -> Target:
        """What :meth:`state_dict` described, on the device of its tensors; CheckpointError for another timestep."""
        timestep, low, high = (int(number) for number in state["timesteps"])
        alphas_cumprod = prior.alphas_cumprod.tolist()
        if not 0 <= low <= timestep <= high < len(alphas_cumprod):
            raise CheckpointError(f"a target is of timestep {timestep} of {low} to {high}")
        return cls(
            Cameras(state["c2w"], state["fovy_deg"]),
            state["x0"],
            state["x_t"],
            state["noise"],
            alphas_cumprod[timestep],
            timestep,
            (low, high),
            KeyedImages(state["images"], state["opacity"]) if "images" in state else None,
        )


def target_cameras(
    recipe: Recipe, asked: TargetRecipe, objects: int, views: int, generator: torch.Generator
) -> Cameras:
    """Cameras of a target: those of the recipe's range, with the target's own number of views and elevations.

    ``views`` is the prior's number. ``objects`` groups follow one another in the batch.
    """
    cameras = sample_orthogonal(recipe.cameras, objects, asked.views or views, generator)
    if not asked.elevations_deg:
        return cameras
    position = cameras.c2w[:, :3, 3]
    elevation = torch.tensor(asked.elevations_deg).repeat(len(cameras))[: len(cameras)]
    azimuth = torch.rad2deg(torch.atan2(position[:, 1], position[:, 0]))
    return Cameras(look_at_origin(elevation, azimuth, position.norm(dim=-1)), cameras.fovy_deg)


@torch.no_grad()
def find_target(
    prior: MultiViewPrior,
    recipe: Recipe,
    step: int,
    cameras: Cameras,
    latents: Tensor,
    conditioning: Conditioning,
    generator: torch.Generator,
) -> Target:
    """Noise the renders' latents (N, C, h, w) and let the prior say what they should become; one timestep for all."""
    asked, _ = recipe.target_at(step)
    guidance, alphas_cumprod = recipe.guidance, prior.alphas_cumprod.tolist()
    views = asked.views or prior.views
    if asked.noise is None:
        low, high = timestep_bounds(guidance, step, len(alphas_cumprod))
        timestep = int(torch.randint(low, high + 1, (1,), generator=generator))
    else:
        low = high = timestep = round(asked.noise * (len(alphas_cumprod) - 1))
    noise = torch.randn(latents.shape, generator=generator).to(latents, non_blocking=True)
    # A schedule may leave some signal in its last step; a target from noise alone has none.
    x_t = noise.clone() if asked.noise == 1 else add_noise(latents, noise, alphas_cumprod[timestep])

    told, together = (cameras, views) if guidance.prior_views == "together" else (None, 1)

    def predict(x: Tensor, t: int) -> Tensor:
        return guided_target(*prior.predict_x0(x, t, told, conditioning, together), together, guidance)

    x0 = denoise(x_t, timestep, asked.denoise_steps, alphas_cumprod, predict)
    target = Target(cameras, x0, x_t, noise, alphas_cumprod[timestep], timestep, (low, high))
    if not _is_decoded(recipe):
        return target
    images = prior.decode_latents(x0)
    opacity = torch.ones_like(images[:, :1])
    if recipe.key is not None:
        opacity = keyed_opacity(images, prior.background, recipe.key.low, recipe.key.high)
        opacity = clear_border(opacity, recipe.key.border)
    return replace(target, keyed=KeyedImages(images, opacity))


@torch.no_grad()
def blank_target(prior: MultiViewPrior, recipe: Recipe, step: int, device: torch.device) -> Target:
    """A target of a step in names, shapes and types, all zeros."""
    asked, _ = recipe.target_at(step)
    cameras = target_cameras(recipe, asked, recipe.stage_at(step).objects, prior.views, torch.Generator())
    generator = torch.Generator().manual_seed(0)
    latent = prior.encode_images(torch.zeros(1, 3, prior.image_size, prior.image_size, device=device), generator)
    zeros = latent.new_zeros(len(cameras), *latent.shape[1:])
    keyed = None
    if _is_decoded(recipe):
        blank = torch.zeros(len(cameras), 3, prior.image_size, prior.image_size)
        keyed = KeyedImages(blank, blank[:, :1])
    return Target(cameras, zeros, zeros, zeros, 1.0, 0, (0, 0), keyed)


def _is_decoded(recipe: Recipe) -> bool:
    return recipe.key is not None or recipe.guidance.loss == "images"
