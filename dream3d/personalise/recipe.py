"""How a prior learns one thing: settings, and their defaults by prior and method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from dream3d.bounds import Between, Seed, Settings, Share
from dream3d.errors import UsageError, shown
from dream3d.recipe.settings import apply_change, parse_settings

Method = Literal["full", "lora"]
Bits = Literal[8, 32]
Count = Annotated[int, Between(1, 100_000)]
CountOrNone = Annotated[int, Between(0, 100_000)]
Weight = Annotated[float, Between(0, 1e6)]
TOKEN_PLACE, CLASS_PLACE = "{token}", "{class}"


@dataclass(frozen=True)
class DreamBoothRecipe(Settings):
    """One personalisation. The defaults are MVDream's for its full-size prior (docs/dreambooth.md, Settings)."""

    method: Method = "full"
    """``full``: every weight of the UNet but the camera's. ``lora``: small matrices beside its attention and
    feed-forward layers (Hu et al. 2021)."""
    steps: Count = 600
    rate: Annotated[float, Between(0, 1, above=True)] = 2e-6
    """Learning rate, after the warm-up the same in every step."""
    warmup: CountOrNone = 0
    """Steps of a linear rise to that rate; Adam's first steps would else be as large as any."""
    weight_decay: Annotated[float, Between(0, 1000)] = 0.01
    batch: Annotated[int, Between(1, 4096)] = 4
    """Photos in a step."""
    preservation: Weight = 1.0
    """Weight lambda of the mean absolute change of the UNet's weights."""
    keep_sets: Annotated[int, Between(0, 1000)] = 0
    """Sets of views of the class that the frozen prior draws first. In each step the network sees one of them, with
    noise and cameras, and is to answer as the frozen one does; 0 for none."""
    keep_weight: Weight = 1.0
    """Weight of the squared difference of these answers."""
    class_pictures: Annotated[int, Between(0, 1000)] = 0
    """Single pictures of the class that the frozen prior draws first, in image mode; 0 for none. Pictures of a folder
    take their place."""
    class_batch: Annotated[int, Between(1, 4096)] = 4
    """Class pictures in a step, if there are any."""
    class_weight: Weight = 1.0
    """Weight of their loss (DreamBooth's prior preservation, Ruiz et al. 2023, equation 2)."""
    captions: tuple[str, ...] = ("a photo of {token} {class}",)
    """Sentences about a photo, drawn in turn by chance. Those of a class picture are the same without the token."""
    tilt: Annotated[float, Between(0, 1000, above=True)] = 1.0
    """Timesteps are T * u^tilt with u uniform: less than 1 prefers strong noise."""
    channel_power: Annotated[float, Between(-10, 10)] = 0.0
    """Weights of latent channels, as in the training of priors: their spread to this power (linear codecs only)."""
    clip: Annotated[float, Between(0, 1e9, above=True)] = 1.0
    """Largest norm of the gradient."""
    rank: Annotated[int, Between(1, 256)] = 16
    """Of the matrices of ``lora``."""
    sample_every: CountOrNone = 100
    """Steps between samples of the thing, which are scored and kept; 0 for none."""
    patience: CountOrNone = 3
    """Scores in a row without a rise after which the training stops; 0 to train all steps."""
    rise: Share = 0.005
    """How much a score must be above the best so far to count as a rise."""
    checkpoint_every: CountOrNone = 100
    """Steps between checkpoints; 0 for one at the end."""
    seed: Seed = 0
    optimizer_bits: Bits = 32
    """Of each of Adam's two moments of a weight; with 8 they are quantised block by block (Dettmers et al. 2022)."""

    def __post_init__(self) -> None:
        """See :class:`Settings`; raises UsageError too for captions that lack a place."""
        super().__post_init__()
        if not self.captions:
            raise UsageError("recipe key 'captions' is empty; give at least one sentence")
        for caption in self.captions:
            if not all(place in caption for place in (TOKEN_PLACE, CLASS_PLACE)):
                raise UsageError(f"the caption {shown(caption)} must hold {TOKEN_PLACE} and {CLASS_PLACE}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for json."""
        return dataclasses.asdict(self)


BYTES_FULL: Mapping[Bits, int] = {32: 20, 8: 14}
"""Of memory for each of the UNet's weights where all train in float32: the weight, its gradient, Adam's two moments in
these bits, and the weight as it was."""
ROOM_GB = 6.0
"""For activations, codec and text encoder of the full-size prior, beside that. An estimate, not measured."""


def method_for(
    vram_gb: float | None, weights: int, method: Method | None = None, bits: Bits | None = None, *, eight: bool = True
) -> tuple[Method, Bits]:
    """What fits a card of so many gigabytes (10^9 bytes) for a UNet of so many weights; None is no limit.

    All weights with a state of 32 bits if that fits, then with one of 8 bits if there is an ``eight``-bit optimiser,
    then an adapter. What is given as ``method`` or ``bits`` stays, whether it fits or not.
    """
    choices: list[tuple[Method, Bits]] = [("full", 32), ("full", 8), ("lora", 32), ("lora", 8)]
    allowed = [
        (one, size)
        for one, size in choices
        if method in (None, one) and (bits == size if bits else size == 32 or (eight and one == "full"))
    ]
    room = ROOM_GB * min(1.0, weights / 8e8)
    fits = (
        (one, size)
        for one, size in allowed
        if one == "lora" or vram_gb is None or weights * BYTES_FULL[size] / 1e9 + room <= vram_gb
    )
    return next(fits, allowed[-1])


_MINI = {
    "steps": 100,
    "rate": 1e-4,
    "warmup": 10,
    "keep_sets": 4,
    "captions": ("a photo of {token} {class}", "a {token} {class}"),
    # As the prior itself was trained (prior.json).
    "tilt": 0.65,
    "channel_power": 1.0,
    "sample_every": 25,
    "checkpoint_every": 25,
}
DEFAULTS: dict[tuple[str, Method], Mapping[str, Any]] = {
    ("mini", "full"): _MINI,
    ("mini", "lora"): {**_MINI, "rate": 2e-3},
    ("mvdream", "lora"): {"rate": 1e-4},
}
"""By the preset that a prior recommends; all else is MVDream's."""


def recipe_for(preset: str, method: str, changes: Sequence[str] = (), **given: Any) -> DreamBoothRecipe:
    """The recipe of a prior that recommends ``preset``, with changes like ``rate=1e-4`` and what else was given.

    None among ``given`` leaves the default. Raises UsageError for unknown keys and values out of range.
    """
    known: Method = "lora" if method == "lora" else "full"
    family = "mini" if preset == "mini" else "mvdream"
    data: dict[str, Any] = {**DEFAULTS.get((family, known), {}), "method": method}
    data |= {key: value for key, value in given.items() if value is not None}
    for change in changes:
        apply_change(data, change)
    return parse_settings(DreamBoothRecipe, data)
