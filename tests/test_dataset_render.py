from __future__ import annotations

import csv
import json
import os
import signal
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from assets import box_obj, catalogue, cube_glb, sphere_ply
from PIL import Image
from typer.testing import CliRunner

from dream3d.cameras import CameraRange, Cameras, look_at_origin
from dream3d.cli.app import app
from dream3d.dataset.assets.sources import find_assets
from dream3d.dataset.procedural.compositions import on_top
from dream3d.dataset.records import Pass, SourceAsset
from dream3d.dataset.rendering import workers
from dream3d.dataset.rendering.dataset import DatasetPlan, plan_shards, render_dataset
from dream3d.dataset.rendering.scene import LIGHTS, OffscreenScene
from dream3d.dataset.rendering.views import PRESETS, ViewsRecipe, sample_orbits, split_of
from dream3d.dataset.rendering.workers import Bounds, open_renderer
from dream3d.dataset.shards import read_objects, shards
from dream3d.errors import DatasetError, UsageError
from dream3d.mesh.appearance import VertexColors
from dream3d.mesh.formats.glb import glb_bytes
from dream3d.processes import JobFunction

SMALL = ViewsRecipe(size=16, passes=1, azimuths=4)
LEVEL = Pass(0.0, 30.0, 6.0, (0.0, 90.0, 180.0, 270.0))


@pytest.fixture(scope="module")
def scene() -> Iterator[OffscreenScene]:
    scene = OffscreenScene(48)
    yield scene
    scene.close()


def test_a_red_front_is_red_at_azimuth_0_and_a_green_left_side_green_at_90(
    scene: OffscreenScene, tmp_path: Path
) -> None:
    path = cube_glb(tmp_path / "cube.glb")
    scene.load(path, SourceAsset("cube", path, "cube"))
    for azimuth, channel in ((0.0, 0), (90.0, 1), (180.0, 2), (270.0, 2)):
        middle = scene.render(LEVEL, azimuth).rgba[24, 24]
        assert middle[3] == 255
        assert middle[channel] > 60
        assert (np.delete(middle[:3], channel) == 0).all()


def test_a_turn_brings_another_side_to_the_front(scene: OffscreenScene, tmp_path: Path) -> None:
    path = cube_glb(tmp_path / "cube.glb")
    scene.load(path, SourceAsset("cube", path, "cube", turn_deg=-90))  # the left side turns clockwise to the front
    assert scene.render(LEVEL, 0).rgba[24, 24, 1] > 60


def test_a_silhouette_is_where_the_rays_of_the_camera_meet_the_sphere(scene: OffscreenScene, tmp_path: Path) -> None:
    path = sphere_ply(tmp_path / "ball.ply")
    scene.load(path, SourceAsset("ball", path, "ball"))
    orbit = Pass(20.0, 40.0, 4.0, (30.0,))
    shot = scene.render(orbit, 30.0, depth=True, normal=True)
    c2w = look_at_origin(torch.tensor([20.0]), torch.tensor([30.0]), torch.tensor([4.0]))
    origins, directions = Cameras(c2w, torch.tensor([40.0])).rays(48, 48)
    along = -(origins * directions).sum(-1)
    miss = (origins.square().sum(-1) - along.square()).clamp(min=0).sqrt()[0].numpy()
    alpha = shot.rgba[..., 3]
    assert (alpha[miss < 0.95] == 255).all()
    assert (alpha[miss > 1.05] == 0).all()
    assert shot.depth is not None
    assert shot.normal is not None
    # The nearest point of the sphere is 3 away: at the front of the slab, where depth begins.
    assert 1 <= shot.depth[24, 24] < 1 + 0.01 * 32767
    assert (shot.depth[alpha == 0] == 0).all()
    # There, the normal points at the camera.
    np.testing.assert_allclose(shot.normal[24, 24] / 127.5 - 1, c2w[0, :3, 2], atol=0.06)


def test_a_texture_is_drawn_with_straight_alpha(scene: OffscreenScene, tmp_path: Path) -> None:
    path = box_obj(tmp_path / "box.obj")
    scene.load(path, SourceAsset("box", path, "box"))
    rgba = scene.render(LEVEL, 20.0).rgba
    edge = (rgba[..., 3] > 0) & (rgba[..., 3] < 255)
    assert edge.any()
    for pixels in (rgba[edge], rgba[rgba[..., 3] == 255]):  # orange keeps its hue, also where it is half covered
        assert np.abs(pixels[:, 1] - pixels[:, 0] * (128 / 255)).max() < 3
        assert (pixels[:, 2] == 0).all()


@pytest.mark.parametrize("second", ["skin", "other"])
def test_parts_may_share_a_texture(scene: OffscreenScene, tmp_path: Path, second: str) -> None:
    path = box_obj(tmp_path / "box.obj")
    words = path.read_text().splitlines()
    path.write_text("\n".join([*words[:-3], "g top", f"usemtl {second}", *words[-3:]]) + "\n")
    (tmp_path / "box.mtl").write_text("".join(f"newmtl {name}\nmap_Kd skin.png\n" for name in ("skin", "other")))
    scene.load(path, SourceAsset("box", path, "box"))
    rgba = scene.render(LEVEL, 20.0).rgba
    solid = rgba[rgba[..., 3] == 255].astype(int)
    assert np.abs(solid[:, 1] - solid[:, 0] * (128 / 255)).max() < 3  # orange all over


