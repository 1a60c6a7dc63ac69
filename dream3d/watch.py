"""Whether an optimisation goes wrong: figures of the field while it forms, and what they mean. Pure functions.

A run looks at its field a few times (:class:`dream3d.recipe.generation.WatchRecipe`). Nothing here draws random numbers
or changes the field, so that a run in which nothing is wrong is the one that it would be without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from scipy import ndimage
from torch import Tensor

from dream3d.bounds import MAX_SEED
from dream3d.errors import UsageError
from dream3d.recipe.generation import Recipe, WatchRecipe

SOLID = 0.5
"""Opacity from which a pixel shows the object, as for the mesh's silhouettes."""
CLIPPED = 0.02
"""A colour is saturated if its largest channel is this near to 1 and its smallest this near to 0."""
_SEED_STRIDE = 0x5851F42D4C957F2D
"""Odd and large: seeds of later attempts are none that a user is likely to try next."""

Trouble = Literal["not finite", "empty", "full", "floaters", "saturated"]
Answer = Literal["restart", "rescale", "none"]
"""Begin again with another seed; rescale the guidance more from here on; go on."""


@dataclass(frozen=True)
class Figures:
    """What is seen of a field, each 0..1, or NaN for renders that are not finite."""

    opacity: float
    """Mean over all pixels."""
    floaters: float
    """Share of all opacity that is not in the largest connected patch of solid pixels, mean over the views."""
    saturated: float
    """Share of the solid pixels whose colour is at the edge of what can be shown: one channel full, one empty."""


@dataclass(frozen=True)
class Look:
    """One look at the field of a run."""

    attempt: int
    """Restarts before it."""
    step: int
    """Updates that the field has had."""
    figures: Figures
    trouble: Trouble | None = None
    answer: Answer = "none"

    @property
    def sentence(self) -> str:
        """What to tell a person; empty if nothing is wrong."""
        if self.trouble is None:
            return ""
        seen = self.figures
        what = {
            "not finite": "the numbers are not finite",
            "empty": f"the field is empty (mean opacity {seen.opacity:.4f})",
            "full": f"the field fills its volume (mean opacity {seen.opacity:.3f})",
            "floaters": f"most of what is there floats around the object, and it grows ({seen.floaters:.0%})",
            "saturated": f"colours are saturated ({seen.saturated:.0%} of the object)",
        }[self.trouble]
        then = {
            "restart": "beginning again with another seed",
            "rescale": "rescaling the guidance more from here on",
            "none": "going on, since the recipe's remedies are used up or it has none",
        }[self.answer]
        if (self.trouble, self.answer) == ("not finite", "none"):
            then = "the run ends, since the recipe's restarts are used up or it has none"
        return f"{what}; {then}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``run.json``; figures that are not finite become null."""
        figures = {name: value if math.isfinite(value) else None for name, value in asdict(self.figures).items()}
        return {"attempt": self.attempt, "step": self.step, **figures, "trouble": self.trouble, "answer": self.answer}


def measure(color: Tensor, opacity: Tensor) -> Figures:
    """Figures of renders: ``color`` (V, S, S, 3) sRGB display values, ``opacity`` (V, S, S, 1), both 0..1."""
    colors, opacities = color.detach().cpu().double().numpy(), opacity.detach()[..., 0].cpu().double().numpy()
    if not (np.isfinite(colors).all() and np.isfinite(opacities).all()):
        return Figures(math.nan, math.nan, math.nan)
    solid = opacities > SOLID
    clipped = (colors.max(axis=-1) >= 1 - CLIPPED) & (colors.min(axis=-1) <= CLIPPED)
    saturated = float(clipped[solid].mean()) if solid.any() else 0.0
    floaters = float(np.mean([_floaters(*pair) for pair in zip(opacities, solid, strict=True)]))
    return Figures(float(opacities.mean()), floaters, saturated)


