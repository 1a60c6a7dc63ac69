"""Every hyper-parameter of a run, with its unit and its source. Frozen: a run never changes its recipe.

Three presets: ``mini`` (minutes on a CPU), ``mvdream`` (the released numbers without shading) and
``mvdream-shading`` (the paper's configuration). Sources of the numbers, by section: docs/method.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from dream3d.cameras import CameraRange
from dream3d.errors import UsageError
from dream3d.recipe.settings import parse_settings


@dataclass(frozen=True)
class Linear:
    """A value that moves linearly from ``start`` at step 0 to ``end`` at ``until_step``, then stays."""

    start: float
    end: float
    until_step: int

    def at(self, step: int) -> float:
        """The value at a step; steps beyond ``until_step`` give ``end``."""
        if self.until_step <= 0:
            return self.end
        return self.start + (self.end - self.start) * min(max(step / self.until_step, 0.0), 1.0)


@dataclass(frozen=True)
class FieldRecipe:
    """The radiance field on the cube [-1, 1]^3 (docs/method.md, Field and renderer)."""

    levels: int = 16
    features_per_level: int = 2
    log2_entries: int = 19
    """Hash table size per level, as a power of two."""
    base_resolution: int = 16
    per_level_scale: float = 1.447269237440378
    hidden_width: int = 64
    density_gain: float = 1.0
    """Factor on the density head's output before the blob's bias: how fast density can grow."""
    sharpness: Linear = Linear(1.0, 1.0, 0)
    """Factor on the whole density logit: growing over a run, it turns fog into either something or nothing."""
    blob_scale: float = 10.0
    """Density logit added at the origin: raw + blob_scale * (1 - |x| / blob_radius)."""
    blob_radius: float = 0.5
    """Radius in world units where the blob's bias is zero."""


@dataclass(frozen=True)
class RenderRecipe:
    """Ray marching and occupancy (docs/method.md, Field and renderer)."""

    samples_per_diagonal: int = 512
    """The marching step is the cube's diagonal (2 sqrt 3) over this number."""
    occupancy_resolution: int = 32
    occupancy_threshold: float = 0.01
    """A cell with density * step below this (or below the mean, if that is lower) is skipped."""
    occupancy_decay: float = 0.95
    occupancy_every: int = 16
    """Steps between two updates of the occupancy grid."""
    occupancy_warmup: int = 256
    """Steps during which every cell is re-evaluated at each update; afterwards a part of them."""
    early_stop_transmittance: float = 1e-4
    """Samples behind this transmittance are dropped."""
    alpha_threshold: float = 0.0
    """Samples that stop a smaller share of the light are dropped, so that haze is neither seen nor learnt; the
    occupancy grid's mean of density * step caps it. 0 keeps all."""
    sample_budget: int = 2**24
    """Samples of one render at most. Where fog makes more, its marching step is doubled until they fit."""


@dataclass(frozen=True)
class Stage:
    """Rendering size from one step on."""

    from_step: int
    resolution: int
    """Side of the square training renders, in pixels."""
    objects: int
    """Camera groups per step; each holds the prior's number of views."""


@dataclass(frozen=True)
class GuidanceRecipe:
    """Score distillation (docs/method.md, Guidance and Timestep schedule)."""

    loss: Literal["x0", "sds"] = "x0"
    guidance_scale: float = 50.0
    rescale: float = 0.5
    """How much of the CFG-rescaled x0 is mixed into the target; 0 turns it off."""
    dynamic_threshold: float | None = None
    """Percentile in (0, 1] of |x0| over all views of an object for the latent clamp; None turns it off."""
    t_min: Linear = Linear(0.98, 0.02, 8000)
    """Lower bound of the timestep range, as a fraction of the schedule's length."""
    t_max: Linear = Linear(0.98, 0.50, 8000)
    denoise_steps: int = 1
    """DDIM steps from the drawn timestep to the target; 1 is MVDream's single prediction."""
    weighting: Literal["uniform", "sigma"] = "uniform"
    """``uniform`` is the released loss; ``sigma`` multiplies it by 1 - abar_t, which keeps the pull of
    nearly clean timesteps from drowning the shape that the noisy ones agreed on."""


@dataclass(frozen=True)
class BackgroundRecipe:
    """What is behind the object in training renders."""

    kind: Literal["fixed", "network"] = "network"
    """``fixed``: the colour that the prior was trained on. ``network``: an MLP of the view direction."""
    random_probability: float = 0.5
    """With ``network``: chance that a step uses one random colour instead (docs/method.md, Field and renderer)."""


@dataclass(frozen=True)
class ShadingRecipe:
    """Soft shading of the renders (docs/method.md, Shading)."""

    from_step: int = 5000
    """Albedo only before this step."""
    albedo_probability: float = 0.25
    textureless_probability: float = 0.375
    light_distance: tuple[float, float] = (0.8, 1.5)
    orientation: Linear = Linear(10.0, 1000.0, 5000)
    """Weight of the loss on normals that face away from the camera."""
    light_per: Literal["view", "object"] = "view"
    """Whether the random offset and distance of the light are drawn for each view or shared by those of an object."""


