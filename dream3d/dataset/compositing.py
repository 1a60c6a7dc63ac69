"""Pictures with alpha over a background."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.dataset.shards import ObjectViews


def premultiplied(views: ObjectViews, size: int) -> Tensor:
    """All pictures of an object, (passes * views, 4, size, size) uint8 with premultiplied alpha."""
    rgba = torch.from_numpy(np.ascontiguousarray(views.rgba)).flatten(0, 1).movedim(-1, 1).float()
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:] / 255, rgba[:, 3:]], dim=1)
    if rgba.shape[-1] != size:
        rgba = F.interpolate(rgba, (size, size), mode="bilinear", antialias=True)
    return rgba.round().clamp(0, 255).byte()


def over(rgba: Tensor, background: Tensor) -> Tensor:
    """Premultiplied (N, 4, S, S) in [0, 1] over colours (N, 3) or (3,) in [0, 1]: (N, 3, S, S) in [0, 1]."""
    return (rgba[:, :3] + (1 - rgba[:, 3:]) * background.view(-1, 3, 1, 1)).clamp(0, 1)