def _floaters(opacity: np.ndarray[Any, Any], solid: np.ndarray[Any, Any]) -> float:
    """Of one view (S, S); 0 for a view with nothing in it."""
    total = float(opacity.sum())
    if total <= 0:
        return 0.0
    labels, count = ndimage.label(solid)
    patches = ndimage.sum_labels(opacity, labels, range(1, count + 1)) if count else [0.0]
    return 1 - float(max(patches)) / total


def judge(figures: Figures, before: Figures | None, watch: WatchRecipe) -> Trouble | None:
    """What is wrong with a field, the worst first; ``before`` has the figures of the last look at it."""
    if not math.isfinite(figures.opacity):
        return "not finite"
    if figures.opacity < watch.empty:
        return "empty"
    if figures.opacity > watch.full:
        return "full"
    if figures.floaters > watch.floaters and before is not None and figures.floaters > before.floaters:
        return "floaters"
    return "saturated" if figures.saturated >= watch.saturated else None


def answer_to(trouble: Trouble | None, looks: Sequence[Look], watch: WatchRecipe, is_last: bool) -> Answer:
    """What to do about it, given the looks before; ``is_last``: no update follows.

    Saturated colours come from guidance that is too strong: x0 grows beyond the range of images. CFG rescale (Lin et
    al. 2023, section 3.4) pulls it back, so more of it is mixed in. All else needs a field that begins elsewhere.
    """
    if trouble is None:
        return "none"
    if trouble == "saturated":
        return "rescale" if not is_last and count_of("rescale", current(looks)) < watch.rescales else "none"
    return "restart" if count_of("restart", looks) < watch.restarts else "none"


def is_due(recipe: Recipe, step: int) -> bool:
    """Whether a field is looked at after ``step`` updates: at the ends of equal parts of the run."""
    looks = recipe.watch.looks
    return step > 0 and step in {round(recipe.steps * part / looks) for part in range(1, looks + 1)}


def count_of(answer: Answer, looks: Sequence[Look]) -> int:
    """How often looks had this answer."""
    return sum(look.answer == answer for look in looks)


def current(looks: Sequence[Look]) -> list[Look]:
    """The looks since the last restart."""
    attempt = count_of("restart", looks)
    return [look for look in looks if look.attempt == attempt]


def seed_of(seed: int, attempt: int) -> int:
    """The seed of a run after ``attempt`` restarts; its own at first."""
    return (seed + attempt * _SEED_STRIDE) % (MAX_SEED + 1)


def eased(recipe: Recipe, looks: Sequence[Look]) -> Recipe:
    """The recipe as it is after these looks: each "rescale" halves what CFG rescale leaves of the plain guidance."""
    times = count_of("rescale", current(looks))
    rescale = 1 - (1 - recipe.guidance.rescale) / 2**times
    return replace(recipe, guidance=replace(recipe.guidance, rescale=rescale)) if times else recipe


def looks_from(data: object, where: object) -> list[Look]:
    """Looks as :meth:`Look.to_dict` wrote them, whoever changed them since; UsageError for what are none."""
    if data is None:
        return []
    try:
        if not isinstance(data, list) or len(data) > 10_000:
            raise TypeError("it is no list of looks")
        return [_look(one) for one in data]
    except (KeyError, TypeError) as error:
        raise UsageError(f"{where}: 'watch' is not valid ({error}); start again") from error


def _look(data: Mapping[str, Any]) -> Look:
    numbers = [data[name] for name in ("opacity", "floaters", "saturated")]
    attempt, step, trouble, answer = (data[name] for name in ("attempt", "step", "trouble", "answer"))
    if type(attempt) is not int or type(step) is not int or not all(isinstance(one, float | None) for one in numbers):
        raise TypeError("a number is none")
    if trouble not in (None, *get_args(Trouble)) or answer not in get_args(Answer):
        raise TypeError("a trouble or an answer is unknown")
    return Look(attempt, step, Figures(*(math.nan if one is None else one for one in numbers)), trouble, answer)
