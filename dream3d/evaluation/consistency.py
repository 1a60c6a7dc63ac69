"""Whether the views of one object fit together, and whether they are views at all."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dream3d.evaluation.ranking import cross_view_consistency

COARSE = 8
"""Pixels a side at which pictures are compared, each the mean of a patch: a prior's grain is no difference."""
DIFFERENT = 0.035
"""Mean difference of colours at that size, of a range of 1. A tree or vase drawn with fresh grain from every side stays
below (0.02 to 0.03), a chair from front and side is well above (0.05 and more)."""


def differing_pairs(pictures: Tensor, step: int = 1, threshold: float = DIFFERENT) -> float:
    """Share, 0..1, of pairs (i, i + step) around the circle of (V, 3, S, S) pictures in [0, 1] that differ.

    For four views, step 1 compares front and side, step 2 front and back. Two pictures differ if their mean absolute
    difference, at :data:`COARSE` pixels a side, is above ``threshold``. A prior that draws one
    picture four times scores 0 here, and would score well in :func:`cross_view_consistency`; a vase, which is round,
    scores low rightly.
    """
    if len(pictures) < 2 or step % len(pictures) == 0:
        raise ValueError(f"{len(pictures)} views have no pairs {step} apart")
    pictures = F.adaptive_avg_pool2d(pictures, COARSE)
    differences = (pictures - pictures.roll(-step, 0)).abs().mean((1, 2, 3))
    return float((differences > threshold).double().mean())


__all__ = ["COARSE", "DIFFERENT", "cross_view_consistency", "differing_pairs"]