def test_every_light_lights_and_they_differ(scene: OffscreenScene, tmp_path: Path) -> None:
    path = cube_glb(tmp_path / "cube.glb")
    scene.load(path, SourceAsset("cube", path, "cube"))
    views = {scene.render(Pass(20.0, 30.0, 6.0, (45.0,), light), 45.0).rgba.tobytes() for light in LIGHTS}
    assert len(views) == len(LIGHTS)


def test_passes_depend_on_seed_and_key_and_stay_in_their_ranges() -> None:
    for name, recipe in PRESETS.items():
        assert sample_orbits(recipe, "a") == sample_orbits(recipe, "a") != sample_orbits(recipe, "b")
        for orbit in sample_orbits(recipe, "a"):
            half = np.radians(orbit.fovy_deg / 2)
            relative = orbit.distance * (np.tan(half) if name == "mvdream" else np.sin(half))
            low, high = recipe.cameras.relative_distance
            assert low <= relative <= high
            assert len(orbit.azimuths_deg) == recipe.azimuths
            steps = np.diff(orbit.azimuths_deg) % 360
            np.testing.assert_allclose(steps, 360 / recipe.azimuths)


def test_settings_that_make_no_sense_are_refused() -> None:
    uneven = {"cameras": CameraRange(sphere_elevation_probability=0.5)}
    for wrong in ({"azimuths": 6}, {"size": 1}, {"passes": 0}, {"lights": ("sun",)}, {"seed": -1}, uneven):
        with pytest.raises(UsageError):
            ViewsRecipe(**wrong)


def test_a_split_depends_on_the_words_then_on_seed_and_key() -> None:
    def split(name: str, key: str = "k") -> str:
        return split_of(SourceAsset(key, Path("a.obj"), name), 0, 0.2, ("elk", "office chair"))

    assert split("Elk skull") == split("red office chair") == "unseen"
    assert split("two elks") == "unseen"
    assert split("elkhound") != "unseen"
    many = [split("table", str(number)) for number in range(1000)]
    assert 150 < many.count("heldout") < 250


def _models(folder: Path) -> Path:
    folder.mkdir()
    cube_glb(folder / "cube.glb")
    sphere_ply(folder / "green ball.ply")
    (folder / "broken.glb").write_bytes(b"glTF")
    catalogue(folder / "small.sh3f")
    return folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_a_data_set_is_the_same_for_any_workers_and_resumes(tmp_path: Path) -> None:
    assets, out = find_assets([_models(tmp_path / "models")]), tmp_path / "one"
    plan = DatasetPlan(heldout=0.0, objects_per_shard=2)
    summary = render_dataset(assets, out, SMALL, plan)
    assert (summary.rendered, summary.skipped, summary.shards_new) == (3, 1, 2)
    render_dataset(assets[::-1], tmp_path / "two", SMALL, plan, workers=2)
    before = _contents(out)
    assert before == _contents(tmp_path / "two")

    names = [views.record.name for path in shards(out, "train") for views in read_objects(path)]
    assert names == ["cube", "green ball", "boîte"]
    (row,) = csv.DictReader((out / "skipped.csv").read_text().splitlines())
    assert row["key"] == "broken"
    assert "no GLB" in row["reason"]
    authors = {row["key"]: row["author"] for row in csv.DictReader((out / "attribution.csv").read_text().splitlines())}
    assert authors == {"cube": "", "green-ball": "", "small-box": "Ann"}

    (out / "train-00001.tar").unlink()
    kept = (out / "train-00000.tar").stat().st_mtime_ns
    assert render_dataset(assets, out, SMALL, plan).shards_new == 1
    assert _contents(out) == before
    assert (out / "train-00000.tar").stat().st_mtime_ns == kept
    with pytest.raises(UsageError, match="seed 0, now 1"):
        render_dataset(assets, out, ViewsRecipe(size=16, passes=1, azimuths=4, seed=1), plan)
    with pytest.raises(UsageError, match="other assets"):
        render_dataset(assets[1:], out, SMALL, plan)


def _die(asset: SourceAsset) -> None:
    if asset.key == "cube":
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60 if asset.key == "green-ball" else 0)


def _want_memory(asset: SourceAsset) -> None:
    if asset.key == "cube":
        bytearray(4 * 2**30)


def _rendering(before: Callable[[SourceAsset], None], folder: Path, recipe: ViewsRecipe, bounds: Bounds) -> JobFunction:
    """What a rendering process prepares in the next tests: the real thing, but something happens before each model."""
    real = OffscreenScene.load

    def load(self: OffscreenScene, path: Path, asset: SourceAsset) -> None:
        before(asset)
        real(self, path, asset)

    OffscreenScene.load = load  # type: ignore[method-assign]
    return open_renderer(folder, recipe, bounds)


