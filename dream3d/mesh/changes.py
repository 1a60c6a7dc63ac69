"""Changes of a texture and of vertices by a grid over the volume, whose corners are what an optimiser moves.

Between corners they are linear: what lies near each other changes alike, whether anything sees it or not. Seams of a
texture do not show, and what is joined stays joined.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dream3d.mesh.bake import nearest_texels, texels_of
from dream3d.mesh.layout import Layout
from dream3d.mesh.surface import Surface
from dream3d.recipe.refinement import ShapeRefinement, TextureRefinement


class Recoloring:
    """A texture whose colours change."""

    change: Tensor
    """(1, 3, cells, cells, cells) of each channel at the corners, before the limit."""

    def __init__(self, surface: Surface, layout: Layout, base: Tensor, asked: TextureRefinement) -> None:
        """Of a texture ``base`` (3, S, S) in [0, 1] over a surface."""
        self._size, self._largest = base.shape[-1], asked.largest_change
        texels = texels_of(surface.vertices, surface.faces, layout, self._size)
        self._nearest = torch.from_numpy(nearest_texels(texels.pixel, self._size))
        self._base, self._places = base.reshape(3, -1), _places(texels.positions)
        self.change = torch.zeros(1, 3, asked.cells, asked.cells, asked.cells, requires_grad=True)

    def texture(self) -> Tensor:
        """(3, S, S) in [0, 1]."""
        limited = self._largest * torch.tanh(self.change / max(self._largest, 1e-6))
        moved = F.grid_sample(limited, self._places, padding_mode="border", align_corners=True)[0, :, 0, 0]
        shown, inside = torch.zeros_like(self._base), self._nearest >= 0
        shown[:, inside] = moved[:, self._nearest[inside]]  # what bleeds over the charts' edges changes alike
        return (self._base + shown).clamp(0, 1).reshape(3, self._size, self._size)


class Moves:
    """A surface whose vertices move."""

    change: Tensor
    """(1, 3, cells, cells, cells) along each axis at the corners, in voxels, before the limit."""

    def __init__(self, surface: Surface, asked: ShapeRefinement) -> None:
        """Of a surface as it is."""
        self._largest, self._voxel = asked.largest_move, surface.voxel
        self._base, self._places = torch.from_numpy(surface.vertices), _places(surface.vertices)
        self.change = torch.zeros(1, 3, asked.cells, asked.cells, asked.cells, requires_grad=True)

    def _limited(self) -> Tensor:
        return self._largest * torch.tanh(self.change / max(self._largest, 1e-6))

    def _at(self, places: Tensor) -> Tensor:
        """(N, 3) moves in world units."""
        found = F.grid_sample(self._limited(), places, padding_mode="border", align_corners=True)
        return found[0, :, 0, 0].t() * self._voxel

    def vertices(self) -> Tensor:
        """(V, 3) of the surface, moved."""
        return self._base + self._at(self._places)

    def roughness(self) -> Tensor:
        """Mean squared difference of the moves at neighbouring corners, square voxels."""
        moves = self._limited()
        return torch.stack([moves.diff(dim=axis).square().mean() for axis in (2, 3, 4)]).mean()

    @torch.no_grad()
    def applied(self, surface: Surface) -> Surface:
        """A surface with its vertices moved, this one or another in the same place."""
        moved = torch.from_numpy(surface.vertices) + self._at(_places(surface.vertices))
        return replace(surface, vertices=moved.numpy())


def _places(positions: NDArray[np.float32]) -> Tensor:
    """(1, 1, 1, N, 3) places in a grid over the volume [-1, 1]^3: its last axis comes first."""
    return torch.from_numpy(positions[:, [2, 1, 0]].copy())[None, None, None]
