"""Renders what examples/rare holds: pictures of rare things as somebody might have found them, and their truth.

    python examples/rare/render_pictures.py CATALOGUES --select examples/rare/concepts.json --out examples/rare

CATALOGUES is the folder with Sweet Home 3D's furniture (build/package/usr/share/sweethome3d/furniture after
examples/mini/build.sh). Of each name in the list, whose models take turns:

- six pictures, to draw by: other poses, fields of view, light and tints than in any training view, on plain colours and
  gradients, in landscape, portrait and square format, slightly turned and off the centre;
- eight views of the truth, to compare with: around the object, 15 degrees above, without a background.

pictures.csv and truth.csv beside them say whose work each is; "dream3d corpus add" reads the first. With --count the
list may be longer: only so many names are taken, spread over it, as for things that a prior was trained on.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dream3d.dataset.assets.sh3f import extract
from dream3d.dataset.assets.sources import find_assets
from dream3d.dataset.check.file import check_file
from dream3d.dataset.records import Pass, SourceAsset
from dream3d.dataset.rendering.scene import OffscreenScene
from dream3d.dataset.rendering.views import generator
from dream3d.errors import DatasetError, Dream3DError
from dream3d.files import write_atomically
from dream3d.names import slug

PICTURES, TRUTHS = 6, 8
"""Of each name."""
SIDE = 192
"""Pixels along the longer side of a picture."""
RENDER_SIDE = 288
"""Pixels along a side of the render that it is made of."""
TRUTH_SIDE = 128
TRUTH_FOV_DEG = 40.0
TRUTH_ELEVATION_DEG = 15.0
LIGHTS = ("left", "above", "right", "soft")
"""Training views have ``studio``, see :data:`dream3d.dataset.rendering.scene.LIGHTS`; so has the truth."""
ELEVATIONS_DEG = (28.0, 6.0, 42.0, 20.0, -8.0, 34.0)
AZIMUTHS_DEG = (35.0, -50.0, 70.0, -20.0, 110.0, -140.0)
"""Of the pictures, from the front, give or take :data:`JITTER_DEG`: who takes a picture stands rather in front."""
JITTER_DEG = 12.0
FORMATS = ((1.0, 0.75), (0.8, 1.0), (1.0, 1.0))
"""Width and height, as shares of :data:`SIDE`."""
COLUMNS = ("image", "caption", "source", "author", "licence", "model")

Rgba = NDArray[np.uint8]
"""(H, W, 4), sRGB, straight alpha."""


@dataclass(frozen=True)
class Made:
    """A picture file with what its table says of it."""

    image: str
    content: bytes
    asset: SourceAsset

    @property
    def row(self) -> dict[str, str]:
        """By :data:`COLUMNS`."""
        one = self.asset
        values = (self.image, one.name, f"{one.source}, rendered", one.author, one.licence, one.key)
        return dict(zip(COLUMNS, values, strict=True))


def backdrop(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(H, W, 3) in [0, 1]: a plain colour, or a gradient of two along a random direction."""
    first, second = 0.45 * rng.uniform(0, 1, (2, 3)) + rng.uniform(0.05, 0.55, (2, 1))
    if rng.random() < 0.4:
        second = first
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    place = ((x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2) + 1) / 2
    return first + (second - first) * place[..., None]


