"""The settings of a refinement by the prior: of a texture, and of the shape below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from dream3d.bounds import Between, Settings, Share
from dream3d.errors import UsageError


@dataclass(frozen=True)
class ShapeRefinement(Settings):
    """Vertices moved, together with the texture, towards what the prior makes of views (docs/export.md)."""

    cells: Annotated[int, Between(2, 128)] = 16
    """Along each side of the volume: vertices at its corners move on their own, between them linearly."""
    largest_move: Annotated[float, Between(0, 16)] = 2.0
    """Along each axis, in voxels of the mesh's grid."""
    learning_rate: Annotated[float, Between(0, 16, above=True)] = 0.1
    """Of the first update, in voxels: about how far a corner moves. It falls in a line to 0."""
    smoothness: Annotated[float, Between(0, 1e6)] = 0.01
    """Weight of the mean squared difference, in square voxels, of the moves at neighbouring corners."""


@dataclass(frozen=True)
class TextureRefinement(Settings):
    """A texture moved towards what the prior makes of views of its mesh; the shape too if asked (docs/export.md)."""

    noise: Annotated[float, Between(0, 1, above=True)] = 0.4
    """Fraction of the noise schedule at which the views are denoised from: with more the prior draws another object."""
    denoise_steps: Annotated[int, Between(1, 100)] = 4
    """DDIM steps from the noised views to the prior's."""
    elevations_deg: Annotated[tuple[float, ...], Between(-90, 90)] = (0.0, 30.0)
    """Of the orbits, each of as many views as the prior judges together."""
    updates: Annotated[int, Between(1, 10_000)] = 40
    """Of the texture."""
    learning_rate: Annotated[float, Between(0, 1, above=True)] = 0.02
    """Of Adam at the first update, in colours of a range of 1: about how far a texel moves. It falls in a line to 0."""
    cells: Annotated[int, Between(2, 128)] = 32
    """Along each side of the volume: texels in a cell change alike, between cells linearly. As fine as a pixel of the
    prior's images, it shows their speckle; coarser, it blurs."""
    largest_change: Share = 0.3
    """Of a texel's colour, in each channel."""
    shape: ShapeRefinement | None = None
    """Of the surface below the texture; None: it stays."""

    def __post_init__(self) -> None:
        """See :class:`Settings`; raises UsageError too for no orbit."""
        super().__post_init__()
        if not self.elevations_deg:
            raise UsageError("refinement.elevations_deg is empty; name an elevation in degrees at least")
