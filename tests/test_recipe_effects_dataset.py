"""Every field of what a data set is made with has an effect."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assets import box_obj, catalogue, cube_glb
from dataset_samples import record, views, write_shard
from recipe_effects import Runs, Table, assert_complete, becomes, changes, falls, rises
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.dataset.assets.sh3f import read_catalogue
from dream3d.dataset.check.limits import Limits
from dream3d.dataset.images import ImageOptions
from dream3d.dataset.records import SourceAsset
from dream3d.dataset.rendering import workers
from dream3d.dataset.rendering.dataset import DatasetPlan, plan_shards
from dream3d.dataset.rendering.scene import OffscreenScene
from dream3d.dataset.rendering.views import ViewsRecipe, render_object
from dream3d.dataset.rendering.workers import Bounds, ShardTask, open_renderer, render_shards
from dream3d.dataset.shards import ObjectViews, read_images, read_objects, write_tar
from dream3d.errors import DatasetError
from dream3d.processes import JobFunction

# Views of objects.

VIEWS = ViewsRecipe(size=16, passes=2, azimuths=4)
NOT_IN_DATA_SETS = {"cameras.sphere_elevation_probability": "anything but 0 is refused"}


@dataclass(frozen=True)
class Views:
    """A rendered cube."""

    files: list[tuple[str, bytes]]
    views: ObjectViews

    def mean(self, name: str) -> float:
        """Of a number of the orbits."""
        return float(np.mean([getattr(one, name) for one in self.views.record.passes]))

    def members(self, kind: str) -> int:
        """How many pictures of a kind a shard gets."""
        return sum(name.endswith(f"{kind}.png") for name, _ in self.files)


VIEWS_TABLE: Table[Views] = {
    "size": rises(lambda run: run.views.rgba.shape[3], 24),
    "passes": rises(lambda run: run.views.rgba.shape[0], 3),
    "azimuths": rises(lambda run: run.views.rgba.shape[1], 8),
    "cameras.elevation_deg[0]": rises(lambda run: run.mean("elevation_deg"), 20.0),
    "cameras.elevation_deg[1]": rises(lambda run: run.mean("elevation_deg"), 60.0),
    "cameras.fovy_deg[0]": rises(lambda run: run.mean("fovy_deg"), 40.0),
    "cameras.fovy_deg[1]": rises(lambda run: run.mean("fovy_deg"), 80.0),
    "cameras.relative_distance[0]": rises(lambda run: run.mean("distance"), 0.95),
    "cameras.relative_distance[1]": rises(lambda run: run.mean("distance"), 2.0),
    "cameras.distance_rule": rises(lambda run: run.mean("distance"), "sin"),
    "lights": changes(lambda run: run.views.rgba.tobytes(), ("left",)),
    "seed": changes(lambda run: run.views.record.passes, 1),
    "depth": rises(lambda run: run.members("depth"), True),
    "normals": rises(lambda run: run.members("normal"), True),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Runs[ViewsRecipe, Views]:
    path = cube_glb(tmp_path_factory.mktemp("cube") / "cube.glb")

    def run(recipe: ViewsRecipe) -> Views:
        scene = OffscreenScene(recipe.size)
        try:
            files = list(render_object(SourceAsset("cube", path, "cube"), "train", recipe, scene))
        finally:
            scene.close()
        write_tar(path.with_name("cube.tar"), files)
        (views,) = read_objects(path.with_name("cube.tar"))
        return Views(files, views)

    return Runs(run)


@pytest.mark.parametrize("place", VIEWS_TABLE)
def test_a_field_of_views_has_its_effect(drawn: Runs[ViewsRecipe, Views], place: str) -> None:
    drawn.check(VIEWS, place, VIEWS_TABLE[place])


# The plan of the shards.

PLAN = DatasetPlan()
PLAN_TABLE: Table[list[ShardTask]] = {
    "heldout": rises(lambda tasks: sum(len(task.assets) for task in tasks if task.split == "heldout"), 0.5),
    "unseen": rises(lambda tasks: sum(len(task.assets) for task in tasks if task.split == "unseen"), ("chair",)),
    "objects_per_shard": falls(len, 100),
}


@pytest.mark.parametrize("place", PLAN_TABLE)
def test_a_field_of_a_plan_has_its_effect(place: str) -> None:
    assets = [SourceAsset(f"k{i}", Path("a.obj"), "chair" if i % 3 else "table") for i in range(60)]
    runs = Runs[DatasetPlan, list[ShardTask]](lambda plan: plan_shards(assets, 0, plan))
    runs.check(PLAN, place, PLAN_TABLE[place])


# What a drawing process may use.


class _NoScene:
    """In place of a window."""

    def __init__(self, size: int) -> None:
        pass

    def clear(self) -> None:
        """Nothing."""


def _hungry(asset: SourceAsset, *_: object) -> list[tuple[str, bytes]]:
    """In place of drawing: one asset takes half a second, the other 100 MB."""
    if asset.key == "slow":
        time.sleep(0.5)
    else:
        bytearray(100 * 2**20)
    raise DatasetError("drawn")


def _hungry_renderer(folder: Path, recipe: ViewsRecipe, bounds: Bounds) -> JobFunction:
    """What a rendering process runs here: the real one, with another rendering."""
    vars(workers).update(OffscreenScene=_NoScene, render_object=_hungry)
    return open_renderer(folder, recipe, bounds)


@dataclass(frozen=True)
class Bounded:
    """What becomes of assets within bounds."""

    bounds: Bounds
    folder: Path

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Why assets were skipped by a process: a slow one, and one that wants much memory."""
        tasks = [
            ShardTask("train", i, (SourceAsset(key, Path("a.obj"), key),)) for i, key in enumerate(("slow", "large"))
        ]
        out = self.folder / str(abs(hash(self.bounds)))
        out.mkdir()
        render_shards(tasks, out, VIEWS, 1, self.bounds, lambda drawn, skipped: None)
        rows = [json.loads(task.record(out).read_text())["skipped"][0] for task in tasks]
        return {row["key"]: row["reason"] for row in rows}

    @cached_property
    def refused(self) -> list[str]:
        """Why models were not drawn: a cube, a textured box, a small catalogue and a large one."""
        files = self.folder / "models"
        if not files.exists():
            files.mkdir()
            large = catalogue(files / "large.sh3f")
            with zipfile.ZipFile(large, "a", zipfile.ZIP_DEFLATED) as more:
                more.writestr("models/box/zeros.bin", bytes(3 * 2**20))
            cube_glb(files / "cube.glb")
            catalogue(files / "small.sh3f")
            box_obj(files / "box.obj")
        models = [SourceAsset(name[:3], files / name, name) for name in ("cube.glb", "box.obj")]
        models += [asset for name in ("small.sh3f", "large.sh3f") for asset in read_catalogue(files / name)]
        said, scene = [], OffscreenScene(16)
        for model in models:
            try:
                render_object(model, "train", VIEWS, scene, self.bounds.limits)
            except DatasetError as error:
                said.append(str(error))
        scene.close()
        return said


