"""One step of score distillation: cameras -> render -> denoise -> loss -> update. The loop is in ``generate.py``.

Read top to bottom, :meth:`Distillation.step` is the method. To change it, change it here: how the prior is asked is in
``targets.py``, the formulas are in ``guidance.py``, what is rendered in ``render/scene.py``, every number in
``recipe/``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dream3d.cameras import Cameras, orbit
from dream3d.errors import CheckpointError
from dream3d.evaluation.consistency import cross_view_consistency
from dream3d.prior.base import MultiViewPrior
from dream3d.prior.conditioning import Conditioning
from dream3d.recipe.generation import Recipe
from dream3d.render.light import sample_light
from dream3d.render.renderer import Rendering
from dream3d.render.scene import Scene, build_scene
from dream3d.run.progress import StepReport
from dream3d.targets import KeyedImages, Target, blank_target, find_target, resized, target_cameras
from dream3d.vsd import LearntCopy, learnt_copy
from dream3d.watch import Figures, measure

_STREAMS = ("init", "cameras", "render", "occupancy", "noise", "shading")
_COPY_STREAM = "vsd"
WATCHED_VIEWS, WATCHED_SIZE = 4, 48
"""Views, and pixels a side, that :meth:`Distillation.figures` looks at."""
SHOWN = 4
"""Images of a round's target that are kept for people to look at."""


def regularizers(recipe: Recipe, step: int, rendering: Rendering, keyed: KeyedImages | None) -> Tensor:
    """The penalties of a recipe on renders at a step, summed: opacity against the key, sparsity, entropy, normals."""
    weights, opacity = recipe.regularizers, rendering.opacity
    start = weights.from_fraction * recipe.steps
    ramp = max(step - start, 0.0) / max(recipe.steps - start, 1.0)
    loss = ramp * weights.sparsity * opacity.mean()
    if recipe.key is not None and keyed is not None:
        loss = loss + recipe.key.weight * (opacity - resized(keyed.opacity, opacity.shape[1])).abs().mean()
    if weights.binary:
        clamped = opacity.clamp(1e-3, 1 - 1e-3)
        entropy = -(clamped * clamped.log() + (1 - clamped) * (1 - clamped).log())
        loss = loss + ramp * weights.binary * entropy.mean()
    if recipe.shading is not None and rendering.orientation is not None:
        loss = loss + recipe.shading.orientation.at(step) * rendering.orientation
    return loss


