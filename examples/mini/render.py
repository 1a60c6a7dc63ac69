"""Render the training images of the `mini` prior from Sweet Home 3D furniture catalogues.

    python render.py sheet  --catalogues DIR --names "chair,truck" --out sheet.png   # choose models by eye
    python render.py render --catalogues DIR --objects objects.json --out data/      # the training set

`objects.json` is a list of ``{"id", "name", "captions", "turn"}``: the catalogue id of the model, the concept, the
captions that may describe it and a rotation about the vertical axis in degrees that brings its front to +x.

Conventions (those of `prior.json`): the object is centred and scaled into the unit sphere, z up, front at +x; cameras
look at the origin, OpenGL axes; four views 90 degrees apart share elevation, field of view and distance. Lights are
fixed in the world, so that a surface has one brightness in all views. Images are RGBA with premultiplied alpha: each
view is rendered on black and on white, which gives the exact coverage with anti-aliasing and glass.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import vtk
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from vtk.util.numpy_support import vtk_to_numpy

from dream3d.cameras import look_at_origin

FloatArray = NDArray[np.float64]

SUPERSAMPLE = 2
"""Pixels rendered for one pixel, along each side."""
BACKGROUND = (0.42, 0.56, 0.78)
"""Colour behind the models on the sheet, sRGB in [0, 1]; the one the prior is trained with."""
LIGHTS = (((0.15, 0.1, 1.0), 0.42), ((1.0, 0.25, 0.25), 0.40), ((-0.35, 1.0, 0.2), 0.28), ((-0.6, -1.0, 0.2), 0.16))
"""Direction towards the light (x front, y the object's left, z up) and its strength; faces of a box differ clearly."""
AMBIENT = 0.34
"""Share of a surface's colour that is seen without light."""


@dataclass(frozen=True)
class Model:
    """One entry of a furniture catalogue."""

    catalogue: str
    archive: Path
    id: str
    name: str
    path: str
    creator: str
    licence: str
    rotation: tuple[float, ...]


def read_catalogue(archive: Path) -> list[Model]:
    """Read the entries of a `.sh3f` file (a zip with a Java properties catalogue)."""
    with zipfile.ZipFile(archive) as z:
        text = z.read("PluginFurnitureCatalog.properties").decode("latin-1")
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m.group(1), 16)), text)
    entries = dict(re.findall(r"^([\w#]+)\s*=[ \t]*(.*?)\s*$", text, re.M))
    models = []
    for key, path in entries.items():
        if key.startswith("model#"):
            n = key.split("#")[1]
            rotation = tuple(float(v) for v in entries.get(f"modelRotation#{n}", "1 0 0 0 1 0 0 0 1").split())
            models.append(
                Model(
                    entries.get("name", archive.stem),
                    archive,
                    entries[f"id#{n}"],
                    entries[f"name#{n}"],
                    path.lstrip("/"),
                    entries.get(f"creator#{n}", ""),
                    entries.get("license", ""),
                    rotation,
                )
            )
    return models


def read_catalogues(folder: Path) -> list[Model]:
    """All entries of all `.sh3f` files in a folder."""
    return [m for archive in sorted(folder.glob("*.sh3f")) for m in read_catalogue(archive)]


def extract(model: Model, folder: Path) -> Path:
    """Unpack the folder of one model and return the path of its OBJ file."""
    with zipfile.ZipFile(model.archive) as z:
        parent = model.path.rsplit("/", 1)[0] + "/"
        z.extractall(folder, [n for n in z.namelist() if n.startswith(parent)])
    return folder / model.path


def _normalising_matrix(actors: list[Any], rotation: tuple[float, ...], turn: float) -> vtk.vtkMatrix4x4:
    """Catalogue frame (y up, front towards +z) -> x front, y left, z up, centred and scaled into the unit sphere."""
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    frame = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]) @ np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]])
    frame = frame @ np.array(rotation).reshape(3, 3)
    used = [vtk_to_numpy(actor.GetMapper().GetInput().GetPoints().GetData()) for actor in actors]
    points = np.concatenate(used) @ frame.T
    centre = (points.min(0) + points.max(0)) / 2
    scale = 1 / np.linalg.norm(points - centre, axis=1).max()
    matrix = vtk.vtkMatrix4x4()
    for i in range(3):
        for j in range(3):
            matrix.SetElement(i, j, scale * frame[i, j])
        matrix.SetElement(i, 3, -scale * centre[i])
    return matrix


