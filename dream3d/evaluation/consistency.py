"""Whether the views of one object fit together, and whether they are views at all."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.guidance import keyed_opacity
from dream3d.mesh.grid import peak_projection
from dream3d.mesh.iso import mean_iou
from dream3d.recipe.generation import KeyRecipe

HULL_CELLS = 48
KEY = KeyRecipe()
"""What is background and what is object, as in the 3D run."""
COARSE = 8
"""Pixels a side at which images are compared, each the mean of a patch: a prior's grain is no difference."""
DIFFERENT = 0.035
"""Mean difference of colours at that size, of a range of 1. A tree or vase drawn with fresh grain from every side stays
below (0.02 to 0.03), a chair from front and side is well above (0.05 and more)."""


def cross_view_consistency(images: Tensor, cameras: Cameras) -> float:
    """How well the silhouettes of (V, 3, S, S) images fit one solid thing, 0..1.

    The visual hull (Laurentini 1994), all of space that every silhouette allows, is projected back: where views
    disagree, the hull lacks what only some of them show. The result is the mean IoU of its outlines and theirs; 0
    when there is no hull. Where the background is, is read off each image's border.
    """
    outlines = _silhouettes(images)
    hull = _visual_hull(outlines, cameras)
    if not hull.any():
        return 0.0
    size = outlines.shape[-1]
    return mean_iou(peak_projection(hull, cameras, size, size) > 0.5, outlines)


def differing_pairs(images: Tensor, step: int = 1, threshold: float = DIFFERENT) -> float:
    """Share, 0..1, of pairs (i, i + step) around the circle of (V, 3, S, S) images in [0, 1] that differ.

    For four views, step 1 compares front and side, step 2 front and back. Two images differ if their mean absolute
    difference, at :data:`COARSE` pixels a side, is above ``threshold``. A prior that draws one image four times scores
    0 here, and would score well in :func:`cross_view_consistency`; a vase, which is round, scores low rightly. Raises
    ValueError if there are no such pairs.
    """
    if len(images) < 2 or step % len(images) == 0:
        raise ValueError(f"{len(images)} views have no pairs {step} apart")
    images = F.adaptive_avg_pool2d(images, COARSE)
    differences = (images - images.roll(-step, 0)).abs().mean((1, 2, 3))
    return float((differences > threshold).double().mean())


def janus_score(images: Tensor) -> float:
    """How much the back of an object repeats its front, 0..1, in (V, 3, S, S) images in [0, 1] evenly around it.

    For each view, the mean absolute difference to the opposite one, at :data:`COARSE` pixels a side, over that to the
    one a quarter turn away, is taken from 1: 1 if the opposite view is the same picture again while the side is
    another, 0 if it differs as much as the side. Views whose sides do not differ either (a vase) count as 0. The result
    is the mean. A table, whose back is like its front, scores high rightly, and is no Janus. Raises ValueError unless
    the number of views can be divided by 4.
    """
    if len(images) < 4 or len(images) % 4:
        raise ValueError(f"views a half and a quarter turn apart need 4, 8, 12 ... views, got {len(images)}")
    images = F.adaptive_avg_pool2d(images.double(), COARSE)
    side, back = ((images - images.roll(-len(images) // part, 0)).abs().mean((1, 2, 3)) for part in (4, 2))
    repeated = (1 - back / side.clamp_min(DIFFERENT)).clamp(0, 1)
    return float(torch.where(side > DIFFERENT, repeated, 0.0).mean())


def _silhouettes(images: Tensor) -> NDArray[np.bool_]:
    """(V, S, S): pixels that differ from the median colour of their image's border."""
    rows = []
    for image in images.float().cpu():
        border = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], dim=1)
        red, green, blue = border.median(dim=1).values.tolist()
        rows.append(keyed_opacity(image[None], (red, green, blue), KEY.low, KEY.high)[0, 0] > 0.5)
    return torch.stack(rows).numpy()


def _visual_hull(outlines: NDArray[np.bool_], cameras: Cameras) -> NDArray[np.float32]:
    """(H+1, H+1, H+1) ones where every outline is hit, on the corners of [-1, 1]^3, indexed [x, y, z]."""
    axis = torch.linspace(-1, 1, HULL_CELLS + 1)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    inside = torch.ones(len(points), dtype=torch.bool)
    size = outlines.shape[-1]
    for outline, c2w, fovy_deg in zip(torch.from_numpy(outlines), cameras.c2w.cpu(), cameras.fovy_deg, strict=True):
        seen = (points - c2w[:3, 3]) @ c2w[:3, :3]  # camera frame: x right, y up, looking along -z
        focal = 1 / torch.tan(torch.deg2rad(fovy_deg.cpu()) / 2)
        x, y = (focal * seen[:, i] / -seen[:, 2] for i in (0, 1))
        column, row = (((x + 1) * size / 2).floor().long(), ((1 - y) * size / 2).floor().long())
        visible = (column >= 0) & (column < size) & (row >= 0) & (row < size) & (seen[:, 2] < 0)
        inside &= visible & outline[row.clamp(0, size - 1), column.clamp(0, size - 1)]
    side = HULL_CELLS + 1
    return inside.float().reshape(side, side, side).numpy()
