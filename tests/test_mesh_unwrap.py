"""Layouts, by xatlas and by boxes: whole, inside the image, and no two faces in one place."""

from __future__ import annotations

import time

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from dream3d.mesh import lay_flat
from dream3d.mesh.boxmap import box_layout
from dream3d.mesh.layout import Layout
from dream3d.mesh.raster import covered_pixels
from dream3d.mesh.unwrap import unwrap

Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]
SIZE = 256


def bent() -> Arrays:
    """A ring with waves: normals to all sides, and charts that would fold over themselves."""
    mesh = trimesh.creation.torus(0.5, 0.2, major_sections=40, minor_sections=20)
    vertices = np.asarray(mesh.vertices)
    waves = 1 + 0.15 * np.sin(9 * vertices[:, :1]) * np.cos(7 * vertices[:, 1:2])
    return (vertices * waves).astype(np.float32), np.asarray(mesh.faces, np.int64)


def box() -> Arrays:
    mesh = trimesh.creation.box((1, 1, 1))
    return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int64)


def shared_texels(layout: Layout) -> float:
    """Share of the texels used whose centre lies well inside more than one face."""
    corners = layout.uv[layout.faces].astype(np.float64) * SIZE
    count = np.zeros(SIZE * SIZE, np.int64)
    for _, pixel, weights, _ in covered_pixels(corners, np.ones(corners.shape[:2]), SIZE, SIZE):
        np.add.at(count, pixel[(weights > 0.02).all(axis=1)], 1)
    return float((count > 1).sum() / (count > 0).sum())


@pytest.fixture(scope="module")
def by_xatlas() -> Layout:
    layout, note = unwrap(*bent(), SIZE)
    assert note is None
    return layout


def test_xatlas_lays_out_every_face_once(by_xatlas: Layout) -> None:
    assert by_xatlas.fits(bent()[1])
    assert shared_texels(by_xatlas) < 0.001


def test_the_same_surface_gives_the_same_layout(by_xatlas: Layout) -> None:
    again, _ = unwrap(*bent(), SIZE)
    for one, other in zip(vars(by_xatlas).values(), vars(again).values(), strict=True):
        assert one.tobytes() == other.tobytes()


def test_boxes_lay_out_every_face_once() -> None:
    layout = box_layout(*bent(), SIZE, 2)
    assert layout.fits(bent()[1])
    assert shared_texels(layout) < 0.01


def test_a_boxs_six_sides_are_six_squares() -> None:
    vertices, faces = box()
    layout = box_layout(vertices, faces, SIZE, 2)
    assert len(layout.source) == 24  # four corners of each side
    sides = layout.uv[layout.faces]
    first, second = sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0]
    areas = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    assert areas == pytest.approx(np.full(12, areas[0]), rel=1e-4)
    # Three squares in a row and two rows: each nearly a third of the image wide.
    assert areas[0] == pytest.approx(1 / 9, rel=0.06)


def test_an_unwrapping_that_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    layout, note = unwrap(*bent(), SIZE, seconds=0.01)
    assert time.monotonic() - began < 30
    assert note == "xatlas took more than 0.01 s; the texture is laid out by box projection, with more seams"
    assert layout.fits(bent()[1])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("json", "ended with exit code 1 (ImportError: "),  # it has no main
        ("antigravity_of_nobody", "ended with exit code 1 (ModuleNotFoundError: "),
    ],
)
def test_an_unwrapping_that_fails_says_why(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lay_flat, "__name__", name)
    layout, note = unwrap(*box(), SIZE)
    assert note is not None
    assert note.startswith(f"xatlas {words}")
    assert layout.fits(box()[1])


@pytest.mark.parametrize("answer", [b"", b"PK", b"nonsense"])
def test_an_answer_that_is_no_layout_is_not_used(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream3d.mesh.unwrap.run_program", lambda *_: answer)
    layout, note = unwrap(*box(), SIZE)
    assert note is not None
    assert note.startswith("xatlas gave no layout; ")
    assert layout.fits(box()[1])


def test_a_layout_of_another_surface_does_not_fit(by_xatlas: Layout) -> None:
    faces = bent()[1]
    assert not by_xatlas.fits(faces[1:])
    assert not by_xatlas.fits(faces[::-1])
    assert not Layout(by_xatlas.source, by_xatlas.faces, by_xatlas.uv + 1).fits(faces)
    assert not Layout(by_xatlas.source, by_xatlas.faces, by_xatlas.uv * np.nan).fits(faces)
