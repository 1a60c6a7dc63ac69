"""``dream3d export``: the same asset from the kept field, other ones by other options, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from mascot_run import PRIOR, mascot_run
from safetensors import safe_open
from safetensors.torch import save_file
from small_pictures import small_pictures
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.generate import resume
from dream3d.mesh.appearance import Texture, VertexColors
from dream3d.mesh.companions import companions_of
from dream3d.mesh.export import read_provenance
from dream3d.mesh.reading import read_asset
from dream3d.run import checkpoints
from dream3d.run.folder import read_run


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with small_pictures():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mascot_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def files_of_run(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir()}


def export(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *map(str, words), "--device", "cpu"])
    return result.exit_code, result.output


def test_the_same_recipe_gives_the_same_bytes(run: Path, files_of_run: dict[str, bytes], tmp_path: Path) -> None:
    code, output = export(run, "--out", tmp_path / "again.glb")
    assert code == 0, output
    assert (tmp_path / "again.glb").read_bytes() == files_of_run["mesh.glb"]
    assert {path.name: path.read_bytes() for path in run.iterdir()} == files_of_run


def test_the_result_tells_texture_and_whether_the_surface_is_closed(run: Path) -> None:
    result = read_run(run)["result"]
    assert (result["texture"], result["watertight"]) == (64, True)
    assert result["faces"] == len(read_asset(run / "mesh.glb").faces) <= 330


def test_options_change_the_asset_and_its_provenance(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "other.glb"
    code, output = export(
        run, "--out", out, "--faces", 150, "--texture", 128, "--resolution", 20, "--smoothing", 0, "--no-normal-map"
    )
    assert code == 0, output
    asset = read_asset(out)
    assert len(asset.faces) <= 165
    assert isinstance(asset.appearance, Texture)
    assert asset.appearance.image.shape == (128, 128, 3)
    assert asset.appearance.normals is None
    assert read_provenance(out)["recipe"]["mesh"] == {
        "resolution": 20,
        "min_component_fraction": 0.01,
        "smoothing": 0,
        "faces": 150,
        "texture": 128,
        "normal_map": False,
    }
    assert read_provenance(out)["prompt"] == "a mascot"
    assert f"{out} ({len(asset.vertices)} vertices, {len(asset.faces)} faces, texture of 128 pixels)" in output


@pytest.mark.parametrize("extension", ["obj", "ply", "stl"])
def test_every_format_by_its_name(extension: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = export(run, "--format", extension)
    assert code == 0, output
    mesh = trimesh.load(f"run.{extension}", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    visual = mesh.visual
    mesh.merge_vertices(merge_tex=True)  # which trimesh has parted at the texture's seams
    assert mesh.is_watertight
    kinds = {"obj": trimesh.visual.TextureVisuals, "ply": trimesh.visual.ColorVisuals}
    assert isinstance(visual, kinds.get(extension, object))


def test_without_a_texture_vertices_are_coloured(run: Path, tmp_path: Path) -> None:
    code, output = export(run, "--out", tmp_path / "plain.glb", "--texture", 0, "--quiet")
    assert (code, output) == (0, f"{tmp_path / 'plain.glb'}\n")
    assert isinstance(read_asset(tmp_path / "plain.glb").appearance, VertexColors)


def test_a_textured_obj_of_a_run_keeps_its_files_and_gets_them_back(tmp_path: Path) -> None:
    folder = mascot_run(tmp_path, "mascot.obj")
    copies, originals = companions_of(folder / "mesh.obj"), companions_of(tmp_path / "out/mascot.obj")
    assert [one.name for one in copies] == [one.name for one in originals]
    assert len(copies) == 3  # the image, the normal map and the material
    assert {one.name for one in copies} <= set(read_run(folder)["files"])
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    shutil.rmtree(tmp_path / "out")
    assert resume(folder, prior=PRIOR) is None
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


# --- what is refused ----------------------------------------------------------------------------------------------


def change_json(folder: Path, **changes: object) -> None:
    facts = {**read_run(folder), **changes}
    (folder / "run.json").write_text(json.dumps(facts))


def cut(folder: Path) -> None:
    path = folder / "field.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip(folder: Path) -> None:
    path = folder / "field.safetensors"
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(bytes(data))


def newer(folder: Path) -> None:
    path = folder / "field.safetensors"
    facts, tensors = checkpoints.read(path, 1)
    checkpoints.save(path, facts["step"], 99, {"job": facts["job"]}, tensors)


def lacking(folder: Path) -> None:
    path = folder / "field.safetensors"
    facts, tensors = checkpoints.read(path, 1)
    checkpoints.save(path, facts["step"], 1, {"job": facts["job"]}, dict(list(tensors.items())[1:]))


def foreign(folder: Path) -> None:
    with safe_open(folder / "field.safetensors", framework="pt") as file:
        names = list(file.keys())
        tensors = {name: file.get_tensor(name) for name in names}
    save_file(tensors, folder / "field.safetensors")


REFUSED: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "no field": (lambda folder: (folder / "field.safetensors").unlink(), 2, "has kept no field"),
    "an old list": (lambda folder: change_json(folder, files=["metrics.csv"]), 2, "has kept no field"),
    "no list": (lambda folder: change_json(folder, files=7), 2, "has kept no field"),
    "unfinished": (lambda folder: change_json(folder, status="running"), 2, "go on with it by 'dream3d resume'"),
    "another recipe": (lambda folder: change_json(folder, recipe={"name": "x", "new": 1}), 2, "of another version"),
    "no recipe": (lambda folder: change_json(folder, recipe=None), 2, "of another version"),
    "another seed": (lambda folder: change_json(folder, seed=4), 1, "belongs to another job"),
    "another grid": (lambda folder: change_json(folder, hash_grid="abacus"), 2, "only on the hash grid"),
    "cut": (cut, 1, "is damaged"),
    "a flipped bit": (flip, 1, "is damaged"),
    "newer": (newer, 1, "is of version 99"),
    "a tensor too few": (lacking, 1, "does not fit the recipe of its run"),
    "another program's": (foreign, 1, "is damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_cannot_be_used_is_refused_in_one_line(name: str, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    damage, code, words = REFUSED[name]
    damage(tmp_path / "run")
    found, output = export(tmp_path / "run", "--out", tmp_path / "x.glb")
    assert found == code, output
    assert words in output
    assert output.count("\n") == 1
    assert "remove it" not in output
    assert not (tmp_path / "x.glb").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--faces", "7"], "mesh.faces is 7, which should be 0 or at least 100"),
        (["--faces", "-1"], "--faces is -1"),
        (["--texture", "9000"], "--texture is 9000, which should be a whole number from 0 to 8192"),
        (["--texture", "3"], "mesh.texture is 3, which should be 0 or at least 64"),
        (["--resolution", "2"], "--resolution is 2"),
        (["--smoothing", "101"], "--smoothing is 101"),
        (["--format", "fbx"], "use one of .glb, .obj, .ply, .stl"),
        (["--out", "x.glb", "--format", "obj"], "--out x.glb is not a .obj file; leave out --format"),
    ],
)
def test_options_that_are_refused(
    words: list[str], message: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = export(run, *words)
    assert code == 2
    assert message in output
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    code, output = export(tmp_path, "--out", tmp_path / "x.glb")
    assert code == 2
    assert "holds no run" in output


def test_the_mean_colour_of_all_formats_agrees(run: Path, tmp_path: Path) -> None:
    means = []
    for extension in ("glb", "obj", "ply"):
        code, output = export(run, "--out", tmp_path / f"m.{extension}")
        assert code == 0, output
        mesh = trimesh.load(tmp_path / f"m.{extension}", force="mesh")
        assert isinstance(mesh, trimesh.Trimesh)
        visual: Any = mesh.visual
        visual = visual.to_color() if hasattr(visual, "uv") else visual
        colors = np.asarray(visual.vertex_colors)[:, :3] / 255
        area = np.asarray(mesh.area_faces)[:, None]
        means.append((colors[mesh.faces].mean(axis=1) * area).sum(axis=0) / area.sum())
    assert means[0] == pytest.approx(means[1], abs=0.01)
    assert means[0] == pytest.approx(means[2], abs=0.08)  # at vertices and half a voxel deep
