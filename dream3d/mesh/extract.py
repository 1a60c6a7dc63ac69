"""The coloured surface of a radiance field: marching cubes (scikit-image), clean-up and vertex colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import measure
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.errors import CollapsedFieldError
from dream3d.mesh.grid import SMALLEST_DENSITY, DensityFn, raw_from_density, sample_density_grid
from dream3d.mesh.iso import IsoChoice, Masks, choose_iso_level, mean_iou
from dream3d.mesh.raster import silhouettes
from dream3d.mesh.surface import Surface, drop_small_components, vertex_normals
from dream3d.recipe.generation import MeshRecipe

ColorFn = Callable[[Tensor], Tensor]
"""(N, 3) world positions -> (N, 3) sRGB display values in [0, 1]."""


@dataclass(frozen=True)
class FieldMesh:
    """What :func:`mesh_from_field` made, and how well it fits."""

    surface: Surface
    colors: NDArray[np.float32]
    """(V, 3) sRGB display values in [0, 1]."""
    choice: IsoChoice
    iou: float
    """Mean IoU of the finished mesh's silhouettes and the field's, measured with the rasteriser."""
    silhouettes: Masks
    """(V, H, W) pixels that the finished mesh covers, at the cameras it was fitted to."""


def mesh_from_field(
    density_fn: DensityFn,
    color_fn: ColorFn,
    masks: Masks,
    cameras: Cameras,
    recipe: MeshRecipe,
    *,
    device: torch.device | str = "cpu",
) -> FieldMesh:
    """Extract the surface that looks like the field at ``cameras``, and colour it.

    ``masks`` (V, H, W): where the field's rendered opacity at those cameras is over one half.
    Raises CollapsedFieldError, see :func:`dream3d.mesh.iso.choose_iso_level`.
    """
    grid = sample_density_grid(density_fn, recipe.resolution, device=device)
    choice = choose_iso_level(grid, masks, cameras)
    surface = extract_surface(grid, choice.level, recipe.min_component_fraction)
    colors = color_vertices(surface, color_fn, device=device)
    drawn = silhouettes(surface.vertices, surface.faces, cameras, *masks.shape[1:])
    return FieldMesh(surface, colors, choice, mean_iou(drawn, masks), drawn)


def extract_surface(grid: NDArray[np.float32], level: float, min_component_fraction: float = 0.0) -> Surface:
    """The closed surface around {density >= level}, in world units, faces outwards, cavities filled.

    ``grid`` is (R+1, R+1, R+1) densities on the corners of [-1, 1]^3; ``level`` a density per world unit. An object
    that reaches the cube's border is closed by a flat cap on it. Components with less than
    ``min_component_fraction`` of the largest one's volume are dropped. Raises CollapsedFieldError if nothing in
    the grid is as dense as ``level``, ValueError for a level that is not a positive density.
    """
    if not level > SMALLEST_DENSITY:
        raise ValueError(f"the level must be a density over {SMALLEST_DENSITY}, got {level}")
    if not grid.max() > level:
        raise CollapsedFieldError(
            f"the field has no surface at density {level:.3g}: its largest is {grid.max():.3g}; use a lower level"
        )
    # Interpolated in the space where the field is straightest (see raw_from_density), inside a shell of emptiness.
    padded = np.pad(raw_from_density(grid), 1, constant_values=raw_from_density(np.zeros(1))[0])
    voxel = 2 / (grid.shape[0] - 1)
    vertices, faces, _, _ = measure.marching_cubes(  # type: ignore[no-untyped-call]
        padded, float(raw_from_density(np.array(level))), spacing=(voxel,) * 3, gradient_direction="ascent"
    )
    # The cap's vertices lie on edges that leave the cube straight outwards; clipping moves them onto its border,
    # where each meets the grid corner that its edge started from, so the surface stays closed.
    vertices = np.clip(vertices - (1 + voxel), -1, 1).astype(np.float32)
    vertices, faces = drop_small_components(vertices, faces.astype(np.int64), min_component_fraction)
    return Surface(vertices, faces, voxel)


def color_vertices(
    surface: Surface,
    color_fn: ColorFn,
    *,
    inset: float | None = None,
    chunk: int = 1 << 18,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """(V, 3) sRGB display values in [0, 1] of the field just below every vertex.

    ``inset`` is the depth along the inward normal in world units, half a voxel by default: at the surface itself
    the field is half transparent, so training pushed its colour towards the background's there.
    """
    depth = surface.voxel / 2 if inset is None else inset
    points = torch.from_numpy(surface.vertices - depth * vertex_normals(surface.vertices, surface.faces))
    with torch.no_grad():
        parts = [color_fn(part.float().to(device)).float().cpu() for part in torch.split(points, chunk)]
    return torch.cat(parts).clamp(0, 1).numpy()