@pytest.mark.slow
def test_a_crash_and_a_hang_cost_only_their_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "open_renderer", partial(_rendering, _die))
    assets = find_assets([_models(tmp_path / "models")])
    out = tmp_path / "out"
    summary = render_dataset(assets, out, SMALL, DatasetPlan(heldout=0.0), bounds=Bounds(seconds=10.0))
    assert (summary.rendered, summary.skipped) == (1, 3)
    reasons = {row["key"]: row["reason"] for row in csv.DictReader((out / "skipped.csv").read_text().splitlines())}
    assert reasons["cube"] == "the renderer crashed"
    assert reasons["green-ball"] == "the renderer hung"


def test_shards_do_not_depend_on_the_order_of_the_assets() -> None:
    assets = [SourceAsset(f"k{number}", Path("a.obj"), "thing") for number in range(40)]
    assert plan_shards(assets, 0, DatasetPlan()) == plan_shards(assets[::-1], 0, DatasetPlan())


def test_the_command_draws_and_says_what_it_skipped(tmp_path: Path) -> None:
    models = _models(tmp_path / "models")
    arguments = ["dataset", "render", str(models), "--out", str(tmp_path / "out"), "--size", "16", "--passes", "1"]
    result = CliRunner().invoke(app, [*arguments, "--azimuths", "4", "--elevation", "-20", "-10"])
    assert result.exit_code == 0, result.output
    assert "drawn 3, skipped 1" in result.output
    (views, *_) = (views for path in shards(tmp_path / "out", "train") for views in read_objects(path))
    assert -20 <= views.record.passes[0].elevation_deg <= -10
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["skipped"] == 1


def test_depth_and_normals_lie_beside_the_views_and_unseen_concepts_apart(tmp_path: Path) -> None:
    models = _models(tmp_path / "models")
    (tmp_path / "unseen.txt").write_text("balls\n")
    out = tmp_path / "out"
    options = f"--out {out} --size 32 --passes 1 --azimuths 4 --depth --normals --heldout 0 --unseen"
    arguments = ["dataset", "render", str(models), *options.split(), str(tmp_path / "unseen.txt")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (ball,) = [views for path in shards(out, "unseen") for views in read_objects(path)]
    assert (ball.record.name, ball.record.split) == ("green ball", "unseen")
    assert "green ball" not in [v.record.name for path in shards(out, "train") for v in read_objects(path)]
    with tarfile.open(out / "unseen-00000.tar") as tar:
        names = [name for name in tar.getnames() if name.endswith(".png")]
        assert len(names) == 3 * 4
        depth = np.asarray(Image.open(tar.extractfile("green-ball.00-00.depth.png")))  # type: ignore[arg-type]
        normal = np.asarray(Image.open(tar.extractfile("green-ball.00-00.normal.png")))  # type: ignore[arg-type]
    solid = ball.rgba[0, 0, :, :, 3] == 255
    assert (depth[solid] > 0).all()
    assert depth[0, 0] == 0
    assert depth[15, 15] < 0.1 * 32767  # the ball's nearest point is one radius before the middle
    length = np.linalg.norm(normal[solid] / 127.5 - 1, axis=-1)
    np.testing.assert_allclose(length, 1, atol=0.05)


@pytest.mark.slow
def test_a_model_that_wants_too_much_memory_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "open_renderer", partial(_rendering, _want_memory))
    assets, out = find_assets([_models(tmp_path / "models")]), tmp_path / "out"
    summary = render_dataset(assets, out, SMALL, DatasetPlan(heldout=0.0), bounds=Bounds(memory_bytes=2 * 2**30))
    assert (summary.rendered, summary.skipped) == (2, 2)
    reasons = {row["key"]: row["reason"] for row in csv.DictReader((out / "skipped.csv").read_text().splitlines())}
    assert "memory" in reasons["cube"]


def test_a_data_set_of_broken_assets_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"not one of 1 assets could be drawn; .*skipped\.csv"):
        render_dataset(find_assets([tmp_path / "a.glb"]), tmp_path / "out", SMALL, DatasetPlan())


def test_a_made_asset_is_drawn_in_its_vertex_colours(scene: OffscreenScene, tmp_path: Path) -> None:
    # This package's own .glb files colour their vertices in linear light, beside a white material.
    drawn = on_top(np.random.default_rng(0), ("red", "cube"), ("blue", "cylinder"))
    *corners, faces = drawn.sketch.mesh()
    vertices, normals, colors = (values.astype(np.float32) for values in corners)
    path = tmp_path / "pile.glb"
    path.write_bytes(glb_bytes(vertices, normals, VertexColors(colors), faces, {}, {}))
    scene.load(path, SourceAsset("pile", path, "pile"))
    middle = scene.render(LEVEL, 0.0).rgba[:, 24].astype(int)
    solid = middle[middle[:, 3] == 255, :3]
    red, blue = solid[: len(solid) // 3].mean(0), solid[-len(solid) // 3 :].mean(0)
    assert red[0] > 2 * max(red[1], red[2])
    assert blue[2] > 1.5 * max(blue[0], blue[1])
