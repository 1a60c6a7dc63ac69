"""Every hyper-parameter of a run, with its unit and its source. Frozen: a run never changes its recipe.

Three presets: ``mini`` (minutes on a CPU), ``mvdream`` (the released numbers without shading) and
``mvdream-shading`` (the paper's configuration). Sources of the numbers, by section: docs/method.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from dream3d.bounds import Between, Settings, Share, check_setting
from dream3d.cameras import CameraRange
from dream3d.errors import UsageError
from dream3d.recipe.mesh import MeshRecipe as MeshRecipe
from dream3d.recipe.refinement import TextureRefinement
from dream3d.recipe.scene import (
    MAX_STEPS,
    BackgroundRecipe,
    Count,
    FieldRecipe,
    Linear,
    Rate,
    RenderRecipe,
    ShadingRecipe,
    Step,
    Weight,
)
from dream3d.recipe.settings import parse_settings
from dream3d.recipe.vsd import VsdRecipe

MAX_STAGES = 100
MAX_SAMPLES = 2**26
"""Along the rays to one view of each object if nothing is empty; MVDream's last stage has 2^25."""

GuidanceScale = Annotated[float, Between(0, 1000)]


@dataclass(frozen=True)
class Stage(Settings):
    """Rendering size from one step on."""

    from_step: Step
    resolution: Annotated[int, Between(1, 2048)]
    """Side of the square training renders, in pixels."""
    objects: Annotated[int, Between(1, 16)]
    """Camera groups per step; each holds the prior's number of views."""


@dataclass(frozen=True)
class GuidanceRecipe(Settings):
    """Score distillation (docs/method.md, Guidance and Timestep schedule)."""

    loss: Literal["x0", "sds", "images", "vsd"] = "x0"
    """``x0``, ``sds`` and ``vsd`` compare latents; ``images`` compares the renders with the decoded target, pixel by
    pixel. ``vsd`` is ``sds`` against a copy of the prior that learns beside the field (ProlificDreamer)."""
    image_weight: Weight = 6000.0
    """Of ``images``: weight of the mean absolute difference of the colours."""
    guidance_scale: GuidanceScale = 50.0
    rescale: Share = 0.5
    """How much of the CFG-rescaled x0 is mixed into the target; 0 turns it off."""
    dynamic_threshold: Annotated[float | None, Between(0, 1, above=True)] = None
    """Percentile in (0, 1] of |x0| over all views of an object for the latent clamp; None turns it off."""
    t_min: Annotated[Linear, Between(0, 1)] = Linear(0.98, 0.02, 8000)
    """Lower bound of the timestep range, as a fraction of the schedule's length."""
    t_max: Annotated[Linear, Between(0, 1)] = Linear(0.98, 0.50, 8000)
    weighting: Literal["uniform", "sigma"] = "uniform"
    """``uniform`` is the released loss; ``sigma`` multiplies it by 1 - abar_t, which keeps the pull of
    nearly clean timesteps from drowning the shape that the noisy ones agreed on."""
    prior_views: Literal["together", "alone"] = "together"
    """``together``: the prior sees the views of an object at once, with their cameras (MVDream). ``alone``: each as a
    picture by itself, in image mode, as a single-view prior does (DreamFusion, Poole et al. 2022, without its words for
    directions): a baseline, in which nothing keeps the back from being another front."""

    def __post_init__(self) -> None:
        """See :class:`Settings`; raises UsageError too if the range of timesteps is empty at some step."""
        super().__post_init__()
        for step in sorted({0, self.t_min.until_step, self.t_max.until_step}):  # straight lines between these
            low, high = self.t_min.at(step), self.t_max.at(step)
            if low > high + 1e-9:
                raise UsageError(f"the timestep range is empty at step {step}: t_min is {low:.3f}, t_max {high:.3f}")


@dataclass(frozen=True)
class TargetRecipe(Settings):
    """How targets are found from one step on, and how long each serves. The defaults are MVDream's.

    A *round* is the other extreme: many views of the field, denoised together in many steps, for a hundred updates.
    """

    from_step: Step = 0
    updates: Annotated[int | None, Between(1, MAX_STEPS)] = 1
    """Updates of the field towards one target; None: all until the next of these recipes, a round."""
    views: Annotated[int | None, Between(1, 64)] = None
    """Images of each object that are denoised together, evenly around it; None: the prior's number."""
    views_per_update: Annotated[int | None, Between(1, 64)] = None
    """Images that an update renders, drawn anew from the target's; None: all."""
    denoise_steps: Annotated[int, Between(1, 100)] = 1
    """DDIM steps from the noised renders to the target; 1 is MVDream's single prediction."""
    noise: Annotated[float | None, Between(0, 1, above=True)] = None
    """Fraction of the noise schedule at which denoising starts: 1 is noise alone. None: a timestep drawn between
    ``guidance.t_min`` and ``guidance.t_max``."""
    elevations_deg: Annotated[tuple[float, ...], Between(-90, 90)] = ()
    """Of the cameras, in turn around the object; empty: one drawn from ``cameras.elevation_deg`` for all."""


