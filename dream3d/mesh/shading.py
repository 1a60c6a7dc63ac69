"""Images and turntables of coloured meshes: headlight and ambient light over a plain background."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dream3d.cameras import Cameras, orbit
from dream3d.images import write_animation
from dream3d.mesh.appearance import Appearance, Texture, VertexColors, image_at
from dream3d.mesh.export import Asset
from dream3d.mesh.raster import interpolate_at, rasterize
from dream3d.mesh.srgb import display_values
from dream3d.mesh.surface import Faces, FloatArray, seamless_normals, vertex_normals
from dream3d.mesh.tangents import bitangents, decoded, from_frame, tangents_of, unit


def shade(
    vertices: FloatArray,
    faces: Faces,
    appearance: Appearance | NDArray[np.floating] | NDArray[np.uint8],
    cameras: Cameras,
    height: int,
    width: int,
    *,
    ambient: float = 0.5,
    background: float | tuple[float, float, float] = 1.0,
    supersample: int = 1,
) -> NDArray[np.uint8]:
    """(N, H, W, 3) sRGB images of a mesh with a texture or vertex colours, (V, 3) floats in [0, 1] or uint8.

    Brightness is ambient + (1 - ambient) * max(0, normal . direction to the camera); ``ambient`` 1 shows the bare
    colours. ``supersample`` draws that many times larger in both directions and averages. Light is applied to
    display values: these images are for looking at, not for measuring light. A texture's normal map counts.
    """
    texture = appearance if isinstance(appearance, Texture) else None
    large = height * supersample, width * supersample
    images = np.zeros((len(cameras), height, width, 3), dtype=np.uint8)
    for view, seen in enumerate(surfaces_seen(vertices, faces, appearance, cameras, *large, ambient=ambient)):
        image = np.full((*large, 3), background, dtype=np.float32)
        image[seen.mask] = (seen.looks if texture is None else texture.at(seen.looks[:, :2])) * seen.light
        images[view] = np.round(np.clip(_reduced(image, supersample), 0, 1) * 255)
    return images


@dataclass(frozen=True)
class Seen:
    """What the pixels of a view show of a mesh, as far as they see it."""

    mask: NDArray[np.bool_]
    """(H, W) the P pixels that do."""
    looks: NDArray[np.float32]
    """(P, 3) colours, display values; of a textured mesh places in the image, and a 0."""
    light: NDArray[np.float32]
    """(P, 1) brightness that these are multiplied by."""


def surfaces_seen(
    vertices: FloatArray,
    faces: Faces,
    appearance: Appearance | NDArray[np.floating] | NDArray[np.uint8],
    cameras: Cameras,
    height: int,
    width: int,
    *,
    ambient: float,
) -> Iterator[Seen]:
    """What each view sees of a mesh, and the light on it, as :func:`shade` has it; one at a time, to save memory."""
    bent: NDArray[np.uint8] | None = None
    if isinstance(appearance, Texture):
        uv, bent = appearance.uv, appearance.normals
        skin, normals = np.pad(uv.astype(np.float32), ((0, 0), (0, 1))), seamless_normals(vertices, faces)
    else:
        colors = appearance.values if isinstance(appearance, VertexColors) else appearance
        skin, normals = display_values(np.asarray(colors)), vertex_normals(vertices, faces)
    attributes = np.concatenate([skin, normals, vertices.astype(np.float32)], axis=1)
    if bent is not None:
        tangents = tangents_of(vertices, normals, faces, uv)
        attributes = np.concatenate([attributes, tangents[:, :3], bitangents(normals, tangents)], axis=1)
    for view in range(len(cameras)):
        camera = Cameras(cameras.c2w[view : view + 1], cameras.fovy_deg[view : view + 1])
        fragments = rasterize(vertices, faces, camera, height, width)
        mask = fragments.face[0] >= 0
        at_pixels = interpolate_at(mask[None], fragments, faces, attributes)
        looks, normal, position, *frame = np.split(at_pixels, attributes.shape[1] // 3, axis=1)
        normal = unit(normal)
        if bent is not None:
            normal = from_frame(decoded(image_at(bent, looks[:, :2])), (unit(frame[0]), unit(frame[1]), normal))
        eye = camera.c2w[0, :3, 3].float().cpu().numpy()
        facing = (normal * unit(eye - position)).sum(axis=1, keepdims=True)
        yield Seen(mask, looks, ambient + (1 - ambient) * np.clip(facing, 0, 1))


def shade_asset(
    asset: Asset, cameras: Cameras, size: int, background: float | tuple[float, float, float]
) -> NDArray[np.uint8]:
    """(N, size, size, 3) sRGB images of an asset, its box centred, in the unit sphere, as :func:`shade` makes them."""
    vertices = np.asarray(asset.vertices)
    vertices = vertices - (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    vertices = vertices / max(float(np.linalg.norm(vertices, axis=1).max()), 1e-12)
    faces = np.asarray(asset.faces, np.int64)
    return shade(vertices, faces, asset.appearance, cameras, size, size, background=background, supersample=2)


def write_turntable(
    path: Path, vertices: FloatArray, faces: Faces, appearance: Appearance, *, frames: int = 48, size: int = 256
) -> None:
    """An mp4 of the mesh turning once, 24 frames a second; ``size`` in pixels is a multiple of 16."""
    cameras = orbit(frames, elevation_deg=15)
    images = shade(vertices, faces, appearance, cameras, size, size, supersample=2)
    write_animation(path, images, frames_per_second=24)


def _reduced(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """(H, W, 3) means of squares of ``factor`` x ``factor`` pixels; numpy's own mean takes five times as long."""
    corners = [(row, column) for row in range(factor) for column in range(factor)]
    total = sum((image[row::factor, column::factor] for row, column in corners[1:]), image[::factor, ::factor])
    return total / np.float32(factor * factor)
