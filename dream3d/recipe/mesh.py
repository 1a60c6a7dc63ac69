"""The settings of what comes after the optimisation: from the field to the asset's surface and colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from dream3d.bounds import Between, Settings, Share
from dream3d.errors import UsageError

MIN_FACES, MIN_TEXTURE = 100, 64
"""Of an asset whose faces are counted, and of a texture's side in pixels, if it has one."""

Resolution = Annotated[int, Between(8, 1024)]
"""Cells along a side of a mesh grid."""
FaceCount = Annotated[int, Between(0, 10_000_000)]
"""Of an asset; 0 for all that were extracted."""
TextureSize = Annotated[int, Between(0, 8192)]
"""Side of a texture, pixels; 0 for none."""


@dataclass(frozen=True)
class MeshRecipe(Settings):
    """From the field to the asset's surface and colours (docs/export.md)."""

    resolution: Resolution = 128
    """Cells of the marching-cubes grid along each side of the cube."""
    min_component_fraction: Share = 0.01
    """Components with less than this share of the largest one's volume are dropped as specks."""
    smoothing: Annotated[int, Between(0, 100)] = 20
    """Rounds of Taubin smoothing at most; fewer where the silhouettes would change."""
    faces: FaceCount = 20_000
    """Of the asset, about; 0 keeps all that were extracted."""
    texture: TextureSize = 1024
    """Side of the texture, pixels; 0 colours vertices instead."""
    normal_map: bool = True
    """A second image over a textured surface whose faces were reduced: it keeps the shape that these have lost."""

    def __post_init__(self) -> None:
        """See :class:`Settings`; raises UsageError too for a mesh or a texture too small to show anything."""
        super().__post_init__()
        for name, least in (("faces", MIN_FACES), ("texture", MIN_TEXTURE)):
            value = getattr(self, name)
            if 0 < value < least:
                raise UsageError(f"mesh.{name} is {value}, which should be 0 or at least {least}")
