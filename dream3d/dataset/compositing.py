"""Images with alpha over a background: bytes with straight alpha, and tensors with premultiplied alpha."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dream3d.dataset.shards import ObjectViews

if TYPE_CHECKING:  # counting what a folder holds needs no torch
    from torch import Tensor


def composite(rgba: NDArray[np.uint8], background: ArrayLike) -> NDArray[np.uint8]:
    """Straight-alpha pixels (..., 4) over a colour (3,) or an image (..., 3), sRGB in [0, 255]: (..., 3)."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.round(alpha * rgba[..., :3] + (1 - alpha) * np.asarray(background)).astype(np.uint8)


def premultiplied(views: ObjectViews, size: int) -> Tensor:
    """All images of an object, (passes * views, 4, size, size) uint8 with premultiplied alpha."""
    import torch
    import torch.nn.functional as F

    rgba = torch.from_numpy(np.ascontiguousarray(views.rgba)).flatten(0, 1).movedim(-1, 1).float()
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:] / 255, rgba[:, 3:]], dim=1)
    if rgba.shape[-1] != size:
        rgba = F.interpolate(rgba, (size, size), mode="bilinear", antialias=True)
    return rgba.round().clamp(0, 255).byte()


def over(rgba: Tensor, background: Tensor) -> Tensor:
    """Premultiplied (N, 4, S, S) in [0, 1] over colours (N, 3) or (3,) in [0, 1]: (N, 3, S, S) in [0, 1]."""
    return (rgba[:, :3] + (1 - rgba[:, 3:]) * background.view(-1, 3, 1, 1)).clamp(0, 1)
