"""Draw the pictures of the eight things that a prior is to learn, from packages with free licences.

    apt-get download sweethome3d-furniture && dpkg -x sweethome3d-furniture_*.deb package
    python pictures.py package/usr/share/sweethome3d/furniture --out pictures/

Six things are models of furniture catalogues, of concepts in ``prompts/held-out-concepts.txt``. Five pictures of each
have poses, lights and walls of their own; eight more, which nothing learns from, show it from evenly spaced sides in
the light that priors are trained with. Two things are photographs out of scikit-image. There is one photograph of each,
so its pictures are that one, cut out along an outline that was drawn by hand, turned and lit otherwise.

What is drawn lies beside this script. Drawing models needs the extra ``train``.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dream3d.dataset.assets.sh3f import extract
from dream3d.dataset.assets.sources import find_assets
from dream3d.dataset.check.file import check_file
from dream3d.dataset.compositing import composite
from dream3d.dataset.records import Pass, SourceAsset, key_from
from dream3d.dataset.rendering.scene import OffscreenScene
from dream3d.dataset.rendering.views import generator
from dream3d.errors import Dream3DError, UsageError
from dream3d.files import write_atomically

HERE = Path(__file__).parent
THINGS = HERE / "things.json"
PHOTOS, TRUE_VIEWS, TRUE_TURNS = 5, 8, 4
"""Pictures to learn from, held-out renders of a model, and held-out turns of a photograph."""
SIDE, TRUE_SIDE = 192, 128
"""Pixels."""
SEED = 5
PHOTO_LIGHTS = ("soft", "left", "right", "above", "soft")
TILT_DEG, TURN_DEG = 12.0, 35.0
"""Largest turn in the image: of a model's picture, and of a photograph's."""
FOVY_DEG, TRUE_ELEVATION_DEG = 35.0, 15.0
Rgba = NDArray[np.uint8]


@dataclass(frozen=True)
class Thing:
    """One thing, as ``things.json`` has it."""

    name: str
    """Of its folder."""
    kind: str
    """Its class."""
    source: str
    """A furniture catalogue, or a photograph of scikit-image."""
    id: str = ""
    """In the catalogue."""
    title: str = ""
    author: str = ""
    licence: str = ""
    outline: tuple[tuple[int, int], ...] = ()
    """Of the thing in a photograph: x and y in pixels."""

    @property
    def is_photograph(self) -> bool:
        """Otherwise a 3D model."""
        return bool(self.outline)


def read_things(path: Path = THINGS) -> list[Thing]:
    """All things."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Thing(**{**row, "outline": tuple((x, y) for x, y in row.get("outline", ()))}) for row in rows]


def draw_model(asset: SourceAsset, key: str) -> Iterator[tuple[str, Rgba]]:
    """Names and pictures (S, S, 4), or (S, S, 3) before a wall, of a catalogue's model."""
    rng = generator(SEED, key, "photos")
    with tempfile.TemporaryDirectory() as folder:
        model = extract(asset, Path(folder))
        check_file(model)
        scene = OffscreenScene(2 * SIDE)
        try:
            scene.load(model, asset)
            for index in range(PHOTOS):
                azimuth = (360 / PHOTOS * index + float(rng.uniform(-30, 30))) % 360
                orbit = _orbit(float(rng.uniform(5, 40)), PHOTO_LIGHTS[index % len(PHOTO_LIGHTS)])
                turned = _turned(scene.render(orbit, azimuth).rgba, float(rng.uniform(-TILT_DEG, TILT_DEG)))
                yield f"photos/{index + 1}", before_a_wall(turned, rng)
            for index in range(TRUE_VIEWS):
                view = scene.render(_orbit(TRUE_ELEVATION_DEG, "studio"), 360 / TRUE_VIEWS * index)
                yield f"true/{index + 1}", _sized(view.rgba, TRUE_SIDE)
        finally:
            scene.close()


def draw_photograph(thing: Thing, photograph: Image.Image) -> Iterator[tuple[str, Rgba]]:
    """As :func:`draw_model`, from one photograph: turned, and in light of other strength and colour."""
    rng, rgba = generator(SEED, thing.name, "photos"), cut_out(photograph, thing.outline)
    for index in range(PHOTOS):
        yield f"photos/{index + 1}", before_a_wall(_relit_and_turned(rgba, rng), rng)
    for index in range(TRUE_TURNS):
        yield f"true/{index + 1}", _sized(_relit_and_turned(rgba, rng), TRUE_SIDE)