class Distillation:
    """The mutable state of a run: scene, optimiser and random streams. :func:`start` makes one."""

    def __init__(
        self,
        recipe: Recipe,
        prior: MultiViewPrior,
        scene: Scene,
        streams: Mapping[str, torch.Generator],
        copy: LearntCopy | None = None,
    ) -> None:
        """``streams`` are those of :func:`random_streams`; ``copy`` learns beside the field, for the loss ``vsd``."""
        self.recipe, self.prior, self.scene, self.generators, self.copy = recipe, prior, scene, streams, copy
        self.device = scene.device
        rates = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            [
                *scene.field.parameter_groups(rates),
                {"params": list(scene.background.parameters()), "lr": rates.lr_background},
            ],
            betas=rates.betas,
            eps=rates.eps,
            weight_decay=rates.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self._skipped = torch.zeros(2, device=self.device)
        """Updates skipped so far, and how many of them were the last in a row."""
        self.target: Target | None = None
        """What the next step learns from, unless it asks for another."""
        self._consistency: float | None = None
        """Of the views of the last target that was kept to be looked at."""
        self.shown_targets: list[Tensor] = []
        """:data:`SHOWN` images (S, S, 3) in uint8 of each target of ``recipe.shown_targets`` so far."""

    def step(self, step: int, conditioning: Conditioning) -> StepReport:
        """Run step number ``step`` (from 0) towards what the prior is told."""
        recipe, scene, streams = self.recipe, self.scene, self.generators
        stage = recipe.stage_at(step)
        scene.field.set_step(step)
        scene.renderer.update_occupancy(scene.field, step, streams["occupancy"])
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * recipe.optimizer.lr_factor(step / recipe.steps)

        asked, found_at = recipe.target_at(step)
        rendering = latents = None
        if self.target is None or step == found_at:
            self.target, rendering, latents = self._ask(step, conditioning)
        target = self.target
        if asked.views_per_update is not None:
            chosen = torch.randperm(len(target.cameras), generator=streams["cameras"])[: asked.views_per_update]
            target, rendering, latents = target.pick(chosen.to(self.device)), None, None
        rendering = rendering or scene.render(target.cameras, stage.resolution, None, streams["render"])
        loss = self._loss(target, rendering, latents)
        self._update(loss + regularizers(recipe, step, rendering, target.keyed))
        if step + 1 >= recipe.steps or recipe.target_at(step + 1)[1] > step:
            self.target = None
        seen = [loss.detach(), rendering.opacity.detach().mean(), scene.renderer.grid.fraction, *self._skipped]
        shown = tuple(self.shown_targets) if step in recipe.shown_targets else ()
        consistency = self._consistency if shown else None
        numbers, coarsened = torch.stack(seen), scene.renderer.coarsened
        return StepReport(target.timestep, target.timestep_range, numbers, coarsened, shown, consistency)

    def _ask(self, step: int, conditioning: Conditioning) -> tuple[Target, Rendering, Tensor]:
        """The target of a step, what the prior was shown for it, and that in latents."""
        recipe, prior, streams = self.recipe, self.prior, self.generators
        (asked, _), stage = recipe.target_at(step), recipe.stage_at(step)
        views = asked.views or prior.views
        around = target_cameras(recipe, asked, stage.objects, prior.views, streams["cameras"])
        cameras = around.to(self.device)
        light = sample_light(recipe.shading, step, cameras, views, streams["shading"])
        with torch.set_grad_enabled(asked.views_per_update is None):  # else an update renders images of its own
            rendering = self.scene.render(cameras, stage.resolution, light, streams["render"])
            latents = prior.encode_images(rendering.images(prior.image_size), streams["noise"])
        target = find_target(prior, recipe, step, cameras, latents.detach(), conditioning, streams["noise"])
        if self.copy is not None:
            target = self.copy.compare(target, conditioning, views)
            self.copy.learn(latents.detach(), cameras, conditioning, views, streams[_COPY_STREAM])
        if step in recipe.shown_targets and target.keyed is not None:
            images = target.keyed.images[:views].cpu()  # of the first object
            shown = torch.stack([images[index * views // SHOWN] for index in range(SHOWN)])
            self.shown_targets.append((shown.movedim(1, -1) * 255).round().to(torch.uint8))
            self._consistency = cross_view_consistency(images, Cameras(around.c2w[:views], around.fovy_deg[:views]))
        return target, rendering, latents

    def _loss(self, target: Target, rendering: Rendering, latents: Tensor | None) -> Tensor:
        """The distillation loss of renders, or of their latents if these are given and are all there is to compare."""
        guidance, prior = self.recipe.guidance, self.prior
        if guidance.loss == "images" and target.keyed is not None:
            return guidance.image_weight * target.keyed.color_loss(rendering.color)
        if latents is None or target.keyed is not None:
            images = rendering.images(prior.image_size)
            images = images if target.keyed is None else target.keyed.replace_background(images)
            latents = prior.encode_images(images, self.generators["noise"])
        return target.loss(latents, guidance)

    def _update(self, loss: Tensor) -> None:
        """Move the parameters down the loss, unless it or a gradient is not finite: then nothing moves.

        Half precision overflows now and then. Looking would make the host wait for a GPU, so that there the fused
        optimiser is told by a tensor, as torch's gradient scaler does.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite = torch.stack([torch.isfinite(one).all() for one in (loss.detach(), *gradients)]).all()
        skip = (~finite).float()
        self._skipped = torch.stack([self._skipped[0] + skip, (self._skipped[1] + skip) * skip])
        if self.optimizer.defaults["fused"]:
            self.optimizer.found_inf = skip  # type: ignore[attr-defined]
            self.optimizer.step()
        elif finite:
            self.optimizer.step()

    def figures(self) -> Figures:
        """What :mod:`dream3d.watch` asks of the field as it is; draws no random numbers and changes nothing."""
        seen = self.scene.evaluate(orbit(WATCHED_VIEWS, elevation_deg=15), WATCHED_SIZE)
        return measure(seen.color, seen.opacity)

    @property
    def troubles(self) -> tuple[int, int]:
        """Updates skipped so far, and renders whose marching step was doubled."""
        return int(self._skipped[0]), self.scene.renderer.coarsened

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, besides recipe, prior and text: what a checkpoint holds."""
        state = {f"field.{name}": value for name, value in self.scene.field.state_dict().items()}
        state |= {f"background.{name}": value for name, value in self.scene.background.state_dict().items()}
        state |= {f"occupancy.{name}": value for name, value in self.scene.renderer.grid.state_dict().items()}
        state |= {f"generator.{name}": generator.get_state() for name, generator in self.generators.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        state |= {f"round.{number}": images for number, images in enumerate(self.shown_targets)}
        state |= {"updates.skipped": self._skipped}
        state |= {f"copy.{name}": value for name, value in (self.copy.state_dict() if self.copy else {}).items()}
        target = self.target.state_dict() if self.target else {}
        return state | {f"target.{name}": value for name, value in target.items()}

    def load_state_dict(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Go back to the state after ``step`` steps.

        CheckpointError, before anything is changed, for a step or tensors that this run cannot have: by their names,
        shapes and types, or numbers that are not finite.
        """
        if not 0 <= step <= self.recipe.steps:
            raise CheckpointError(f"it is of step {step}, the run has {self.recipe.steps}")
        problem = state_difference(self._expected(step, state), state)
        if problem:
            raise CheckpointError(f"the checkpoint does not fit this run ({problem})")
        parts: dict[str, dict[str, Tensor]] = {"background": {}, "optimizer": {}}
        for name, value in state.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value
        moments: dict[int, dict[str, Tensor]] = {}
        try:
            self.scene.field.load_state_dict(parts["field"])
            self.scene.background.load_state_dict(parts["background"])
            self.scene.renderer.grid.load_state_dict(parts["occupancy"])
            if self.copy is not None:
                self.copy.load_state_dict(parts["copy"])
            for name, generator in self.generators.items():
                generator.set_state(parts["generator"][name])
            for name, value in parts["optimizer"].items():
                index, _, key = name.partition(".")
                moments.setdefault(int(index), {})[key] = value
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            asked_for = {name: value.to(self.device) for name, value in parts.get("target", {}).items()}
            self.target = Target.from_state_dict(asked_for, self.prior) if asked_for else None
            if "updates" in parts:
                self._skipped = parts["updates"]["skipped"].to(self.device)
            shown = sorted(parts.get("round", {}).items(), key=lambda one: int(one[0]))
            self.shown_targets = [value for _, value in shown]
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint does not fit this run ({error})") from error
        self.scene.field.set_step(max(step - 1, 0))  # what the last step left

    def _expected(self, step: int, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What :meth:`state_dict` would give after ``step`` steps: tensors of the right names, shapes and types."""
        apart = ("optimizer.", "round.", "target.")
        expected = {name: value for name, value in self.state_dict().items() if not name.startswith(apart)}
        if "updates.skipped" not in state:  # checkpoints of before it was kept
            del expected["updates.skipped"]
        if 0 < step < self.recipe.steps and self.recipe.target_at(step)[1] < step:
            target = blank_target(self.prior, self.recipe, step, self.device)
            expected |= {f"target.{name}": value for name, value in target.state_dict().items()}
        if self.recipe.guidance.loss == "images" or self.recipe.key is not None:  # else targets stay latents
            size = self.prior.image_size
            shown = torch.zeros(SHOWN, size, size, 3, dtype=torch.uint8)
            expected |= {
                f"round.{number}": shown for number in range(sum(at < step for at in self.recipe.shown_targets))
            }
        groups = [group["params"] for group in self.optimizer.param_groups]
        always = sum(map(len, groups[:-1])) if step else 0  # a background may have had no gradient yet
        for index, parameter in enumerate(itertools.chain.from_iterable(groups)):
            name = f"optimizer.{index}."
            if index < always or f"{name}step" in state:
                expected |= {
                    f"{name}step": torch.zeros(()),
                    f"{name}exp_avg": parameter,
                    f"{name}exp_avg_sq": parameter,
                }
        return expected


def start(
    recipe: Recipe, prior: MultiViewPrior, seed: int, device: torch.device | str = "cpu", hash_grid: str | None = None
) -> Distillation:
    """The state of a run before its first step: a soft ball under the recipe's background.

    ``hash_grid`` names an implementation, by default the best. UsageError for the loss ``vsd`` and a prior that cannot
    be copied, or without peft.
    """
    device = torch.device(device)
    if device.index is not None:
        torch.cuda.set_device(device)  # tiny-cuda-nn builds its grid on the current device
    copy = learnt_copy(recipe, prior, seed)
    streams = random_streams(seed, _STREAMS if copy is None else (*_STREAMS, _COPY_STREAM))
    scene = build_scene(recipe, prior.background, streams["init"], device, hash_grid)
    return Distillation(recipe, prior, scene, streams, copy)


def state_difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first thing in which a state differs from one that can be, in words; None if nothing does."""
    for name in sorted(expected.keys() ^ found.keys()):
        return f"{name!r} is {'missing' if name in expected else 'unknown'}"
    for name, wanted in expected.items():
        value = found[name]
        if (value.shape, value.dtype) != (wanted.shape, wanted.dtype):
            return (
                f"{name!r} is {value.dtype} of {tuple(value.shape)}, should be {wanted.dtype} of {tuple(wanted.shape)}"
            )
        if not torch.isfinite(value).all():
            return f"{name!r} has numbers that are not finite"
    return None


def random_streams(seed: int, names: Sequence[str] = _STREAMS) -> dict[str, torch.Generator]:
    """Independent CPU generators, one per purpose: changing how often one is used leaves the others' draws alone."""
    streams = {name: torch.Generator() for name in names}
    for index, generator in enumerate(streams.values()):
        # A large odd stride separates neighbouring seeds; manual_seed scrambles it (MT19937 initialisation).
        generator.manual_seed((seed * 0x9E3779B97F4A7C15 + index) % 2**63)
    return streams
