"""Furniture in other colours than its own, so that a colour in a prompt means something for it too.

python repaint.py furniture.json package/usr/share/sweethome3d/furniture --out painted --colors 4 --seed 1

Of each object that the list marks with "paint", and that has one main colour, the parts of that colour are painted;
legs, screens and cushions of another colour stay as they are. Light and dark of a texture stay too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from glb import MIRROR, Part, write_glb
from numpy.typing import NDArray
from PIL import Image

from dream3d.dataset.assets.sh3f import extract
from dream3d.dataset.assets.sources import find_assets
from dream3d.dataset.captions.templates import COLOR_WORDS, words
from dream3d.dataset.check.file import check_file
from dream3d.dataset.records import Pass, SourceAsset
from dream3d.dataset.rendering.scene import OffscreenScene
from dream3d.dataset.rendering.views import generator
from dream3d.errors import DatasetError

PAINTS = {
    "red": (200, 28, 24),
    "orange": (240, 130, 20),
    "yellow": (245, 210, 40),
    "green": (40, 150, 55),
    "blue": (40, 85, 210),
    "purple": (125, 45, 165),
    "pink": (240, 130, 175),
    "brown": (115, 68, 35),
    "black": (30, 30, 30),
    "white": (240, 240, 240),
    "grey": (125, 125, 125),
}
MAIN_SHARE = 0.4
"""Of the surface: less is no main colour."""
ORBIT = Pass(20.0, 40.0, 3.0, (30.0, 120.0, 210.0, 300.0))
DIFFERENT = 25
"""Steps of 255 by which a painted pixel changes."""
KEPT = ("name", "rotation", "turn_deg", "licence", "author", "source")
ALIKE = 60.0
"""RGB distance up to which a part has the main colour."""


def read_parts(file: Path) -> list[Part]:
    """The textured parts of a model file, flat colours as textures too; ``uv`` of those is 0."""
    parts = []
    scene = trimesh.load_scene(str(file), process=False, skip_materials=False)
    for name in scene.graph.nodes_geometry:
        transform, geometry = scene.graph[name]
        mesh: Any = scene.geometry[geometry]
        if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
            continue
        points = trimesh.transform_points(mesh.vertices, transform)
        normals = np.asarray(mesh.vertex_normals) if "vertex_normals" in mesh._cache else np.zeros_like(points)
        uv, image = _skin(mesh)
        faces = np.asarray(mesh.faces, np.int64)[:, ::-1]
        parts.append(Part(points * MIRROR, uv, faces, normals * MIRROR, image))
    return parts


def painted(parts: Sequence[Part], paint: tuple[int, int, int]) -> list[Part] | None:
    """The parts with another main colour; None if they have no main colour."""
    colors = np.array([np.asarray(part.image.convert("RGB")).mean((0, 1)) for part in parts])
    areas = np.array([_area(part) for part in parts])
    near = np.linalg.norm(colors[:, None] - colors[None], axis=-1) < ALIKE
    main = near[int((near @ areas).argmax())]
    if areas[main].sum() < MAIN_SHARE * areas.sum():
        return None
    lights = np.array([np.asarray(part.image.convert("L")).mean() for part in parts])
    light = max(float((lights[main] * areas[main]).sum() / areas[main].sum()), 20.0)
    return [_repainted(part, paint, light) if own else part for part, own in zip(parts, main, strict=True)]


def share_seen(scene: OffscreenScene, asset: SourceAsset, files: Sequence[Path]) -> float:
    """The share of an object's image that is not the same in all its paints: paint may lie inside, or below."""
    images = []
    for file in files:
        scene.load(file, asset)
        images.append(np.array([scene.render(ORBIT, azimuth).rgba for azimuth in ORBIT.azimuths_deg], np.int16))
    first, solid = images[0], images[0][..., 3] == 255
    differs = [np.abs(other[..., :3] - first[..., :3]).max(-1) > DIFFERENT for other in images[1:]]
    return float(np.any(differs, axis=0)[solid].mean())


def repaint(assets: Sequence[SourceAsset], out: Path, count: int, seed: int) -> Iterator[dict[str, object]]:
    """Write ``count`` (2 or more) painted models of each asset; yields the manifest's rows."""
    scene = OffscreenScene(48)
    for asset in assets:
        with tempfile.TemporaryDirectory() as folder:
            file = extract(asset, Path(folder))
            try:
                check_file(file)
                parts = read_parts(file)
            except DatasetError as error:
                print(f"{asset.key}: {error}")
                continue
        chosen = generator(seed, asset.key, "paint").permutation(list(PAINTS))[:count]
        models = {color: painted(parts, PAINTS[color]) for color in chosen}
        files = {color: out / f"{asset.key[:60]}-{color}.glb" for color in chosen}
        for color, model in models.items():
            if model is not None:
                write_glb(model, files[color])
        if None in models.values() or share_seen(scene, asset, list(files.values())) < MAIN_SHARE:
            print(f"{asset.key}: no main colour")
            continue
        captions = [text for text in asset.captions if not words(text) & COLOR_WORDS]
        same = {name: getattr(asset, name) for name in KEPT}
        for color, file in files.items():
            yield same | {"key": file.stem, "path": file.name, "colors": [color], "captions": captions}


def _skin(mesh: Any) -> tuple[NDArray[np.float64], Image.Image]:
    """Texture coordinates and texture of a mesh; of a flat colour, four pixels of it."""
    material = getattr(mesh.visual, "material", None)
    diffuse = np.asarray(getattr(material, "diffuse", None) if material is not None else (204, 204, 204, 255))[:3]
    image, uv = getattr(material, "image", None), getattr(mesh.visual, "uv", None)
    if image is None or uv is None or len(uv) != len(mesh.vertices):
        flat = np.broadcast_to(diffuse.astype(np.uint8), (2, 2, 3))
        return np.zeros((len(mesh.vertices), 2)), Image.fromarray(np.ascontiguousarray(flat))
    pixels = np.asarray(image.convert("RGB"))
    if diffuse.max() >= 77:  # darker ones are an exporter's mistake beside a texture
        pixels = np.round(pixels * (diffuse / 255)).astype(np.uint8)
    return np.asarray(uv, np.float64), Image.fromarray(pixels)


def _repainted(part: Part, paint: tuple[int, int, int], light: float) -> Part:
    grey = np.asarray(part.image.convert("L"), np.float64)[..., None] / light
    pixels = np.clip(np.round(np.clip(grey, 0, 1.5) * np.array(paint)), 0, 255).astype(np.uint8)
    return Part(part.vertices, part.uv, part.faces, part.normals, Image.fromarray(pixels))


def _area(part: Part) -> float:
    a, b, c = (part.vertices[part.faces[:, i]] for i in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("select", type=Path)
    parser.add_argument("catalogues", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--colors", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    marked = {item["id"] for item in json.loads(arguments.select.read_text(encoding="utf-8")) if item.get("paint")}
    assets = [asset for asset in find_assets([arguments.catalogues], arguments.select) if asset.key in marked]
    rows = list(repaint(assets, arguments.out, arguments.colors, arguments.seed))
    (arguments.out / "assets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} painted models: {arguments.out}")


if __name__ == "__main__":
    main()
