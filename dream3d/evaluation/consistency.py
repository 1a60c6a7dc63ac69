"""Whether the views of one object fit together, and whether they are views at all."""

from __future__ import annotations

from torch import Tensor

from dream3d.prior.ranking import cross_view_consistency

DIFFERENT = 0.02
"""Mean difference of two pictures' colours, of a range of 1, from which on an eye sees two pictures."""


def differing_pairs(pictures: Tensor, step: int = 1, threshold: float = DIFFERENT) -> float:
    """Share, 0..1, of pairs (i, i + step) around the circle of (V, 3, S, S) pictures in [0, 1] that differ.

    For four views, step 1 compares front and side, step 2 front and back. Two pictures differ if their mean absolute
    difference is above ``threshold``. A prior that draws one picture four times scores 0 here, and would score well
    in :func:`cross_view_consistency`; a vase, which is round, scores low rightly.
    """
    if len(pictures) < 2 or step % len(pictures) == 0:
        raise ValueError(f"{len(pictures)} views have no pairs {step} apart")
    differences = (pictures - pictures.roll(-step, 0)).abs().mean((1, 2, 3))
    return float((differences > threshold).double().mean())


__all__ = ["DIFFERENT", "cross_view_consistency", "differing_pairs"]
