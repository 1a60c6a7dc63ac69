"""How well a finished run's exported assets show its field: with a texture, with vertex colours, and with all faces.

    dream3d generate "a chair" --steps 120 --out chair.glb
    python examples/texture.py runs/a-chair-0 --out texture.json --picture chair.png

Each asset is written as GLB, read back, and drawn without light at 16 views; the field is rendered at the same views,
and the two are compared by PSNR: over whole images, where the field's soft outline counts most, and over the pixels
inside, where the field is opaque (0.99) and every asset is. All are drawn over the field's own background.

The picture has a row for the plainest asset (all faces, vertex colours) and one for the textured one, under one light.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream3d.cameras import Cameras, orbit
from dream3d.finish import extract_mesh, write_asset
from dream3d.mesh.export import Asset
from dream3d.mesh.extract import with_texture
from dream3d.mesh.raster import silhouettes
from dream3d.mesh.reading import read_asset
from dream3d.mesh.shading import shade
from dream3d.recipe.mesh import MeshRecipe
from dream3d.remake import KeptField, read_field
from dream3d.render.scene import Scene

VIEWS, SIDE = 16, 256
PICTURE_SIDE = 512
OPAQUE = 0.99


def assets(recipe: MeshRecipe) -> dict[str, MeshRecipe]:
    """The assets to be compared, by name."""
    return {
        "texture": recipe,
        "vertex colours": replace(recipe, texture=0),
        "vertex colours, all faces, not smoothed": replace(recipe, texture=0, faces=0, smoothing=0),
    }


def background_of(scene: Scene) -> tuple[float, float, float]:
    """The colour of a fixed background."""
    red, green, blue = scene.background.state_dict()["color"].tolist()
    return red, green, blue


def make(kept: KeptField, recipe: MeshRecipe, path: Path) -> tuple[Asset, dict[str, Any]]:
    """An asset, read back from its file, and figures about it."""
    scene, began = kept.scene, time.perf_counter()
    mesh, _ = extract_mesh(scene, replace(recipe, texture=0))
    extracted = time.perf_counter()
    mesh = with_texture(mesh, scene.field, recipe.texture, normal_map=recipe.normal_map, device=scene.device)
    textured = time.perf_counter()
    report = write_asset(mesh, {}, path)
    figures = {
        "faces": report.faces,
        "vertices": report.vertices,
        "bytes": report.bytes,
        "watertight": mesh.watertight,
        "silhouette_iou": round(mesh.iou, 4),
        "seconds_surface": round(extracted - began, 1),
        "seconds_texture": round(textured - extracted, 1),
        "notes": mesh.notes,
    }
    return read_asset(path), figures


def psnr(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Decibels of images in [0, 1]."""
    return round(float(-10 * np.log10(np.square(first - second).mean())), 2)


def compare(kept: KeptField, made: dict[str, Asset], cameras: Cameras) -> dict[str, dict[str, float]]:
    """The PSNR of each asset's pictures and the field's renders."""
    rendering = kept.scene.evaluate(cameras, SIDE)
    wanted = rendering.color.cpu().numpy()
    inside = rendering.opacity[..., 0].cpu().numpy() > OPAQUE
    for asset in made.values():
        inside &= silhouettes(asset.vertices, np.asarray(asset.faces, np.int64), cameras, SIDE, SIDE)
    background = background_of(kept.scene)
    result = {}
    for name, asset in made.items():
        faces = np.asarray(asset.faces, np.int64)
        look = asset.vertices, faces, asset.appearance
        shaded = shade(*look, cameras, SIDE, SIDE, ambient=1.0, background=background, supersample=2)
        drawn = shaded.astype(np.float32) / 255
        result[name] = {"psnr": psnr(drawn, wanted), "psnr_inside": psnr(drawn[inside], wanted[inside])}
    return result


def draw(asset: Asset) -> NDArray[np.uint8]:
    """A row of two views, (PICTURE_SIDE, 2 * PICTURE_SIDE, 3), under a light at the camera."""
    faces = np.asarray(asset.faces, np.int64)
    cameras = orbit(2, elevation_deg=15, azimuth_deg=35)
    return np.concatenate(
        list(shade(asset.vertices, faces, asset.appearance, cameras, PICTURE_SIDE, PICTURE_SIDE, supersample=2)), axis=1
    )


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--faces", type=int, default=MeshRecipe.faces)
    parser.add_argument("--texture", type=int, default=MeshRecipe.texture)
    arguments = parser.parse_args()
    kept = read_field(arguments.run)
    recipe = replace(kept.recipe.mesh, faces=arguments.faces, texture=arguments.texture)
    made, figures = dict[str, Asset](), dict[str, dict[str, Any]]()
    with TemporaryDirectory() as folder:
        for name, one in assets(recipe).items():
            made[name], figures[name] = make(kept, one, Path(folder) / "asset.glb")
            print(name, figures[name], flush=True)
    for name, values in compare(kept, made, orbit(VIEWS, elevation_deg=20, azimuth_deg=11)).items():
        figures[name] |= values
        print(name, values, flush=True)
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.picture is not None:
        *_, plainest = made.values()
        rows = [draw(plainest), draw(made["texture"])]
        Image.fromarray(np.concatenate(rows)).save(arguments.picture)


if __name__ == "__main__":
    main()
