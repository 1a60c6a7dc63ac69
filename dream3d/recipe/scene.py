"""What is optimised, and how it is rendered: field, renderer, background and light of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from dream3d.bounds import Between, Settings, Share
from dream3d.errors import UsageError

MAX_STEPS = 1_000_000
"""Of a run; the published recipes have 10,000."""
MAX_FIELD_NUMBERS = 2**27
"""Learnt by the hash grid, with moments and gradient 2 GB; MVDream's has 2^24."""
MAX_GRID_CELLS = 2**20
"""Along a side of the hash grid's finest level; MVDream's has 4,096."""

Count = Annotated[int, Between(1, MAX_STEPS)]
Step = Annotated[int, Between(0, 100 * MAX_STEPS)]
Weight = Annotated[float, Between(0, 1e9)]
Rate = Annotated[float, Between(0, 10)]


@dataclass(frozen=True)
class Linear(Settings):
    """A value that moves linearly from ``start`` at step 0 to ``end`` at ``until_step``, then stays."""

    start: float
    end: float
    until_step: Step

    def at(self, step: int) -> float:
        """The value at a step; steps beyond ``until_step`` give ``end``."""
        if self.until_step <= 0:
            return self.end
        return self.start + (self.end - self.start) * min(max(step / self.until_step, 0.0), 1.0)


@dataclass(frozen=True)
class FieldRecipe(Settings):
    """The radiance field on the cube [-1, 1]^3 (docs/method.md, Field and renderer)."""

    levels: Annotated[int, Between(1, 32)] = 16
    features_per_level: Annotated[int, Between(1, 8)] = 2
    log2_entries: Annotated[int, Between(4, 24)] = 19
    """Hash table size per level, as a power of two."""
    base_resolution: Annotated[int, Between(1, 1024)] = 16
    per_level_scale: Annotated[float, Between(1, 4)] = 1.447269237440378
    hidden_width: Annotated[int, Between(1, 256)] = 64
    density_gain: Annotated[float, Between(0, 1e4)] = 1.0
    """Factor on the density head's output before the blob's bias: how fast density can grow."""
    sharpness: Annotated[Linear, Between(0, 1e4)] = Linear(1.0, 1.0, 0)
    """Factor on the whole density logit: growing over a run, it turns fog into either something or nothing."""
    blob_scale: Annotated[float, Between(-1e4, 1e4)] = 10.0
    """Density logit added at the origin: raw + blob_scale * (1 - |x| / blob_radius)."""
    blob_radius: Annotated[float, Between(0, 100, above=True)] = 0.5
    """Radius in world units where the blob's bias is zero."""

    def __post_init__(self) -> None:
        """See :class:`Settings`; raises UsageError for a grid that is too large too."""
        super().__post_init__()
        numbers = self.levels * self.features_per_level * 2**self.log2_entries
        finest = self.base_resolution * self.per_level_scale ** (self.levels - 1)
        if numbers > MAX_FIELD_NUMBERS or finest > MAX_GRID_CELLS:
            raise UsageError(
                f"a hash grid of {numbers} numbers with {finest:.0f} cells along a side is too large; at most "
                f"{MAX_FIELD_NUMBERS} and {MAX_GRID_CELLS}: lower levels, log2_entries or per_level_scale"
            )


@dataclass(frozen=True)
class RenderRecipe(Settings):
    """Ray marching and occupancy (docs/method.md, Field and renderer)."""

    samples_per_diagonal: Annotated[int, Between(2, 8192)] = 512
    """The marching step is the cube's diagonal (2 sqrt 3) over this number."""
    occupancy_resolution: Annotated[int, Between(1, 128)] = 32
    occupancy_threshold: Share = 0.01
    """A cell with density * step below this (or below the mean, if that is lower) is skipped."""
    occupancy_decay: Share = 0.95
    occupancy_every: Count = 16
    """Steps between two updates of the occupancy grid."""
    occupancy_warmup: Step = 256
    """Steps during which every cell is re-evaluated at each update; afterwards a part of them."""
    early_stop_transmittance: Share = 1e-4
    """Samples behind this transmittance are dropped."""
    alpha_threshold: Share = 0.0
    """Samples that stop a smaller share of the light are dropped, so that haze is neither seen nor learnt; the
    occupancy grid's mean of density * step caps it. 0 keeps all."""
    sample_budget: Annotated[int, Between(1, 2**40)] = 2**24
    """Samples of one render at most. Where fog makes more, its marching step is doubled until they fit."""


@dataclass(frozen=True)
class BackgroundRecipe(Settings):
    """What is behind the object in training renders."""

    kind: Literal["fixed", "network"] = "network"
    """``fixed``: the colour that the prior was trained on. ``network``: an MLP of the view direction."""
    random_probability: Share = 0.5
    """With ``network``: chance that a step uses one random colour instead (docs/method.md, Field and renderer)."""


@dataclass(frozen=True)
class ShadingRecipe(Settings):
    """Soft shading of the renders (docs/method.md, Shading)."""

    from_step: Step = 5000
    """Albedo only before this step."""
    albedo_probability: Share = 0.25
    textureless_probability: Share = 0.375
    light_distance: Annotated[tuple[float, float], Between(0, 100, above=True, rising=True)] = (0.8, 1.5)
    orientation: Annotated[Linear, Between(0, 1e9)] = Linear(10.0, 1000.0, 5000)
    """Weight of the loss on normals that face away from the camera."""
    light_per: Literal["view", "object"] = "view"
    """Whether the random offset and distance of the light are drawn for each view or shared by those of an object."""
