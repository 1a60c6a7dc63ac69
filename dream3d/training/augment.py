"""Renders made to look like pictures that somebody found: turned, cut, from aside, in other light, on other ground.

MV-RAG (Dayani et al. 2025, section 3.4) names the kinds and not their strengths; those below are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.dataset.compositing import over

TURN_DEG = 25.0
"""Largest rotation in the image, at strength 1."""
CORNER = 0.25
"""Largest move of a corner, as a share of the image's side."""
ZOOM = (0.8, 1.5)
"""Of the resized crop: below 1 the object becomes smaller."""
SHIFT = 0.15
"""Largest, as a share of the side."""
BRIGHTNESS = CONTRAST = 0.35
SATURATION = 0.35
WHITE_SHARE = 0.3
"""Of pictures on white, as cut-outs have it; the others are on a random colour."""
_LUMA = (0.299, 0.587, 0.114)
_CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))


def homography(corners: Tensor) -> Tensor:
    """(N, 4, 2) -> (N, 3, 3): the map that takes (-1, -1), (1, -1), (1, 1), (-1, 1) to these points.

    Raises RuntimeError for three corners on a line.
    """
    x, y = torch.tensor(_CORNERS, dtype=corners.dtype).unbind(1)
    u, v = corners.unbind(-1)
    zero, one = torch.zeros_like(u), torch.ones_like(u)
    x, y = x.expand_as(u), y.expand_as(u)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -x * u, -y * u], -1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -x * v, -y * v], -1)
    solved = torch.linalg.solve(torch.cat([rows_u, rows_v], 1), torch.cat([u, v], 1))
    return torch.cat([solved, torch.ones_like(solved[:, :1])], 1).view(-1, 3, 3)


def rotation(degrees: Tensor) -> Tensor:
    """(N,) -> (N, 3, 3); positive turns the picture clockwise when used by :func:`warp`."""
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [cos, sin, zero, -sin, cos, zero, zero, zero, zero + 1]
    return torch.stack(rows, -1).view(-1, 3, 3)


def zoom(factor: Tensor, shift: Tensor) -> Tensor:
    """(N,) factors and (N, 2) shifts, as shares of the side, -> (N, 3, 3): larger and moved right and down."""
    matrix = torch.diag_embed(torch.stack([1 / factor, 1 / factor, torch.ones_like(factor)], -1))
    matrix[:, :2, 2] = -2 * shift / factor[:, None]  # an image is two units wide
    return matrix


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """(N, C, S, S) seen through (N, 3, 3), from a place in the result to one in the image, in -1..1; zeros outside."""
    size = images.shape[-1]
    place = (torch.arange(size, dtype=matrix.dtype) * 2 + 1) / size - 1
    y, x = torch.meshgrid(place, place, indexing="ij")
    at = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3) @ matrix.transpose(1, 2)
    grid = (at[..., :2] / at[..., 2:].clamp_min(1e-3)).view(-1, size, size, 2)
    return F.grid_sample(images, grid.to(images.dtype), align_corners=False)


def jitter(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """(N, 3, S, S) in [0, 1] with factors (N,), each 1 for no change; contrast is about a picture's mean grey."""
    luma = torch.tensor(_LUMA)[:, None, None]
    brightness, contrast, saturation = (one[:, None, None, None] for one in (brightness, contrast, saturation))
    images = images * brightness
    grey = (images * luma).sum(1, keepdim=True)
    images = torch.lerp(grey.mean((2, 3), keepdim=True).expand_as(images), images, contrast)
    grey = (images * luma).sum(1, keepdim=True)
    return torch.lerp(grey.expand_as(images), images, saturation).clamp(0, 1)


def simulated(rgba: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """(N, 4, S, S) premultiplied alpha in [0, 1] -> (N, 3, S, S) in [0, 1]: as somebody might have photographed it.

    ``strength`` 0 changes nothing but the ground. All randomness comes from the generator.
    """
    count = len(rgba)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    def factor(spread: float) -> Tensor:
        return 1 + strength * spread * uniform(-1, 1)

    corners = torch.tensor(_CORNERS) + strength * 2 * CORNER * uniform(-1, 1, 4, 2)
    turned = rotation(strength * TURN_DEG * uniform(-1, 1))
    size = 1 + strength * (uniform(*ZOOM) - 1)
    moved = zoom(size, strength * uniform(-SHIFT, SHIFT, 2))
    warped = warp(rgba, homography(corners) @ turned @ moved)
    ground = torch.where(torch.rand(count, 1, generator=generator) < WHITE_SHARE, torch.ones(3), uniform(0, 1, 3))
    return jitter(over(warped, ground).clamp(0, 1), factor(BRIGHTNESS), factor(CONTRAST), factor(SATURATION))