@dataclass(frozen=True)
class OptimizerRecipe:
    """AdamW (docs/method.md, Optimiser)."""

    lr_grid: float = 0.01
    lr_networks: float = 0.001
    lr_background: float = 0.001
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-15
    weight_decay: float = 0.01
    final_lr_factor: float = 1.0
    """Learning rates decay by a cosine to this factor at the last step; 1 keeps them constant."""

    def lr_factor(self, fraction: float) -> float:
        """Factor on the learning rates after a fraction (0..1) of the run."""
        final = self.final_lr_factor
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))


@dataclass(frozen=True)
class RegularizerRecipe:
    """Penalties on opacity, all off in MVDream (docs/method.md, Field and renderer).

    Their weights count against a loss that sums over all latents of an image.
    """

    sparsity: float = 0.0
    """Weight of the mean opacity: removes haze; too much erases thin parts."""
    binary: float = 0.0
    """Weight of the mean binary entropy of the opacity: pushes pixels to empty or solid."""
    from_fraction: float = 0.2
    """All start at this fraction of the run and grow linearly until its end."""


@dataclass(frozen=True)
class KeyRecipe:
    """Chroma key of the targets, for a prior that was trained on one background colour.

    Where a target's picture has that colour there is nothing, elsewhere there is the object. The field's opacity is
    pulled towards this key, and its colours learn from the object's pixels alone, so that they never take on the
    background's. Not in MVDream.
    """

    low: float = 0.15
    """RGB distance (0..1 each) from the background's colour up to which a pixel is empty."""
    high: float = 0.25
    """RGB distance from which a pixel is the object; between the two it is partly covered."""
    weight: float = 4000.0
    """Weight of the mean absolute difference of opacity and key. Absolute, because its best answer to targets that
    disagree is their median, empty or solid, where a squared difference would ask for fog. It counts against a
    loss that sums over all latents of an image."""


@dataclass(frozen=True)
class MeshRecipe:
    """Surface extraction."""

    resolution: int = 128
    """Cells of the marching-cubes grid along each side of the cube."""
    min_component_fraction: float = 0.01
    """Components with less than this share of the largest one's volume are dropped as specks."""


@dataclass(frozen=True)
class Recipe:
    """One run, whole. Steps in nested schedules are counted on ``steps``; see :meth:`with_steps`."""

    name: str
    steps: int = 10_000
    updates_per_target: int = 1
    """Field updates towards each denoised target, re-rendered from the same cameras; 1 in MVDream."""
    cameras: CameraRange = CameraRange()
    stages: tuple[Stage, ...] = (Stage(0, 64, 2), Stage(5000, 256, 1))
    field: FieldRecipe = FieldRecipe()
    render: RenderRecipe = RenderRecipe()
    guidance: GuidanceRecipe = GuidanceRecipe()
    background: BackgroundRecipe = BackgroundRecipe()
    shading: ShadingRecipe | None = None
    optimizer: OptimizerRecipe = OptimizerRecipe()
    regularizers: RegularizerRecipe = RegularizerRecipe()
    key: KeyRecipe | None = None
    mesh: MeshRecipe = MeshRecipe()
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"a run needs at least one step, got --steps {self.steps}")
        if self.updates_per_target < 1 or self.guidance.denoise_steps < 1:
            raise UsageError(f"recipe {self.name}: updates_per_target and denoise_steps are at least 1")
        if self.mesh.resolution < 8:
            raise UsageError(f"the mesh grid needs at least 8 cells a side, got --resolution {self.mesh.resolution}")
        if self.mesh.resolution > 1024:
            raise UsageError(f"a mesh grid of {self.mesh.resolution} cells a side is too large; use at most 1024")
        if not self.stages or self.stages[0].from_step != 0:
            raise UsageError(f"recipe {self.name}: the first stage must start at step 0")
        p = self.guidance.dynamic_threshold
        if p is not None and not 0 < p <= 1:
            raise UsageError(f"the dynamic threshold is a percentile in (0, 1], got {p}")
        if self.key is not None and not 0 <= self.key.low < self.key.high:
            raise UsageError(f"the key's distances must rise from 0 or more, got {self.key.low} and {self.key.high}")

    def stage_at(self, step: int) -> Stage:
        """The last stage that has started at ``step``."""
        return [stage for stage in self.stages if stage.from_step <= step][-1]

    def with_steps(self, steps: int) -> Recipe:
        """The same recipe in more or fewer steps: every schedule is stretched along with the run."""
        if steps < 1:
            raise UsageError(f"a run needs at least one step, got --steps {steps}")
        return _stretched(self, steps / self.steps, steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``run.json`` and the asset's provenance."""
        return dataclasses.asdict(self)

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
    field = replace(recipe.field, sharpness=line(recipe.field.sharpness))
    return replace(recipe, steps=steps, field=field, stages=stages, guidance=guidance, shading=shading)
