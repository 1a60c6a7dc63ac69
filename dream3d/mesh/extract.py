"""The surface of a radiance field with colours: marching cubes (scikit-image), clean-up, vertex colours, texture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import measure
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.errors import CollapsedFieldError
from dream3d.mesh.appearance import Appearance, Texture, VertexColors
from dream3d.mesh.bake import ColorField, colors_along_normals, painted, texels_of
from dream3d.mesh.decimate import decimate
from dream3d.mesh.grid import SMALLEST_DENSITY, DensityFn, raw_from_density, sample_density_grid
from dream3d.mesh.iso import IsoChoice, Masks, choose_iso_level, mean_iou
from dream3d.mesh.layout import Layout
from dream3d.mesh.normal_map import normal_colors
from dream3d.mesh.raster import silhouettes
from dream3d.mesh.smooth import smooth
from dream3d.mesh.surface import Faces, Surface, drop_small_components, is_watertight, vertex_normals
from dream3d.mesh.unwrap import unwrap
from dream3d.recipe.mesh import MeshRecipe

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
    notes: tuple[str, ...] = ()
    """Sentences for the user: where the surface or its texture is not as the recipe asks."""
    layout: Layout | None = None
    """The surface laid flat, if it has a texture."""
    image: NDArray[np.uint8] | None = None
    """(S, S, 3) the texture, sRGB display values."""
    fine: Surface | None = None
    """The surface as it was before its faces became fewer, if they did."""
    normals: NDArray[np.uint8] | None = None
    """(S, S, 3) a normal map with the shape of the fine surface, if there is a texture and a fine surface."""

    @property
    def watertight(self) -> bool:
        """Whether the surface is closed. A texture's seams open nothing: their vertices are in the same places."""
        return is_watertight(self.surface.faces)

    @property
    def texture(self) -> int:
        """Side of the texture, pixels; 0 if the vertices are coloured."""
        return 0 if self.image is None else len(self.image)

    @property
    def skin(self) -> tuple[NDArray[np.float32], Faces, Appearance]:
        """Vertices (V, 3), faces (F, 3) and appearance to be drawn or written: with the texture if there is one."""
        if self.layout is None or self.image is None:
            return self.surface.vertices, self.surface.faces, VertexColors(self.colors)
        layout = self.layout
        return self.surface.vertices[layout.source], layout.faces, Texture(layout.uv, self.image, self.normals)


def mesh_from_field(
    density_fn: DensityFn,
    color_fn: ColorFn,
    masks: Masks,
    cameras: Cameras,
    recipe: MeshRecipe,
    *,
    device: torch.device | str = "cpu",
) -> FieldMesh:
    """Extract the surface that looks like the field at ``cameras``, smooth it, reduce its faces, colour its vertices.

    ``masks`` (V, H, W): where the field's rendered opacity at those cameras is over one half. A texture is for
    :func:`with_texture`. Raises CollapsedFieldError, see :func:`dream3d.mesh.iso.choose_iso_level`.
    """
    grid = sample_density_grid(density_fn, recipe.resolution, device=device)
    choice = choose_iso_level(grid, masks, cameras)
    surface = extract_surface(grid, choice.level, recipe.min_component_fraction)
    del grid  # at 1024 cells a side it takes 4 GB

    def drawn_with(vertices: NDArray[np.float32], faces: Faces) -> Masks:
        return silhouettes(vertices, faces, cameras, *masks.shape[1:])

    def fit(vertices: NDArray[np.float32]) -> float:
        return mean_iou(drawn_with(vertices, extracted), masks)

    extracted = surface.faces
    vertices = smooth(surface.vertices, extracted, recipe.smoothing, fit)
    fewer = decimate(vertices, extracted, recipe.faces)
    fine = replace(surface, vertices=vertices) if len(fewer.faces) < len(extracted) else None
    surface = replace(surface, vertices=fewer.vertices, faces=fewer.faces)
    colors = color_vertices(surface, color_fn, device=device)
    drawn = drawn_with(surface.vertices, surface.faces)
    notes = [fewer.note] if fewer.note else []
    if not is_watertight(surface.faces):
        notes.append("the surface is not closed everywhere")
    return FieldMesh(surface, colors, choice, mean_iou(drawn, masks), drawn, tuple(notes), fine=fine)


def with_texture(
    mesh: FieldMesh, field: ColorField, size: int, *, normal_map: bool = False, device: torch.device | str = "cpu"
) -> FieldMesh:
    """The mesh with a texture of ``size`` pixels a side, which shows the field's colours; as it is for size 0.

    With a ``normal_map`` a second image of that size keeps the shape of the fine surface, if the mesh has one.
    """
    if size == 0:
        return mesh
    surface = mesh.surface
    layout, note = unwrap(surface.vertices, surface.faces, size)
    texels = texels_of(surface.vertices, surface.faces, layout, size)
    colors = colors_along_normals(field, texels.positions, texels.normals, surface.voxel, device)
    notes = (*mesh.notes, note) if note else mesh.notes
    mesh = replace(mesh, layout=layout, image=painted(texels.pixel, colors, size), notes=notes)
    if not normal_map or mesh.fine is None:
        return mesh
    directions = normal_colors(mesh.fine, surface.vertices, surface.faces, layout, texels)
    return replace(mesh, normals=painted(texels.pixel, directions, size, rest=(0.5, 0.5, 1)))


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
