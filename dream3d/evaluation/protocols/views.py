"""Views that a prior draws for a prompt, and whether they fit together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dream3d.cameras import Cameras, orbit
from dream3d.evaluation.consistency import cross_view_consistency, differing_pairs
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.sampling import SamplingRecipe, sample_views, sampling_for


def draw(
    prior: DiffusionPrior,
    prompt: str,
    seed: int,
    views: int | None = None,
    together: int | None = None,
    steps: int | None = None,
    cameras: Cameras | None = None,
    tell: Callable[[Conditioning, Cameras, SamplingRecipe], Conditioning] = lambda text, cameras, recipe: text,
) -> Tensor:
    """(views, 3, S, S) in [0, 1] on the CPU, evenly around an object at 15 degrees of elevation, or from ``cameras``.

    ``views`` is the prior's own number by default. They are sampled ``together`` at a time, by default as many as the
    prior was trained on. ``steps`` of sampling are the prior's own by default. ``tell`` adds to the text what else the
    prior is told, for these cameras and this way of sampling.
    """
    cameras = orbit(views or prior.views) if cameras is None else cameras
    together = together or min(prior.views, len(cameras))
    recipe = sampling_for(prior.recommended_preset)
    recipe = recipe if steps is None else dataclasses.replace(recipe, steps=steps)
    text = tell(prior.encode_prompt(prior.with_suffix(prompt), ""), cameras, recipe)
    groups = [
        sample_views(prior, text, _part(cameras, slice(first, first + together)), recipe, seed + 100 * first)
        for first in range(0, len(cameras), together)
    ]
    return torch.cat(groups).float().cpu()


def mean_consistency(rows: Sequence[Tensor], every: int = 1) -> float:
    """Mean :func:`cross_view_consistency`, 0..1, of rows (V, 3, S, S) of :func:`draw`; of each ``every``-th view."""
    cameras = _part(orbit(len(rows[0])), slice(None, None, every))
    return sum(cross_view_consistency(views[::every], cameras) for views in rows) / len(rows)


def mean_difference(rows: Sequence[Tensor]) -> float:
    """Mean share, 0..1, of neighbouring views that differ, see :func:`differing_pairs`."""
    return sum(differing_pairs(views) for views in rows) / len(rows)


@dataclass(frozen=True)
class ManyViews:
    """Consistency of more views at once than the prior was trained on (MVDream, Shi et al. 2023, Figure 11)."""

    views: int
    quarters: float
    """Of the four that are a quarter apart. More outlines are harder to fit: only this compares numbers of views."""
    all: float


def many_views(
    prior: DiffusionPrior, prompts: Sequence[str], counts: Sequence[int] = (4, 8, 16), seed: int = 0
) -> list[tuple[ManyViews, list[Tensor]]]:
    """For each number of views, a multiple of four: its figures and the rows (views, 3, S, S) drawn for the prompts."""
    drawn = [(count, [draw(prior, prompt, seed, count, together=count) for prompt in prompts]) for count in counts]
    return [
        (ManyViews(count, mean_consistency(rows, count // 4), mean_consistency(rows)), rows) for count, rows in drawn
    ]


def _part(cameras: Cameras, part: slice) -> Cameras:
    return Cameras(cameras.c2w[part], cameras.fovy_deg[part])