@dataclass(frozen=True)
class OptimizerRecipe(Settings):
    """AdamW (docs/method.md, Optimiser)."""

    lr_grid: Rate = 0.01
    lr_networks: Rate = 0.001
    lr_background: Rate = 0.001
    betas: Annotated[tuple[float, float], Between(0, 1, below=True)] = (0.9, 0.99)
    eps: Annotated[float, Between(0, 1e9, above=True)] = 1e-15
    weight_decay: Rate = 0.01
    final_lr_factor: Share = 1.0
    """Learning rates decay by a cosine to this factor at the last step; 1 keeps them constant."""

    def lr_factor(self, fraction: float) -> float:
        """Factor on the learning rates after a fraction (0..1) of the run."""
        final = self.final_lr_factor
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))


@dataclass(frozen=True)
class RegularizerRecipe(Settings):
    """Penalties on opacity, all off in MVDream (docs/method.md, Field and renderer).

    Their weights count against a loss that sums over all latents of an image.
    """

    sparsity: Weight = 0.0
    """Weight of the mean opacity: removes haze; too much erases thin parts."""
    binary: Weight = 0.0
    """Weight of the mean binary entropy of the opacity: pushes pixels to empty or solid."""
    from_fraction: Share = 0.2
    """All start at this fraction of the run and grow linearly until its end."""


@dataclass(frozen=True)
class KeyRecipe(Settings):
    """Chroma key of the targets, for a prior that was trained on one background colour.

    Where a target's picture has that colour there is nothing, elsewhere there is the object. The field's opacity is
    pulled towards this key, and its colours learn from the object's pixels alone, so that they never take on the
    background's. Not in MVDream.
    """

    low: Annotated[float, Between(0, 2)] = 0.15
    """RGB distance (0..1 each) from the background's colour up to which a pixel is empty."""
    high: Annotated[float, Between(0, 2)] = 0.25
    """RGB distance from which a pixel is the object; between the two it is partly covered."""
    weight: Weight = 4000.0
    """Weight of the mean absolute difference of opacity and key. Absolute, because its best answer to targets that
    disagree is their median, empty or solid, where a squared difference would ask for fog. It counts against a
    loss that sums over all latents of an image."""
    border: Annotated[float, Between(0, 0.49)] = 0.0
    """Share of an image's side, along each edge, that counts as empty: objects end inside the image."""

    def __post_init__(self) -> None:
        """See :class:`Settings`; raises UsageError too for distances that do not rise."""
        super().__post_init__()
        if self.low >= self.high:
            raise UsageError(f"the key's distances must rise, got {self.low} and {self.high}")


@dataclass(frozen=True)
class WatchRecipe(Settings):
    """When a run looks at its field, what is wrong with one, and what is done then (docs/generate.md)."""

    looks: Annotated[int, Between(0, 1000)] = 4
    """Looks at the field, after equal parts of the run, the last at its end; 0: none."""
    restarts: Annotated[int, Between(0, 16)] = 1
    """Times that a run begins again with another seed, at most, if its field is empty, full or mostly floaters."""
    rescales: Annotated[int, Between(0, 16)] = 2
    """Times that CFG rescale is strengthened, at most, for saturated colours: half of what it leaves is taken."""
    empty: Share = 0.001
    """Mean opacity of the renders below which the field is empty."""
    full: Share = 0.98
    """Mean opacity of the renders above which the field fills its volume."""
    floaters: Share = 0.6
    """Share of the opacity apart from the largest patch above which floaters, if they grow, are too many."""
    saturated: Share = 0.8
    """Share of the object's pixels with saturated colours from which on the guidance is too strong."""


