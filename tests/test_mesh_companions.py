"""Textured OBJ: files beside it that are never another's, and that come and go with it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from mesh_assets import reload, single_triangle, textured_quad

from dream3d.errors import ExportError
from dream3d.mesh.appearance import Texture
from dream3d.mesh.companions import companion_stem, companions_of
from dream3d.mesh.export import Asset, export
from dream3d.mesh.formats.registry import EXPORTERS


def darker() -> Asset:
    asset = textured_quad()
    assert isinstance(asset.appearance, Texture)
    return replace(asset, appearance=replace(asset.appearance, image=asset.appearance.image // 2))


def names(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_another_reader_finds_the_texture_where_it_belongs(tmp_path: Path) -> None:
    report = export(textured_quad(), tmp_path / "quad.obj")
    visual: Any = reload(tmp_path / "quad.obj").visual
    places = np.asarray(reload(tmp_path / "quad.obj").vertices)
    colors = visual.to_color().vertex_colors[:, :3]
    # World (0, 0, 1) is (0, 1, 0) in the file, the quad's left end on top, and has uv (0, 0): red. See mesh_assets.
    assert colors[(places[:, 0] < 0) & (places[:, 1] > 0)].tolist() == [[255, 0, 0]]
    assert colors[(places[:, 0] > 0) & (places[:, 1] < 0)].tolist() == [[255, 255, 255]]
    assert report.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("chair.obj", "chair"),
        ("my chair ü.obj", "my-chair"),
        ("椅子.obj", "mesh"),
        ("-.obj", "mesh"),
        ("a.b.obj", "a-b"),
    ],
)
def test_names_that_every_reader_understands(name: str, stem: str, tmp_path: Path) -> None:
    assert companion_stem(tmp_path / name) == stem
    export(textured_quad(), tmp_path / name)
    found = companions_of(tmp_path / name)
    assert [path.suffix for path in found] == [".png", ".mtl"]
    assert all(path.name.startswith(f"{stem}-") for path in found)
    assert isinstance(reload(tmp_path / name).visual, trimesh.visual.TextureVisuals)


def test_a_new_mesh_takes_the_old_ones_files_with_it(tmp_path: Path) -> None:
    path = tmp_path / "t.obj"
    export(textured_quad(), path)
    old = companions_of(path)
    export(darker(), path)
    assert not any(one.exists() for one in old)
    assert names(tmp_path) == [".mtl", ".obj", ".png"]
    export(darker(), path)  # the same again
    assert names(tmp_path) == [".mtl", ".obj", ".png"]
    export(single_triangle(), path)
    assert names(tmp_path) == [".obj"]


def test_a_copy_keeps_the_files_that_it_shares(tmp_path: Path) -> None:
    export(textured_quad(), tmp_path / "t.obj")
    shutil.copyfile(tmp_path / "t.obj", tmp_path / "kept.OBJ")
    export(darker(), tmp_path / "t.obj")
    assert len(companions_of(tmp_path / "kept.OBJ")) == 2
    export(darker(), tmp_path / "kept.OBJ")
    assert len(list(tmp_path.iterdir())) == 6  # two meshes, and two files of each
    assert {len(companions_of(path)) for path in tmp_path.iterdir() if path.suffix.lower() == ".obj"} == {2}


def test_what_two_meshes_share_is_left_to_both(tmp_path: Path) -> None:
    export(textured_quad(), tmp_path / "a b.obj")
    export(textured_quad(), tmp_path / "a-b.obj")
    assert companions_of(tmp_path / "a b.obj") == companions_of(tmp_path / "a-b.obj")


def test_another_file_of_that_name_is_not_touched(tmp_path: Path) -> None:
    export(textured_quad(), tmp_path / "t.obj")
    image, material = companions_of(tmp_path / "t.obj")
    (tmp_path / "t.obj").unlink()
    material.write_text("mine")
    image.unlink()
    with pytest.raises(ExportError, match=r"t-\w+\.mtl is there and is another file; move it away"):
        export(textured_quad(), tmp_path / "t.obj")
    assert material.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [material]


@pytest.mark.parametrize(
    "text", ["", "mtllib t.mtl\n", "# dream3d 0\nmtllib ../t-0123456789ab.mtl\n", "# x\nmtllib t\n"]
)
def test_other_programs_files_are_no_companions(text: str, tmp_path: Path) -> None:
    for name in ("t.mtl", "t.png", "t-0123456789ab.mtl"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/t.obj").write_text(text)
    assert companions_of(tmp_path / "folder/t.obj") == []
    assert companions_of(tmp_path / "folder/none.obj") == []


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_failed_write_leaves_the_old_files_and_nothing_else(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.obj"
    export(textured_quad(), path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    move, moved = os.replace, list[object]()

    def full(source: Any, target: Any) -> None:
        moved.append(target)
        if len(moved) == failing:
            raise OSError(28, "No space left on device")
        move(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ExportError, match="No space left on device"):
        export(darker(), path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_a_lost_image_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPORTERS, ".obj", replace(EXPORTERS[".obj"], beside=lambda mesh: {}))
    with pytest.raises(ExportError, match="its texture is gone or another"):
        export(textured_quad(), tmp_path / "t.obj")
    assert not list(tmp_path.iterdir())
