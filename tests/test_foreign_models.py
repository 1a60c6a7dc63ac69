"""Models of other programs: parts, places, colours and textures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from mesh_assets import axis_object
from PIL import Image

from dream3d.cameras import orbit
from dream3d.errors import ExportError
from dream3d.mesh.appearance import Texture, VertexColors
from dream3d.mesh.export import export
from dream3d.mesh.foreign import read_scene
from dream3d.mesh.shading import shade_asset

visual: Any = trimesh.visual


def box(color: tuple[float, float, float], image: Image.Image | None = None) -> trimesh.Trimesh:
    """A cube of side 1, of one colour in linear light, or with an image on every side."""
    mesh = trimesh.creation.box()
    mesh.unmerge_vertices()
    factor: Any = [*color, 1.0]
    material = visual.material.PBRMaterial(baseColorFactor=factor, baseColorTexture=image)
    uv = np.tile([[0.0, 0], [1, 0], [1, 1]], (len(mesh.faces), 1))
    mesh.visual = visual.TextureVisuals(uv=uv, material=material)
    return mesh


def write(path: Path, *parts: tuple[trimesh.Trimesh, tuple[float, float, float]]) -> Path:
    scene: Any = trimesh.Scene()
    for mesh, place in parts:
        transform = np.eye(4)
        transform[:3, 3] = place
        scene.add_geometry(mesh, transform=transform)
    scene.export(path)
    return path


def test_parts_stand_where_their_nodes_put_them(tmp_path: Path) -> None:
    # In the file y is up and the front is +z: z up and front +x here.
    asset = read_scene(write(tmp_path / "a.glb", (box((1, 0, 0)), (0, 0, 0)), (box((0, 0, 1)), (0, 5, 2))))
    assert asset.faces.shape == (24, 3)
    assert asset.vertices.min(0).tolist() == pytest.approx([-0.5, -0.5, -0.5])
    assert asset.vertices.max(0).tolist() == pytest.approx([2.5, 0.5, 5.5])
    assert isinstance(asset.appearance, VertexColors)
    is_high = asset.vertices[:, 2] > 2
    assert asset.appearance.values[~is_high] == pytest.approx(np.tile([1, 0, 0], (36, 1)))
    assert asset.appearance.values[is_high] == pytest.approx(np.tile([0, 0, 1], (36, 1)))


def test_textures_of_several_parts_share_one_picture(tmp_path: Path) -> None:
    green, plain = Image.new("RGB", (8, 4), (0, 200, 0)), Image.new("RGB", (2, 2), (100, 100, 200))
    parts = (box((1, 1, 1), green), (0.0, 0, 0)), (box((1, 0, 0)), (3.0, 0, 0)), (box((1, 1, 1), plain), (6.0, 0, 0))
    asset = read_scene(write(tmp_path / "a.glb", *parts))
    assert isinstance(asset.appearance, Texture)
    colors = np.rint(asset.appearance.at(asset.appearance.uv) * 255)
    expected = [[0, 200, 0]] * 36 + [[255, 0, 0]] * 36 + [[100, 100, 200]] * 36
    assert sorted(map(tuple, colors.tolist())) == sorted(map(tuple, expected))


def test_what_is_seen_of_an_asset_of_ours_is_the_same_either_way(tmp_path: Path) -> None:
    export(axis_object(), tmp_path / "axes.glb")
    cameras = orbit(4)
    ours, seen = (shade_asset(one, cameras, 32, 1.0) for one in (axis_object(), read_scene(tmp_path / "axes.glb")))
    assert np.abs(ours.astype(int) - seen.astype(int)).mean() < 2  # corners of their own: flat normals
    assert (ours != 255).any()


def test_files_without_a_surface_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(b"glTF and then nothing")
    with pytest.raises(ExportError, match="cannot be read"):
        read_scene(tmp_path / "a.glb")
    points: Any = trimesh.PointCloud
    points(np.zeros((3, 3))).export(tmp_path / "points.ply")
    with pytest.raises(ExportError, match=r"no surface|cannot be read"):
        read_scene(tmp_path / "points.ply")