class Stage:
    """An off-screen VTK window with fixed lights that shows one model at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.renderer = vtk.vtkRenderer()
        self.renderer.SetAutomaticLightCreation(False)
        for direction, strength in LIGHTS:
            light = vtk.vtkLight()
            light.SetLightTypeToSceneLight()
            light.SetPositional(False)
            light.SetPosition(*direction)
            light.SetFocalPoint(0, 0, 0)
            light.SetIntensity(strength)
            self.renderer.AddLight(light)
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(True)
        self.window.SetMultiSamples(0)  # supersampling alone: three times faster in software
        self.window.SetSize(size * SUPERSAMPLE, size * SUPERSAMPLE)
        self.window.AddRenderer(self.renderer)

    def load(self, obj: Path, rotation: tuple[float, ...], turn: float) -> None:
        """Replace the shown model: front to +x, z up, centred, inside the unit sphere."""
        self.renderer.RemoveAllViewProps()
        importer = vtk.vtkOBJImporter()
        importer.SetFileName(str(obj))
        mtl = re.search(rb"^mtllib\s+(.+?)\s*$", obj.read_bytes(), re.M)
        if mtl and (obj.parent / mtl.group(1).decode("latin-1")).exists():
            importer.SetFileNameMTL(str(obj.parent / mtl.group(1).decode("latin-1")))
        importer.SetTexturePath(str(obj.parent))
        importer.SetRenderWindow(self.window)
        importer.Update()
        actors = [
            a for a in self.renderer.GetActors() if a.GetMapper() and a.GetMapper().GetInput().GetNumberOfPoints()
        ]
        matrix = _normalising_matrix(actors, rotation, turn)
        for actor in actors:
            actor.SetUserMatrix(matrix)
            prop = actor.GetProperty()
            if actor.GetTexture() is not None and max(prop.GetDiffuseColor()) < 0.3:
                prop.SetDiffuseColor(1, 1, 1)
            prop.SetAmbientColor(prop.GetDiffuseColor())
            prop.SetAmbient(AMBIENT)
            prop.SetDiffuse(1.0)
            prop.SetSpecular(0.0)

    def _grab(self, grey: float) -> NDArray[np.float32]:
        self.renderer.SetBackground(grey, grey, grey)
        self.window.Render()
        out = vtk.vtkUnsignedCharArray()
        n = self.size * SUPERSAMPLE
        self.window.GetPixelData(0, 0, n - 1, n - 1, 0, out, 0)
        pixels: NDArray[np.float32] = vtk_to_numpy(out).reshape(n, n, 3)[::-1].astype(np.float32) / 255
        return pixels

    def shoot(self, azimuth: float, elevation: float, fov: float, distance: float) -> NDArray[np.uint8]:
        """Render one view; angles in degrees; RGBA uint8 with premultiplied alpha, (size, size, 4)."""
        a, e = np.radians(azimuth), np.radians(elevation)
        camera = self.renderer.GetActiveCamera()
        camera.SetPosition(*(distance * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])))
        camera.SetFocalPoint(0, 0, 0)
        camera.SetViewUp(0, 0, 1)
        camera.SetViewAngle(fov)
        camera.SetClippingRange(distance - 1.05, distance + 1.05)
        black, white = self._grab(0.0), self._grab(1.0)
        alpha = np.clip(1 - (white - black).mean(-1, keepdims=True), 0, 1)
        rgba = np.concatenate([np.minimum(black, alpha), alpha], -1)
        rgba = rgba.reshape(self.size, SUPERSAMPLE, self.size, SUPERSAMPLE, 4).mean((1, 3))
        return np.round(rgba * 255).astype(np.uint8)


def camera_numbers(azimuths: FloatArray, elevation: float) -> NDArray[np.float32]:
    """What the prior is told of cameras at these azimuths: row-major poses on the unit sphere, (N, 16)."""
    elevations, distances = np.full_like(azimuths, elevation), np.ones_like(azimuths)
    c2w = look_at_origin(*(torch.from_numpy(values) for values in (elevations, azimuths, distances)))
    return c2w.reshape(-1, 16).float().numpy()


def random_quadruple(rng: np.random.Generator) -> tuple[FloatArray, float, float, float]:
    """Azimuths of four views, and their elevation, field of view and distance."""
    fov = rng.uniform(25, 50)
    distance = float(rng.uniform(0.85, 1.0) / np.sin(np.radians(fov / 2)))
    azimuths = rng.uniform(0, 360) + 90 * np.arange(4, dtype=np.float64)
    return azimuths, rng.uniform(0, 35), fov, distance


def over(rgba: NDArray[np.uint8], background: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Blend premultiplied RGBA uint8 over a colour in [0, 1]; uint8 RGB."""
    x = rgba.astype(np.float32)
    blended = np.round(x[..., :3] + (255 - x[..., 3:]) * np.asarray(background, np.float32)).clip(0, 255)
    return blended.astype(np.uint8)


