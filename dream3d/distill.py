"""One step of score distillation: cameras -> render -> denoise -> loss -> update. The loop is in ``generate.py``.

Read top to bottom, :meth:`Distillation.step` is the method. To change it, change it here: the formulas are in
``guidance.py``, what is rendered in ``render/scene.py``, every number in ``recipe/generation.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.cameras import Cameras, sample_orthogonal
from dream3d.errors import CheckpointError
from dream3d.guidance import add_noise, denoise, distillation_loss, guided_target, keyed_opacity, timestep_bounds
from dream3d.prior.base import MultiViewPrior, TextContext
from dream3d.recipe.generation import GuidanceRecipe, Recipe
from dream3d.render.light import sample_light
from dream3d.render.renderer import Light, Rendering
from dream3d.render.scene import Scene, build_scene
from dream3d.run.progress import StepReport

_STREAMS = ("init", "cameras", "render", "occupancy", "noise", "shading")


@dataclass(frozen=True)
class KeyedImages:
    """A target's images, cut out of their background (see ``KeyRecipe``)."""

    images: Tensor
    """(N, 3, S, S) in [0, 1]."""
    opacity: Tensor
    """(N, 1, S, S) in [0, 1]: where an image is not the background."""


@dataclass(frozen=True)
class Target:
    """What the latents of one set of renders should become."""

    x0: Tensor
    """(N, C, h, w) guided clean latents."""
    keyed: KeyedImages | None
    x_t: Tensor
    noise: Tensor
    alpha_bar: float
    timestep: int
    timestep_range: tuple[int, int]

    def loss(self, latents: Tensor, recipe: GuidanceRecipe) -> Tensor:
        """The recipe's distillation loss of latents (N, C, h, w) against this target."""
        return distillation_loss(latents, self.x0, self.x_t, self.noise, self.alpha_bar, recipe)


