"""Reading back what was exported, in the frame it was made in."""

from pathlib import Path

import numpy as np
import pytest
from mesh_assets import textured_quad

from dream3d.errors import ExportError
from dream3d.mesh.appearance import Texture, VertexColors
from dream3d.mesh.export import Asset, export
from dream3d.mesh.reading import read_asset
from dream3d.mesh.srgb import linear_from_srgb, srgb_from_linear


def tetrahedron() -> Asset:
    vertices = np.array([[0, 0, 0], [0.5, 0, 0], [0, 0.25, 0], [0.1, 0, 0.75]], dtype=np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    colors = np.array([[0, 0, 0], [1, 0, 0], [0, 0.5, 0], [0.2, 0.4, 0.6]], dtype=np.float32)
    return Asset(vertices, faces, VertexColors(colors), {"prompt": "a tetrahedron"})


def test_a_round_trip_ends_in_the_world_frame(tmp_path: Path) -> None:
    made = tetrahedron()
    export(made, tmp_path / "t.glb")
    read = read_asset(tmp_path / "t.glb")
    np.testing.assert_allclose(read.vertices[read.faces], made.vertices[made.faces], atol=1e-6)
    assert isinstance(read.appearance, VertexColors)
    assert isinstance(made.appearance, VertexColors)
    np.testing.assert_allclose(read.appearance.values[read.faces], made.appearance.values[made.faces], atol=1e-5)
    assert read.provenance == {"prompt": "a tetrahedron"}


def test_a_texture_comes_back(tmp_path: Path) -> None:
    made = textured_quad()
    export(made, tmp_path / "t.glb")
    read = read_asset(tmp_path / "t.glb")
    assert isinstance(made.appearance, Texture)
    assert isinstance(read.appearance, Texture)
    assert np.array_equal(read.appearance.image, made.appearance.image)
    np.testing.assert_allclose(read.appearance.uv[read.faces], made.appearance.uv[made.faces], atol=1e-6)


def test_colour_transfer_functions_are_inverse() -> None:
    values = np.linspace(0, 1, 101)
    np.testing.assert_allclose(srgb_from_linear(linear_from_srgb(values)), values, atol=1e-9)
    assert srgb_from_linear(np.array([0.2140])) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("content", [b"", b"glTF", b"not a mesh at all"])
def test_foreign_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.glb"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"foreign\.glb is not a GLB written by dream3d"):
        read_asset(path)
