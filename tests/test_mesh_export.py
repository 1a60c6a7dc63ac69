"""The way of an asset to its file: the change of frame, whole files or none, and reading back."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from mesh_assets import reload, single_triangle
from trimesh.exchange.ply import export_ply

from dream3d.errors import ExportError
from dream3d.mesh.export import Placement, export
from dream3d.mesh.formats.registry import EXPORTERS


@given(
    centre=st.tuples(*[st.floats(-3, 3)] * 3),
    scale=st.floats(0.01, 100),
    point=st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_placement_can_be_undone(
    centre: tuple[float, float, float], scale: float, point: tuple[float, float, float]
) -> None:
    placement = Placement(centre, scale)
    world = np.array([point])
    assert placement.to_world(placement.to_file(world)) == pytest.approx(world, abs=1e-9)


def test_the_frame_change_is_a_rotation() -> None:
    turned = Placement((0, 0, 0), 1).to_file(np.eye(3))
    assert turned.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert np.linalg.det(turned) == pytest.approx(1)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No such file or directory; check that the folder exists"):
        export(single_triangle(), tmp_path / "nowhere" / "t.glb")


def test_an_interrupt_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(single_triangle(), tmp_path / "t.glb")
    assert not list(tmp_path.iterdir())


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "t.glb"
    path.write_bytes(b"older work")
    export(single_triangle(), path)
    assert len(reload(path).faces) == 1


def without_colors(data: bytes) -> bytes:
    mesh = trimesh.load_mesh(io.BytesIO(data), file_type="ply", process=False)
    return bytes(export_ply(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)))


SABOTAGE: dict[str, Callable[[bytes], bytes]] = {
    "did not read back": lambda data: data[: len(data) // 2],
    "its colours are gone": without_colors,
    "its positions are off": lambda data: data.replace(struct.pack("<f", 0.5), struct.pack("<f", 0.4)),
    "its colours are off by": lambda data: data.replace(b"\x80\x80\x80\xff", b"\x00\x00\x00\xff"),
}


@pytest.mark.parametrize("words", list(SABOTAGE))
def test_a_file_that_reads_back_differently_never_appears(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = EXPORTERS[".ply"]
    sabotaged = replace(honest, encode=lambda mesh: SABOTAGE[words](honest.encode(mesh)))
    monkeypatch.setitem(EXPORTERS, ".ply", sabotaged)
    with pytest.raises(ExportError, match=f"was not written: .*{words}"):
        export(single_triangle(), tmp_path / "t.ply")
    assert not list(tmp_path.iterdir())