class Distillation:
    """The mutable state of a run: scene, optimiser and random streams. :func:`start` makes one."""

    def __init__(
        self, recipe: Recipe, prior: MultiViewPrior, scene: Scene, streams: Mapping[str, torch.Generator]
    ) -> None:
        """``streams`` are those of :func:`random_streams`."""
        self.recipe, self.prior, self.scene, self.generators = recipe, prior, scene, streams
        self.field, self.background, self.renderer = scene.field, scene.background, scene.renderer
        self.device = scene.device
        rates = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            [
                *self.field.parameter_groups(rates),
                {"params": list(self.background.parameters()), "lr": rates.lr_background},
            ],
            betas=rates.betas,
            eps=rates.eps,
            weight_decay=rates.weight_decay,
        )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.alphas_cumprod = prior.alphas_cumprod.tolist()

    def step(self, step: int, text: TextContext) -> StepReport:
        """Run step number ``step`` (from 0) towards the text."""
        recipe, stage = self.recipe, self.recipe.stage_at(step)
        self.field.set_step(step)
        self._set_rates(step)
        self.renderer.update_occupancy(self.field, step, self.generators["occupancy"])
        cameras = sample_orthogonal(recipe.cameras, stage.objects, self.prior.views, self.generators["cameras"])
        cameras = cameras.to(self.device)
        light = self._sample_light(step, cameras)
        rendering = self._render(cameras, stage.resolution, light)
        latents = self._encode(self._images(rendering))
        target = self._find_target(step, cameras, latents.detach(), text)
        for update in range(recipe.updates_per_target):
            if update > 0:
                rendering = self._render(cameras, stage.resolution, light)
            if update > 0 or target.keyed is not None:
                latents = self._encode(self._images(rendering, target.keyed))
            distillation = target.loss(latents, recipe.guidance)
            self.optimizer.zero_grad(set_to_none=True)
            (distillation + self._regularizers(step, rendering, target.keyed)).backward()
            self.optimizer.step()
        return StepReport(
            loss=float(distillation.detach()),
            timestep=target.timestep,
            timestep_range=target.timestep_range,
            opacity=float(rendering.opacity.detach().mean()),
            occupancy=self.renderer.grid.fraction,
        )

    def _set_rates(self, step: int) -> None:
        """Learning rates: a cosine from the recipe's rates to their final factor."""
        final = self.recipe.optimizer.final_lr_factor
        factor = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(step / self.recipe.steps, 1.0)))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def _sample_light(self, step: int, cameras: Cameras) -> Light | None:
        shading = self.recipe.shading
        if shading is None or step < shading.from_step:
            return None
        return sample_light(shading, cameras, self.generators["shading"])

    def _render(self, cameras: Cameras, resolution: int, light: Light | None) -> Rendering:
        return self.renderer.render(
            self.field,
            self.background,
            cameras,
            resolution,
            resolution,
            generator=self.generators["render"],
            light=light,
            differentiable_normals=self.recipe.shading is not None,
        )

    def _images(self, rendering: Rendering, keyed: KeyedImages | None = None) -> Tensor:
        """Rendered colours as images (N, 3, S, S) of the prior's size; outside of a key, the target's own pixels."""
        size = (self.prior.image_size, self.prior.image_size)
        images = F.interpolate(rendering.color.movedim(-1, 1), size, mode="bilinear", align_corners=False)
        return images if keyed is None else torch.lerp(keyed.images, images, keyed.opacity)

    def _encode(self, images: Tensor) -> Tensor:
        return self.prior.encode_images(images, self.generators["noise"])

    @torch.no_grad()
    def _find_target(self, step: int, cameras: Cameras, latents: Tensor, text: TextContext) -> Target:
        """Noise the renders' latents and let the prior say what they should become; one timestep for all."""
        recipe, prior, generator = self.recipe.guidance, self.prior, self.generators["noise"]
        low, high = timestep_bounds(recipe, step, len(self.alphas_cumprod))
        timestep = int(torch.randint(low, high + 1, (1,), generator=generator))
        alpha_bar = self.alphas_cumprod[timestep]
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        x_t = add_noise(latents, noise, alpha_bar)

        def predict(x: Tensor, t: int) -> Tensor:
            x0_text, x0_uncond = prior.predict_x0(x, t, cameras, text)
            return guided_target(x0_text, x0_uncond, prior.views, recipe)

        x0 = denoise(x_t, timestep, recipe.denoise_steps, self.alphas_cumprod, predict)
        return Target(x0, self._key(x0), x_t, noise, alpha_bar, timestep, (low, high))

    def _key(self, x0: Tensor) -> KeyedImages | None:
        key = self.recipe.key
        if key is None:
            return None
        images = self.prior.decode_latents(x0)
        return KeyedImages(images, keyed_opacity(images, self.prior.background, key.low, key.high))

    def _regularizers(self, step: int, rendering: Rendering, keyed: KeyedImages | None) -> Tensor:
        recipe, key, opacity = self.recipe.regularizers, self.recipe.key, rendering.opacity
        start = recipe.from_fraction * self.recipe.steps
        ramp = max(step - start, 0.0) / max(self.recipe.steps - start, 1.0)
        loss = ramp * recipe.sparsity * opacity.mean()
        if key is not None and keyed is not None:
            wanted = F.interpolate(keyed.opacity, opacity.shape[1:3], mode="area").movedim(1, -1)
            loss = loss + key.weight * (opacity - wanted).abs().mean()
        if recipe.binary:
            clamped = opacity.clamp(1e-3, 1 - 1e-3)
            entropy = -(clamped * clamped.log() + (1 - clamped) * (1 - clamped).log())
            loss = loss + ramp * recipe.binary * entropy.mean()
        if self.recipe.shading is not None and rendering.orientation is not None:
            loss = loss + self.recipe.shading.orientation.at(step) * rendering.orientation
        return loss

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, besides recipe, prior and text: what a checkpoint holds."""
        state = {f"field.{name}": value for name, value in self.field.state_dict().items()}
        state |= {f"background.{name}": value for name, value in self.background.state_dict().items()}
        state |= {f"occupancy.{name}": value for name, value in self.renderer.grid.state_dict().items()}
        state |= {f"generator.{name}": generator.get_state() for name, generator in self.generators.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        return state

    def load_state_dict(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Go back to the state after ``step`` steps. CheckpointError if it is the state of something else."""
        parts: dict[str, dict[str, Tensor]] = {"background": {}, "optimizer": {}}
        for name, value in state.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value
        moments: dict[int, dict[str, Tensor]] = {}
        try:
            self.field.load_state_dict(parts["field"])
            self.background.load_state_dict(parts["background"])
            self.renderer.grid.load_state_dict(parts["occupancy"])
            for name, generator in self.generators.items():
                generator.set_state(parts["generator"][name])
            for name, value in parts["optimizer"].items():
                index, _, key = name.partition(".")
                moments.setdefault(int(index), {})[key] = value
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"a checkpoint does not fit this run ({error}); start again") from error
        self.field.set_step(max(step - 1, 0))  # what the last step left


def start(recipe: Recipe, prior: MultiViewPrior, seed: int, device: torch.device | str = "cpu") -> Distillation:
    """The state of a run before its first step: a soft ball under the recipe's background."""
    streams = random_streams(seed)
    scene = build_scene(recipe, prior.background, streams["init"], torch.device(device))
    return Distillation(recipe, prior, scene, streams)


def random_streams(seed: int) -> dict[str, torch.Generator]:
    """Independent CPU generators, one per purpose: changing how often one is used leaves the others' draws alone."""
    streams = {name: torch.Generator() for name in _STREAMS}
    for index, generator in enumerate(streams.values()):
        # A large odd stride separates neighbouring seeds; manual_seed scrambles it (MT19937 initialisation).
        generator.manual_seed((seed * 0x9E3779B97F4A7C15 + index) % 2**63)
    return streams
