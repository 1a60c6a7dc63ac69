"""Which density is the surface: the one whose silhouettes agree best with the field's own renders.

A fixed threshold is the most common cause of broken exports: how dense "solid" is depends on the prompt, the steps
and the regularisers. So the level is measured, against the opacity that the renderer shows the user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dream3d.cameras import Cameras
from dream3d.errors import CollapsedFieldError
from dream3d.mesh.grid import SMALLEST_DENSITY, peak_projection, raw_from_density

CANDIDATES = 512
HOPELESS_IOU = 0.3
"""Below this no level looks like the renders, and a mesh would only hide that the run failed."""
PLATEAU = 0.002
"""Levels this close to the best IoU count as equally good."""

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class IsoChoice:
    """The chosen level and how every other candidate would have done."""

    level: float
    """Density per world unit."""
    iou: float
    """Mean over the views of the intersection over union of {density >= level} and the masks, 0..1."""
    candidates: NDArray[np.float64]
    """(K,) increasing levels that were compared."""
    ious: NDArray[np.float64]
    """(K,) their mean IoU."""


def choose_iso_level(grid: NDArray[np.float32], masks: Masks, cameras: Cameras) -> IsoChoice:
    """The level whose silhouettes fit ``masks``, the pixels where the field's rendered opacity is over one half.

    ``grid`` is (R+1, R+1, R+1) densities on the corners of the cube, ``masks`` (V, H, W), one per camera. The best
    IoU is usually reached over a range of levels; the middle of that range (in log density) is taken, where the
    surface moves least if the field or the pixels were slightly different.
    Raises CollapsedFieldError when the field is empty, solid or not finite, or when no level fits.
    """
    if masks.ndim != 3 or len(masks) != len(cameras):
        raise ValueError(f"masks must have shape ({len(cameras)}, H, W), got {masks.shape}")
    refuse_collapsed(grid, masks)
    raw_peaks = peak_projection(raw_from_density(grid), cameras, masks.shape[1], masks.shape[2])
    candidates = np.geomspace(SMALLEST_DENSITY * 2, float(grid.max()) * 0.999, CANDIDATES)
    ious = _mean_ious(raw_peaks, masks, raw_from_density(candidates))
    best = int(ious.argmax())
    if ious[best] < HOPELESS_IOU:
        raise CollapsedFieldError(
            f"no density level looks like the renders (best IoU {ious[best]:.2f} at level {candidates[best]:.3g}, "
            f"{_numbers(grid, masks)}); the field is fog: try another seed, more steps or a higher sparsity"
        )
    good = ious >= ious[best] - PLATEAU
    first = best - int(np.argmin(good[best::-1])) + 1 if not good[: best + 1].all() else 0
    last = best + int(np.argmin(good[best:])) - 1 if not good[best:].all() else len(good) - 1
    middle = (first + last) // 2
    return IsoChoice(float(candidates[middle]), float(ious[middle]), candidates, ious)


def refuse_collapsed(grid: NDArray[np.float32], masks: Masks) -> None:
    """Raise CollapsedFieldError for a field that is not finite, empty everywhere or solid everywhere."""
    if not np.isfinite(grid).all():
        raise CollapsedFieldError(
            "the field's density is not finite: the optimisation diverged; try another seed or a lower learning rate"
        )
    if grid.max() <= 4 * SMALLEST_DENSITY or not masks.any():
        raise CollapsedFieldError(
            f"the field is empty ({_numbers(grid, masks)}); try another seed, more steps or a lower sparsity"
        )
    if masks.all():
        raise CollapsedFieldError(
            f"the field is solid ({_numbers(grid, masks)}); try another seed, more steps or a higher sparsity"
        )


def mean_iou(first: Masks, second: Masks) -> float:
    """Mean over views of the intersection over union of (V, H, W) masks; two empty views agree fully."""
    union = (first | second).sum(axis=(1, 2))
    common = (first & second).sum(axis=(1, 2))
    return float(np.where(union == 0, 1.0, common / np.maximum(union, 1)).mean())


def _mean_ious(peaks: NDArray[np.float32], masks: Masks, levels: NDArray[np.float32]) -> NDArray[np.float64]:
    """(K,) mean IoU of {peaks >= level} and masks, for all levels at once: two sorted lists per view and look-ups."""
    total = np.zeros(len(levels))
    for peak, mask in zip(peaks, masks, strict=True):
        common, wrong = (len(part) - np.searchsorted(np.sort(part), levels) for part in (peak[mask], peak[~mask]))
        union = int(mask.sum()) + wrong
        total += np.where(union == 0, 1.0, common / np.maximum(union, 1))
    return total / len(peaks)


def _numbers(grid: NDArray[np.float32], masks: Masks) -> str:
    return f"largest density {grid.max():.3g}, {masks.mean():.0%} of the pixels opaque"