def on_backdrop(rgba: Rgba, shape: tuple[float, float], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A cut-out in a picture of its own: turned a little, tinted, off the centre, on a ground. (H, W, 3)."""
    cut = Image.fromarray(rgba).rotate(float(rng.uniform(-10, 10)), Image.Resampling.BICUBIC, expand=True)
    box = cut.getchannel("A").getbbox()
    cut = cut.crop(box) if box else cut
    width, height = (round(SIDE * share) for share in shape)
    scale = float(rng.uniform(0.72, 0.92)) * min(width / cut.width, height / cut.height)
    cut = cut.resize((max(1, round(cut.width * scale)), max(1, round(cut.height * scale))), Image.Resampling.LANCZOS)
    left, top = (
        round(rng.uniform(0.3, 0.7) * (room - used)) for room, used in zip((width, height), cut.size, strict=True)
    )
    placed = Image.new("RGBA", (width, height))
    placed.paste(cut, (left, top))
    pixels = np.asarray(placed).astype(np.float64) / 255
    tint = 1 + rng.uniform(-0.12, 0.12) * np.array([1.0, 0.1, -1.0])  # warm or cool light
    ground, alpha = backdrop(height, width, rng), pixels[..., 3:]
    shown = (pixels[..., :3] * tint * rng.uniform(0.9, 1.15)).clip(0, 1) * alpha + ground * (1 - alpha)
    return np.round(255 * shown).astype(np.uint8)


def poses(name: str, seed: int) -> list[tuple[Pass, float]]:
    """Orbit and azimuth of the pictures of a name, all different."""
    rng, made = generator(seed, name, "poses"), []
    for index in range(PICTURES):
        azimuth = (AZIMUTHS_DEG[index] + float(rng.uniform(-JITTER_DEG, JITTER_DEG))) % 360
        fov = float(rng.uniform(28, 62))
        distance = 1.02 / np.sin(np.radians(fov / 2))
        elevation = ELEVATIONS_DEG[index]
        made.append((Pass(elevation, fov, float(distance), (azimuth,), LIGHTS[index % len(LIGHTS)]), azimuth))
    return made


def truths() -> list[tuple[Pass, float]]:
    """Orbit and azimuth of the views of the truth: from the front on, around the object."""
    distance = float(1 / np.sin(np.radians(TRUTH_FOV_DEG / 2)))
    azimuths = tuple(360 / TRUTHS * index for index in range(TRUTHS))
    return [(Pass(TRUTH_ELEVATION_DEG, TRUTH_FOV_DEG, distance, azimuths, "studio"), one) for one in azimuths]


def encoded(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """A picture as WebP."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=quality, method=6)
    return file.getvalue()


def made_of(name: str, models: Sequence[SourceAsset], seed: int) -> Iterator[Made]:
    """The pictures and the truth of a name, whose models take turns. Raises DatasetError for a damaged model."""
    rng = generator(seed, name, "grounds")
    renders: dict[tuple[str, int], Rgba] = {}
    for number, asset in enumerate(models):
        for kind, side, wanted in (("pictures", RENDER_SIDE, poses(name, seed)), ("truth", TRUTH_SIDE, truths())):
            own = list(range(len(wanted)))[number :: len(models)]
            views = rendered(asset, [wanted[index] for index in own], side)
            renders |= {(kind, index): rgba for index, rgba in zip(own, views, strict=True)}
    for index in range(PICTURES):
        pixels = on_backdrop(renders["pictures", index], FORMATS[index % len(FORMATS)], rng)
        yield Made(f"pictures/{slug(name)}-{index + 1}.webp", encoded(pixels, 85), models[index % len(models)])
    for index in range(TRUTHS):
        content = encoded(renders["truth", index], 88)
        yield Made(f"truth/{slug(name)}-{index + 1}.webp", content, models[index % len(models)])


def rendered(asset: SourceAsset, wanted: Sequence[tuple[Pass, float]], side: int) -> list[Rgba]:
    """Views of a model, ``side`` pixels square."""
    scene = OffscreenScene(side)
    try:
        with tempfile.TemporaryDirectory(prefix="dream3d-") as folder:
            model = extract(asset, Path(folder)) if asset.member else asset.path
            check_file(model)
            scene.load(model, asset)
            return [scene.render(orbit, azimuth).rgba for orbit, azimuth in wanted]
    finally:
        scene.close()


def spread(names: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of the names, evenly spread over their order; all for 0."""
    if not count or count >= len(names):
        return list(names)
    return [names[index * len(names) // count] for index in range(count)]


def pictured(groups: Mapping[str, Sequence[SourceAsset]], count: int, seed: int) -> Iterator[list[Made]]:
    """What :func:`made_of` makes of so many names, or all for 0; another name takes the place of one that cannot be."""
    first = spread(list(groups), count)
    left = len(first)
    for name in (*first, *(name for name in groups if name not in first)):
        if left == 0:
            return
        try:
            made = list(made_of(name, groups[name], seed))
        except DatasetError as error:
            print(f"left out: {name}: {error}")
            continue
        left -= 1
        yield made


def write_table(file: Path, rows: Sequence[Made]) -> None:
    """The attribution of pictures."""

    def fill(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as table:
            writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(one.row for one in rows)

    write_atomically(file, fill)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", help="catalogues or folders of models")
    parser.add_argument("--select", type=Path, required=True, help='json list of {"id", "name"}')
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=0, help="names at most, spread over the list; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    groups: dict[str, list[SourceAsset]] = {}
    for asset in find_assets(arguments.sources, arguments.select):
        groups.setdefault(asset.name, []).append(asset)
    tables: dict[str, list[Made]] = {"pictures": [], "truth": []}
    for made in pictured(groups, arguments.count, arguments.seed):
        for one in made:
            target = arguments.out / one.image
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(one.content)
            tables[target.parent.name].append(one)
    for kind, rows in tables.items():
        write_table(arguments.out / f"{kind}.csv", rows)
    size = sum(len(one.content) for rows in tables.values() for one in rows)
    print(f"{len(tables['pictures'])} pictures and {len(tables['truth'])} views of the truth, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    try:
        main()
    except Dream3DError as error:
        raise SystemExit(f"error: {error}") from None