def sheet(args: argparse.Namespace) -> None:
    """Front and oblique views of every model whose name is asked for, for choosing by eye."""
    wanted = {n.strip().lower() for n in args.names.split(",")}
    models = [m for m in read_catalogues(args.catalogues) if m.name.lower() in wanted or m.id in args.ids]
    models.sort(key=lambda m: m.name.lower())
    stage, tiles = Stage(args.size), []
    with tempfile.TemporaryDirectory() as tmp:
        for m in models:
            try:
                stage.load(extract(m, Path(tmp)), m.rotation, 0.0)
                views = [over(stage.shoot(azimuth, 18, 35, 3.1), BACKGROUND) for azimuth in (0, 50)]
            except Exception as error:  # a broken model must not end the sheet
                print("skipped", m.id, error)
                continue
            tile = Image.new("RGB", (2 * args.size, args.size + 12), "white")
            tile.paste(Image.fromarray(np.concatenate(views, 1)), (0, 0))
            ImageDraw.Draw(tile).text((1, args.size), f"{m.id.replace('Blend Swap ', '').replace('#', ' ')}", fill=0)
            tiles.append(tile)
    _paged(tiles, args.columns).save(args.out)
    print(len(tiles), "models")


def _paged(tiles: list[Image.Image], columns: int) -> Image.Image:
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].size
    page = Image.new("RGB", (columns * width, rows * height), "white")
    for index, tile in enumerate(tiles):
        page.paste(tile, (index % columns * width, index // columns * height))
    return page


def render(args: argparse.Namespace) -> None:
    """Render all objects: `images.npy` (objects, quadruples, 4, size, size, 4), `cameras.npy`, `objects.json`."""
    objects = json.loads(args.objects.read_text())
    models = {m.id: m for m in read_catalogues(args.catalogues)}
    args.out.mkdir(parents=True, exist_ok=True)
    shape = (len(objects), args.quadruples, 4, args.size, args.size, 4)
    images = np.lib.format.open_memmap(args.out / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    cameras = np.zeros((*shape[:3], 16), np.float32)
    rng = np.random.default_rng(args.seed)
    stage = Stage(args.size)
    with tempfile.TemporaryDirectory() as tmp:
        for i, item in enumerate(objects):
            model = models[item["id"]]
            stage.load(extract(model, Path(tmp)), model.rotation, item.get("turn", 0.0))
            for q in range(args.quadruples):
                azimuths, elevation, fov, distance = random_quadruple(rng)
                for v, azimuth in enumerate(azimuths):
                    images[i, q, v] = stage.shoot(azimuth, elevation, fov, distance)
                cameras[i, q] = camera_numbers(azimuths, elevation)
    np.save(args.out / "cameras.npy", cameras)
    (args.out / "objects.json").write_text(json.dumps(objects, indent=1))
    with open(args.out / "attribution.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "model", "author", "licence", "catalogue"])
        for item in objects:
            model = models[item["id"]]
            rows.writerow([item["name"], model.id, model.creator, model.licence, model.catalogue])


def main() -> None:
    """Read the command line and run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("sheet", sheet), ("render", render)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--catalogues", type=Path, required=True, help="folder with .sh3f files")
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--size", type=int, default=64)
        if name == "sheet":
            command.add_argument("--names", default="")
            command.add_argument("--ids", nargs="*", default=[])
            command.add_argument("--columns", type=int, default=10)
        else:
            command.add_argument("--objects", type=Path, required=True)
            command.add_argument("--quadruples", type=int, default=64)
            command.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
