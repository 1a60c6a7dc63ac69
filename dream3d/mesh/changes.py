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


class _Grid:
    """Three numbers at each corner of a grid over the volume, limited to a ``largest``, linear between corners."""

    change: Tensor
    """(1, 3, cells, cells, cells) what an optimiser moves: the numbers before the limit."""

    def __init__(self, cells: int, largest: float) -> None:
        self._largest = largest
        self.change = torch.zeros(1, 3, cells, cells, cells, requires_grad=True)

    def limited(self) -> Tensor:
        """The numbers."""
        return self._largest * torch.tanh(self.change / max(self._largest, 1e-6))

    def at(self, places: Tensor) -> Tensor:
        """(3, N) of them at places, see :func:`_places`."""
        return F.grid_sample(self.limited(), places, padding_mode="border", align_corners=True)[0, :, 0, 0]


class Recoloring(_Grid):
    """A texture whose colours change, each channel by a number of the grid."""

    def __init__(self, surface: Surface, layout: Layout, base: Tensor, asked: TextureRefinement) -> None:
        """Of a texture ``base`` (3, S, S) in [0, 1] over a surface."""
        super().__init__(asked.cells, asked.largest_change)
        self._size = base.shape[-1]
        texels = texels_of(surface.vertices, surface.faces, layout, self._size)
        self._nearest = torch.from_numpy(nearest_texels(texels.pixel, self._size))
        self._base, self._places = base.reshape(3, -1), _places(texels.positions)

    def texture(self) -> Tensor:
        """(3, S, S) in [0, 1]."""
        moved = self.at(self._places)
        shown, inside = torch.zeros_like(self._base), self._nearest >= 0
        shown[:, inside] = moved[:, self._nearest[inside]]  # what bleeds over the charts' edges changes alike
        return (self._base + shown).clamp(0, 1).reshape(3, self._size, self._size)


class Moves(_Grid):
    """A surface whose vertices move, along each axis by a number of the grid, in voxels."""

    def __init__(self, surface: Surface, asked: ShapeRefinement) -> None:
        """Of a surface as it is."""
        super().__init__(asked.cells, asked.largest_move)
        self._voxel = surface.voxel
        self._base, self._places = torch.from_numpy(surface.vertices), _places(surface.vertices)

    def _moved(self, vertices: Tensor, places: Tensor) -> Tensor:
        """(N, 3) vertices at these places in the grid, moved; world units."""
        return vertices + self.at(places).t() * self._voxel

    def vertices(self) -> Tensor:
        """(V, 3) of the surface, moved."""
        return self._moved(self._base, self._places)

    def roughness(self) -> Tensor:
        """Mean squared difference of the moves at neighbouring corners, square voxels."""
        moves = self.limited()
        return torch.stack([moves.diff(dim=axis).square().mean() for axis in (2, 3, 4)]).mean()

    @torch.no_grad()
    def applied(self, surface: Surface) -> Surface:
        """A surface with its vertices moved, this one or another in the same place."""
        moved = self._moved(torch.from_numpy(surface.vertices), _places(surface.vertices))
        return replace(surface, vertices=moved.numpy())


def _places(positions: NDArray[np.float32]) -> Tensor:
    """(1, 1, 1, N, 3) places in a grid over the volume [-1, 1]^3: its last axis comes first."""
    return torch.from_numpy(positions[:, [2, 1, 0]].copy())[None, None, None]