def refusals(run: Bounded) -> int:
    return len(run.refused)


BOUNDS = Bounds(limits=Limits(max_ratio=10_000))
BOUNDS_TABLE: Table[Bounded] = {
    "seconds": becomes(lambda run: run.reasons["slow"], 0.1, workers.HUNG),
    "memory_bytes": becomes(lambda run: run.reasons["large"], 80 * 2**20, "it needs more than 80 MiB of memory"),
    "limits.max_file_bytes": rises(refusals, 1000),
    "limits.max_triangles": rises(refusals, 11),
    "limits.max_archive_bytes": rises(refusals, 2**20),
    "limits.max_ratio": rises(refusals, 200),
    "limits.max_texture_pixels": rises(refusals, 15),
}


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs[Bounds, Bounded]]:
    folder = tmp_path_factory.mktemp("bounds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "open_renderer", _hungry_renderer)
        yield Runs(lambda bounds: Bounded(bounds, folder))


@pytest.mark.parametrize("place", BOUNDS_TABLE)
def test_a_bound_has_its_effect(bounded: Runs[Bounds, Bounded], place: str) -> None:
    bounded.check(BOUNDS, place, BOUNDS_TABLE[place])


def test_bounds_are_told_as_reasons(bounded: Runs[Bounds, Bounded]) -> None:
    assert bounded(BOUNDS).reasons == {"slow": "drawn", "large": "drawn"}
    assert bounded(BOUNDS).refused == []


# Captioned pictures.


@dataclass(frozen=True)
class Images:
    """Shards of pictures."""

    shards: list[Path]

    @cached_property
    def pixels(self) -> list[bytes]:
        """Of each picture."""
        return [image.rgb.tobytes() for path in self.shards for image in read_images(path)]


IMAGES = ImageOptions(size=16, per_shard=3, per_object=2)
IMAGES_TABLE: Table[Images] = {
    "size": rises(lambda run: len(run.pixels[0]), 24),
    "per_shard": falls(lambda run: len(run.shards), 100),
    "seed": changes(lambda run: run.pixels, 1),
    "per_object": rises(lambda run: len(run.pixels), 3),
}


@pytest.mark.parametrize("place", IMAGES_TABLE)
def test_an_option_of_pictures_has_its_effect(tmp_path: Path, place: str) -> None:
    write_shard(tmp_path, [views(record("one")), views(record("two"))])

    def run(options: ImageOptions) -> Images:
        out = tmp_path / str(abs(hash(options)))
        given = [f"--{name.replace('_', '-')}={value}" for name, value in vars(options).items()]
        done = CliRunner().invoke(app, ["dataset", "images", "--from-shards", str(tmp_path), "--out", str(out), *given])
        assert done.exit_code == 0, done.output
        return Images(sorted(out.iterdir()))

    Runs(run).check(IMAGES, place, IMAGES_TABLE[place])


@pytest.mark.parametrize(
    ("table", "kind", "besides"),
    [
        (VIEWS_TABLE, ViewsRecipe, NOT_IN_DATA_SETS),
        (PLAN_TABLE, DatasetPlan, {}),
        (BOUNDS_TABLE, Bounds, {}),
        (IMAGES_TABLE, ImageOptions, {}),
    ],
    ids=["views", "plan", "bounds", "images"],
)
def test_every_field_has_an_entry(table: Table[Any], kind: type, besides: dict[str, str]) -> None:
    assert_complete(table, kind, besides)