def cut_out(photograph: Image.Image, outline: Sequence[tuple[int, int]]) -> Rgba:
    """What lies inside an outline, in a square with room to turn: (S, S, 4)."""
    mask = Image.new("L", photograph.size)
    ImageDraw.Draw(mask).polygon(list(outline), fill=255)
    rgba = photograph.convert("RGB")
    rgba.putalpha(mask)
    left, top, right, bottom = mask.getbbox() or (0, 0, *photograph.size)
    side = round(1.45 * max(right - left, bottom - top))
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    return np.asarray(rgba.crop((x, y, x + side, y + side)))


def before_a_wall(rgba: Rgba, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(SIDE, SIDE, 3): before a plain wall of a random light colour, which grows darker to one side."""
    rgba = _sized(rgba, SIDE)
    color, slope = rng.uniform(150, 245, 3), rng.uniform(-0.12, 0.12, 2)
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    light = 1 + slope[0] * rows + slope[1] * columns
    return composite(rgba, np.clip(light[..., None] * color, 0, 255))


def _orbit(elevation_deg: float, light: str) -> Pass:
    distance = 1.05 / float(np.sin(np.radians(FOVY_DEG / 2)))
    return Pass(elevation_deg, FOVY_DEG, distance, (0.0, 90.0, 180.0, 270.0), light)


def _turned(rgba: Rgba, degrees: float) -> Rgba:
    return np.asarray(Image.fromarray(rgba).rotate(degrees, Image.Resampling.BICUBIC))


def _relit_and_turned(rgba: Rgba, rng: np.random.Generator) -> Rgba:
    gain = float(rng.uniform(0.75, 1.15)) * rng.uniform(0.93, 1.07, 3)
    lit = np.dstack([np.clip(rgba[..., :3] * gain, 0, 255).astype(np.uint8), rgba[..., 3]])
    return _turned(lit, float(rng.uniform(-TURN_DEG, TURN_DEG)))


def _sized(rgba: Rgba, side: int) -> Rgba:
    return np.asarray(Image.fromarray(rgba).resize((side, side), Image.Resampling.BOX))


def write_picture(place: Path, pixels: NDArray[np.uint8]) -> None:
    """A JPEG as a camera makes it, or a WebP with transparency; ``place`` has no ending."""
    kind, ending = ("WEBP", ".webp") if pixels.shape[-1] == 4 else ("JPEG", ".jpg")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, quality=90)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place.with_suffix(ending), lambda path: path.write_bytes(stream.getvalue()))


def draw(thing: Thing, catalogues: Path) -> tuple[list[tuple[str, Rgba]], list[str]]:
    """All pictures of a thing, and its line of ``attribution.csv``."""
    if thing.is_photograph:
        package = find_spec("skimage")
        if package is None or package.origin is None:
            raise UsageError("the photographs are scikit-image's: pip install scikit-image")
        with Image.open(Path(package.origin).parent / "data" / thing.source) as photograph:
            pictures = list(draw_photograph(thing, photograph))
        return pictures, [thing.name, thing.title, thing.author, thing.licence, f"scikit-image: {thing.source}"]
    assets = {asset.key: asset for asset in find_assets([catalogues / thing.source])}
    asset = assets.get(key_from(thing.id))
    if asset is None:
        raise UsageError(f"{catalogues / thing.source} has no {thing.id!r}")
    return list(draw_model(asset, thing.name)), [thing.name, asset.name, asset.author, asset.licence, asset.source]


def main() -> None:
    """Draw everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogues", type=Path, help="folder with the .sh3f files of sweethome3d-furniture")
    parser.add_argument("--out", type=Path, default=HERE / "pictures")
    args = parser.parse_args()
    lines = [["thing", "name", "author", "licence", "source"]]
    for thing in read_things():
        pictures, line = draw(thing, args.catalogues)
        for name, pixels in pictures:
            write_picture(args.out / thing.name / name, pixels)
        lines.append(line)
        print(f"{thing.name}: {len(pictures)} pictures", flush=True)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_atomically(args.out / "attribution.csv", lambda path: path.write_text(text.getvalue(), encoding="utf-8"))


if __name__ == "__main__":
    try:
        main()
    except Dream3DError as error:
        raise SystemExit(f"error: {error}") from None
