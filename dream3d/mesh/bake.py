"""The image of a texture: what surface each texel shows, the field's colour there, and what lies between the charts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from dream3d.mesh.layout import Layout
from dream3d.mesh.loops import cover
from dream3d.mesh.surface import Faces, FloatArray, vertex_normals

ColorField = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(N, 3) world positions -> density (N,) per world unit and colour (N, 3), sRGB display values in [0, 1]."""

OUTSIDE, INSIDE = 1.0, 3.0
"""Voxels before and behind the surface between which the field is looked at."""
SAMPLES = 9
"""Along that segment."""
CHUNK = 1 << 18
"""Samples of the field at once."""
BLED = 8
"""Texels around a chart that get the colours of its edge."""


@dataclass(frozen=True)
class Texels:
    """The texels of an image that show a surface."""

    pixel: NDArray[np.int64]
    """(T,) row * size + column, increasing."""
    positions: NDArray[np.float32]
    """(T, 3) world units."""
    normals: NDArray[np.float32]
    """(T, 3) unit length, outwards."""
    face: NDArray[np.int64]
    """(T,) the face that each shows."""
    weights: NDArray[np.float64]
    """(T, 3) of the face's corners."""


def texels_of(vertices: FloatArray, faces: Faces, layout: Layout, size: int) -> Texels:
    """What the texels of an image of ``size`` pixels a side show of a surface, vertices (V, 3) and faces (F, 3).

    A texel belongs to the face that contains its centre; where two overlap, to the lower one.
    """
    faces_of, weights_of = np.full((size, size), -1, np.int64), np.zeros((size, size, 3))
    places, flat = layout.uv.astype(np.float64) * size, np.ones(len(layout.uv))
    cover(places, flat, np.ascontiguousarray(layout.faces), False, np.full((size, size), np.inf), faces_of, weights_of)
    owner, weights = faces_of.reshape(-1), weights_of.reshape(-1, 3)
    pixel = np.flatnonzero(owner >= 0)
    face, weight = faces[owner[pixel]], weights[pixel]
    positions = np.einsum("tk,tkc->tc", weight, vertices[face].astype(np.float64))
    normals = np.einsum("tk,tkc->tc", weight, vertex_normals(vertices, faces)[face].astype(np.float64))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return Texels(pixel, positions.astype(np.float32), normals.astype(np.float32), owner[pixel], weight)


def colors_along_normals(
    field: ColorField,
    positions: NDArray[np.float32],
    normals: NDArray[np.float32],
    voxel: float,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """(N, 3) colours in [0, 1] that rays against the normals (N, 3) meet at surface positions (N, 3).

    Composited as the renderer does, from :data:`OUTSIDE` to :data:`INSIDE` voxels, so that they are what renders show:
    neither the fog further out, nor what lies deeper, counts. Where next to nothing is met, the colours are those of
    the densest point.
    """
    distance = torch.linspace(OUTSIDE, -INSIDE, SAMPLES, device=device) * voxel
    step = (OUTSIDE + INSIDE) * voxel / (SAMPLES - 1)
    parts = []
    size = max(1, CHUNK // SAMPLES)
    with torch.no_grad():
        for start in range(0, len(positions), size):
            points = torch.from_numpy(positions[start : start + size]).to(device)
            outward = torch.from_numpy(normals[start : start + size]).to(device)
            along = (points[:, None] + distance[:, None] * outward[:, None]).clamp(-1, 1)
            density, color = field(along.reshape(-1, 3))
            density = density.float().view(-1, SAMPLES)
            passed = torch.cumsum(density, dim=1) * step
            weight = torch.exp(density * step - passed) - torch.exp(-passed)
            weight = torch.where(weight.sum(dim=1, keepdim=True) > 1e-3, weight, density == density.amax(1, True))
            weight = weight / weight.sum(dim=1, keepdim=True)
            parts.append((weight[..., None] * color.float().view(-1, SAMPLES, 3)).sum(dim=1).clamp(0, 1).cpu())
    return torch.cat(parts).numpy() if parts else np.zeros((0, 3), np.float32)


def painted(
    pixel: NDArray[np.int64], colors: NDArray[np.float32], size: int, rest: tuple[float, float, float] | None = None
) -> NDArray[np.uint8]:
    """(size, size, 3) image with ``colors`` (T, 3) at texels (T,), which bleed over the edges of the charts.

    :data:`BLED` texels around a chart get the nearest colour, so that filters which reach over a seam find no other;
    what is further away gets the colour ``rest``, by default the mean, which compresses well.
    """
    image = np.zeros((size * size, 3), np.float32)
    image[:] = rest if rest is not None else colors.mean(axis=0) if len(colors) else 0.5
    texel = nearest_texels(pixel, size)
    image[texel >= 0] = colors[texel[texel >= 0]]
    return np.round(image * 255).astype(np.uint8).reshape(size, size, 3)


def nearest_texels(pixel: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """(size * size,) which of the texels (T,) each pixel of an image has the colour of.

    Its own, or that of the nearest within :data:`BLED`; -1 further away.
    """
    texel = np.full(size * size, -1, np.int64)
    texel[pixel] = np.arange(len(pixel))
    empty = texel < 0
    if len(pixel) and empty.any():
        away, nearest = ndimage.distance_transform_edt(empty.reshape(size, size), return_indices=True)
        row, column = np.nonzero((away > 0) & (away <= BLED * math.sqrt(2)))
        texel[row * size + column] = texel[nearest[0][row, column] * size + nearest[1][row, column]]
    return texel