@dataclass(frozen=True)
class Recipe(Settings):
    """One run, whole. Steps in nested schedules are counted on ``steps``; see :meth:`with_steps`."""

    name: str
    steps: Count = 10_000
    """Updates of the field."""
    cameras: CameraRange = CameraRange()
    stages: tuple[Stage, ...] = (Stage(0, 64, 2), Stage(5000, 256, 1))
    field: FieldRecipe = FieldRecipe()
    render: RenderRecipe = RenderRecipe()
    targets: tuple[TargetRecipe, ...] = (TargetRecipe(),)
    guidance: GuidanceRecipe = GuidanceRecipe()
    background: BackgroundRecipe = BackgroundRecipe()
    shading: ShadingRecipe | None = None
    optimizer: OptimizerRecipe = OptimizerRecipe()
    regularizers: RegularizerRecipe = RegularizerRecipe()
    key: KeyRecipe | None = None
    mesh: MeshRecipe = MeshRecipe()
    negative_prompt: str = ""
    watch: WatchRecipe = WatchRecipe()
    refinement: TextureRefinement | None = None
    """Of the asset's texture, and of its shape, by the prior."""
    vsd: VsdRecipe | None = None
    """Of the learnt copy, for the loss ``vsd`` alone; None: the usual settings."""

    def __post_init__(self) -> None:
        """See :class:`Settings`; raises UsageError too for parts in no order, too many samples, too lasting targets."""
        super().__post_init__()
        for name, parts in (("stages", self.stages), ("targets", self.targets)):
            starts = [part.from_step for part in parts[: MAX_STAGES + 1]]
            if not starts or starts[0] != 0 or starts != sorted(starts) or len(starts) > MAX_STAGES:
                raise UsageError(f"recipe {self.name} needs 1 to {MAX_STAGES} {name} in order, the first from step 0")
        once = all(target.updates == 1 for target in self.targets)
        if self.shading is not None and not once:
            raise UsageError(f"recipe {self.name} has shading, whose lights need targets of one update each")
        if self.guidance.loss == "vsd" and not once:
            raise UsageError(f"recipe {self.name} has the loss vsd, which needs targets of one update each")
        for stage in self.stages:
            samples = stage.objects * stage.resolution**2 * self.render.samples_per_diagonal
            if samples > MAX_SAMPLES:
                raise UsageError(
                    f"the stage from step {stage.from_step} has {samples} samples along its rays; at most "
                    f"{MAX_SAMPLES}: lower resolution, objects or samples_per_diagonal"
                )

    def stage_at(self, step: int) -> Stage:
        """The last stage that has started at ``step``."""
        return [stage for stage in self.stages if stage.from_step <= step][-1]

    def target_at(self, step: int) -> tuple[TargetRecipe, int]:
        """How the target of a step is found, and the step that it was or is found at."""
        target = [target for target in self.targets if target.from_step <= step][-1]
        served = (step - target.from_step) % target.updates if target.updates else step - target.from_step
        return target, step - served

    @property
    def rounds(self) -> list[int]:
        """The steps at which rounds start: targets that serve until the next of the recipes for targets."""
        starts = {target.from_step for target in self.targets if target.from_step < self.steps}
        return sorted(start for start in starts if self.target_at(start)[0].updates is None)

    @property
    def shown_targets(self) -> list[int]:
        """The steps whose targets are kept to be looked at: all rounds, or else four targets, evenly over the run."""
        spread = {self.target_at(self.steps * part // 4)[1] for part in range(4)}
        return self.rounds or sorted(spread)

    def with_steps(self, steps: int) -> Recipe:
        """The same recipe in more or fewer steps: every schedule is stretched along with the run.

        Fewer steps also denoise each target in fewer steps, so that a short run is short; more steps add none.
        """
        check_setting(steps, Count, "steps")
        return _stretched(self, steps / self.steps, steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``run.json`` and the asset's provenance.

        The bytes of assets without ``vsd`` and without a refined shape stay those of versions that knew neither.
        """
        data = dataclasses.asdict(self)
        if self.vsd is None:
            del data["vsd"]
        if self.refinement is not None and self.refinement.shape is None:
            del data["refinement"]["shape"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """The recipe that :meth:`to_dict` described; UsageError says what does not fit."""
        return parse_settings(cls, data)


def _stretched(recipe: Recipe, ratio: float, steps: int) -> Recipe:
    def line(schedule: Linear) -> Linear:
        return replace(schedule, until_step=round(schedule.until_step * ratio))

    shading = recipe.shading and replace(
        recipe.shading,
        from_step=round(recipe.shading.from_step * ratio),
        orientation=line(recipe.shading.orientation),
    )
    guidance = replace(recipe.guidance, t_min=line(recipe.guidance.t_min), t_max=line(recipe.guidance.t_max))
    stages = tuple(replace(stage, from_step=round(stage.from_step * ratio)) for stage in recipe.stages)
    targets = tuple(
        replace(
            target,
            from_step=round(target.from_step * ratio),
            denoise_steps=max(1, round(target.denoise_steps * min(1.0, ratio))),
        )
        for target in recipe.targets
    )
    field = replace(recipe.field, sharpness=line(recipe.field.sharpness))
    return replace(recipe, steps=steps, field=field, stages=stages, targets=targets, guidance=guidance, shading=shading)
