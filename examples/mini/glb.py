"""Textured parts of a game's model, written as one GLB file: y up, front towards +z, as the product reads it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

MOST_PIXELS = 256
"""A side of a texture; the views have 64 pixels, and a finer texture only flickers."""
OPAQUE = 128
"""Alpha from which a texel hides what is behind it."""
MIRROR = np.array([-1.0, 1.0, 1.0])
"""Both games are left-handed with y up and fronts towards +z; glTF is right-handed."""


@dataclass(frozen=True)
class Triangles:
    """A surface in the game's left-handed frame."""

    vertices: NDArray[np.float64]
    """(N, 3)."""
    uv: NDArray[np.float64]
    """(N, 2), v upwards."""
    faces: NDArray[np.int64]
    """(M, 3)."""
    normals: NDArray[np.float64]
    """(N, 3), of any length; faces are flat if one is 0."""


@dataclass(frozen=True)
class Part(Triangles):
    """Triangles with one texture."""

    image: Image.Image
    """RGB, or RGBA where the alpha cuts holes."""


def cropped(uv: NDArray[np.float64], image: Image.Image) -> tuple[NDArray[np.float64], Image.Image]:
    """The part of a texture that is used, at most :data:`MOST_PIXELS` a side, and ``uv`` in it.

    Buildings share one large texture and use a corner of it each. A texture that repeats is only made smaller.
    """
    low, high = uv.min(0), uv.max(0)
    if (low >= -1e-3).all() and (high <= 1 + 1e-3).all():
        size = np.array(image.size)
        first = np.floor(np.clip(low, 0, 1) * size - 1).clip(0)
        last = np.minimum(np.ceil(np.clip(high, 0, 1) * size + 1), size)
        left, right = int(first[0]), int(last[0])
        top, bottom = int(size[1] - last[1]), int(size[1] - first[1])
        image = image.crop((left, top, right, bottom))
        uv = (uv * size - first) / (last - first)
    if image.mode == "RGBA" and np.asarray(image)[..., 3].min() >= OPAQUE:
        image = image.convert("RGB")
    scale = MOST_PIXELS / max(image.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
    return uv, image


def write_glb(parts: Iterable[Part], path: Path) -> None:
    """Write the parts; the mirror image makes them right-handed."""
    scene: Any = trimesh.Scene()
    visuals: Any = trimesh.visual
    for part in parts:
        uv, image = cropped(part.uv, part.image)
        material = visuals.material.PBRMaterial(
            baseColorTexture=image,
            metallicFactor=0.0,
            roughnessFactor=1.0,
            doubleSided=True,
            alphaMode="MASK" if image.mode == "RGBA" else "OPAQUE",
            alphaCutoff=0.5 if image.mode == "RGBA" else None,
        )
        visual = visuals.TextureVisuals(uv=uv, material=material)
        length = np.linalg.norm(part.normals, axis=1, keepdims=True)
        mesh = trimesh.Trimesh(
            part.vertices * MIRROR,
            part.faces[:, ::-1],
            vertex_normals=part.normals / length * MIRROR if (length > 0).all() else None,
            visual=visual,
            process=False,
        )
        scene.add_geometry(mesh)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(scene.export(file_type="glb"))
