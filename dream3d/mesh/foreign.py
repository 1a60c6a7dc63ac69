"""Models of other programs: all parts of a scene as one surface with one picture, to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from dream3d.errors import ExportError
from dream3d.mesh.appearance import Appearance, Texture, VertexColors
from dream3d.mesh.export import Asset, Placement
from dream3d.mesh.formats.readback import appearance_of
from dream3d.mesh.srgb import display_values, linear_from_srgb, srgb_from_linear

MAX_ATLAS_SIDE = 2048
"""Pixels: wider textures are made smaller."""
_GREY = (0.7, 0.7, 0.7)
"""Of parts that name no colour."""


@dataclass(frozen=True)
class _Part:
    positions: NDArray[np.float64]
    """(V, 3) in the scene's frame."""
    faces: NDArray[np.int64]
    look: Appearance


def read_scene(path: Path) -> Asset:
    """All parts of a model file, where its nodes put them: z up, front +x if the file has y up and its front on +z.

    Colours are what textures, vertex colours and base colours say; light, metal, transparency and animations are left
    out. Textures are laid into one picture: there, a face whose texture repeats shows it once, and vertex colours
    become their mean. The file must have passed :func:`dream3d.dataset.check.file.check_file` before. Raises
    ExportError for one that cannot be read or has no surface.
    """
    try:
        scene = trimesh.load_scene(path, process=False)
        parts = [part for node in sorted(scene.graph.nodes_geometry) if (part := _part(scene, node)) is not None]
    except Exception as error:  # a foreign file can fail in any of a parser's ways
        raise ExportError(f"{path} cannot be read as a model ({type(error).__name__}: {error})") from error
    if not parts:
        raise ExportError(f"{path} has no surface: not one triangle")
    # Every face gets corners of its own: a corner may lie in another place of the picture for each of them.
    corners = np.concatenate([part.positions[part.faces].reshape(-1, 3) for part in parts])
    if not np.isfinite(corners).all():
        raise ExportError(f"{path} has vertices that are not finite")
    look = _atlas(parts) if any(isinstance(part.look, Texture) for part in parts) else _colors(parts)
    world = Placement((0.0, 0.0, 0.0), 1.0).to_world(corners).astype(np.float32)
    return Asset(world, np.arange(len(corners)).reshape(-1, 3), look)


def _part(scene: Any, node: str) -> _Part | None:
    transform, name = scene.graph[node]
    mesh = scene.geometry[name]
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        return None
    positions = trimesh.transform_points(np.asarray(mesh.vertices, np.float64), transform)
    return _Part(np.asarray(positions), np.asarray(mesh.faces, np.int64), _look(mesh))


def _look(mesh: Any) -> Appearance:
    found = appearance_of(mesh.visual)
    factor = _base_color(getattr(mesh.visual, "material", None))
    if found is None:
        color = np.asarray(_GREY if factor is None else srgb_from_linear(factor), np.float32)
        return VertexColors(np.tile(color, (len(mesh.vertices), 1)))
    if isinstance(found, Texture) and factor is not None and factor.min() < 1:
        light = linear_from_srgb(found.image / 255) * factor
        return Texture(found.uv, np.rint(srgb_from_linear(light) * 255).astype(np.uint8))
    return found


def _base_color(material: Any) -> NDArray[np.float64] | None:
    """(3,) linear light in [0, 1] that a material multiplies its texture by; None if it names none."""
    factor = getattr(material, "baseColorFactor", None)
    if factor is not None:
        values = np.asarray(factor)
        return np.clip(display_values(values)[:3].astype(np.float64), 0, 1)
    diffuse = getattr(material, "diffuse", None)  # of OBJ, in display values; with a texture it is often a dark mistake
    if diffuse is None or getattr(material, "image", None) is not None:
        return None
    return linear_from_srgb(np.clip(display_values(np.asarray(diffuse))[:3], 0, 1))


def _colors(parts: list[_Part]) -> VertexColors:
    """Of scenes without a texture."""
    values = [display_values(np.asarray(part.look.values))[part.faces].reshape(-1, 3) for part in _colored(parts)]
    return VertexColors(np.concatenate(values))


def _colored(parts: list[_Part]) -> list[Any]:
    return [part for part in parts if isinstance(part.look, VertexColors)]


def _atlas(parts: list[_Part]) -> Texture:
    """The textures of all parts under each other, of one width."""
    pictures = [_picture(part) for part in parts]
    width = min(max(picture.shape[1] for picture in pictures), MAX_ATLAS_SIDE)
    strips = [_with_width(picture, width) for picture in pictures]
    total, top, places = sum(len(strip) for strip in strips), 0, []
    for part, strip in zip(parts, strips, strict=True):
        uv = np.zeros((len(part.faces), 3, 2))
        if isinstance(part.look, Texture):
            uv = np.asarray(part.look.uv, np.float64)[part.faces]
            uv = np.where(np.isfinite(uv), uv, 0)
            uv = np.clip(uv - np.floor(uv.min(axis=1, keepdims=True) + 1e-9), 0, 1)  # where the texture repeats
        # Half a pixel inside, or the strips would run into each other.
        rows = np.clip(uv[..., 1] * len(strip), 0.5, len(strip) - 0.5) + top
        places.append(np.stack([uv[..., 0], rows / total], axis=-1).reshape(-1, 2))
        top += len(strip)
    return Texture(np.concatenate(places).astype(np.float32), np.concatenate(strips))


def _picture(part: _Part) -> NDArray[np.uint8]:
    if isinstance(part.look, Texture):
        return part.look.image
    mean = display_values(np.asarray(part.look.values)).mean(axis=0)
    return np.rint(np.clip(mean, 0, 1) * 255).astype(np.uint8)[None, None]


def _with_width(picture: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    height = max(1, round(picture.shape[0] * width / picture.shape[1])) if picture.shape[1] > 1 else 1
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
