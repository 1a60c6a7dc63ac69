"""Smoothing and decimation: what stays, by hand and for any closed surface."""

from __future__ import annotations

import fast_simplification
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dream3d.mesh.decimate import decimate
from dream3d.mesh.smooth import GROW, SHRINK, smooth, taubin
from dream3d.mesh.surface import face_volumes, is_watertight

Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]


def solid(kind: str, noise: float = 0.0, seed: int = 0) -> Arrays:
    mesh = {
        "ball": lambda: trimesh.creation.icosphere(subdivisions=4, radius=0.6),
        "ring": lambda: trimesh.creation.torus(0.5, 0.2, major_sections=48, minor_sections=24),
        "box": lambda: trimesh.creation.box((1, 0.8, 0.6)).subdivide().subdivide().subdivide().subdivide(),
    }[kind]()
    bumps = np.random.default_rng(seed).normal(scale=noise, size=mesh.vertices.shape)
    return (np.asarray(mesh.vertices) + bumps).astype(np.float32), np.asarray(mesh.faces, np.int64)


def roughness(vertices: NDArray[np.float32]) -> float:
    """Of a ball of radius 0.6."""
    return float(np.std(np.linalg.norm(vertices, axis=1)))


def test_one_round_by_hand() -> None:
    # A tetrahedron: each corner's neighbours are the other three, whose mean is -1/3 of it (their sum is zero).
    corners = np.array([[0.5, 0.5, 0.5], [0.5, -0.5, -0.5], [-0.5, 0.5, -0.5], [-0.5, -0.5, 0.5]], np.float32)
    faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]], np.int64)
    factor = (1 - SHRINK * 4 / 3) * (1 - GROW * 4 / 3)
    assert taubin(corners, faces, 1) == pytest.approx(corners * factor, abs=1e-6)
    assert taubin(corners, faces, 0) is corners


def test_bumps_go_and_the_volume_stays() -> None:
    rough, faces = solid("ball", noise=0.01)
    even = taubin(rough, faces, 20)
    assert roughness(even) < roughness(rough) / 3
    assert face_volumes(even, faces).sum() == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.02)


def test_a_cap_on_the_cubes_side_stays_flat() -> None:
    vertices, faces = solid("box")
    vertices = vertices + np.array([0.5, 0, 0], np.float32)  # a box of side 1 in x: it reaches the side at 1
    capped = vertices[:, 0] == 1
    even = taubin(vertices, faces, 20)
    assert capped.sum() > 100
    assert (even[capped, 0] == 1).all()
    assert not np.array_equal(even[~capped], vertices[~capped])


def test_smoothing_stops_where_the_outline_would_change() -> None:
    vertices, faces = solid("ball", noise=0.01)
    asked: list[int] = []

    def fit(moved: NDArray[np.float32]) -> float:
        asked.append(1)
        return 0.9 if np.array_equal(moved, vertices) or len(asked) > 3 else 0.8

    smoothed = smooth(vertices, faces, 20, fit)
    assert np.array_equal(smoothed, taubin(vertices, faces, 5))  # 20 and 10 lost a tenth
    kept = smooth(vertices, faces, 20, lambda moved: float(np.array_equal(moved, vertices)))
    assert np.array_equal(kept, vertices)


def test_smoothing_stops_where_the_volume_would_change() -> None:
    thin, faces = solid("ball")
    thin = thin * np.array([1, 1, 0.02], np.float32)  # a disc's edge is a wave of few vertices
    smoothed = smooth(thin, faces, 100, lambda moved: 1.0)
    assert any(np.array_equal(smoothed, taubin(thin, faces, rounds)) for rounds in (50, 25, 12, 6, 3, 1))


@pytest.mark.parametrize(
    ("faces", "closed"),
    [
        ([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]], True),
        ([[0, 1, 2], [0, 3, 1], [0, 2, 3]], False),  # a side is missing
        ([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 3, 2]], False),  # one is turned over
        ([[0, 1, 2], [0, 2, 1]], True),  # two sides of one triangle close nothing, but have no edge either
        ([[0, 1, 1], [0, 1, 1]], False),
        ([], False),
    ],
)
def test_closed_surfaces_by_hand(faces: list[list[int]], closed: bool) -> None:
    assert is_watertight(np.array(faces, np.int64).reshape(-1, 3)) is closed


@given(
    kind=st.sampled_from(["ball", "ring", "box"]),
    noise=st.floats(0, 0.02),
    seed=st.integers(0, 99),
    count=st.integers(100, 1500),
)
@settings(deadline=None, max_examples=25)
def test_a_closed_surface_stays_closed_with_fewer_faces(kind: str, noise: float, seed: int, count: int) -> None:
    vertices, faces = solid(kind, noise, seed)
    fewer = decimate(vertices, faces, count)
    assert is_watertight(fewer.faces)
    assert np.array_equal(np.unique(fewer.faces), np.arange(len(fewer.vertices)))
    assert face_volumes(fewer.vertices, fewer.faces).sum() == pytest.approx(
        face_volumes(vertices, faces).sum(), rel=0.101
    )
    assert fewer.note is not None or len(fewer.faces) <= 1.1 * count


def test_the_same_surface_gives_the_same_faces() -> None:
    one, other = decimate(*solid("ring", 0.01), 500), decimate(*solid("ring", 0.01), 500)
    assert one.vertices.tobytes() == other.vertices.tobytes()
    assert one.faces.tobytes() == other.faces.tobytes()


@pytest.mark.parametrize("count", [0, 5120, 9999])
def test_a_surface_with_few_faces_is_left_alone(count: int) -> None:
    vertices, faces = solid("ball")
    assert len(faces) == 5120
    assert decimate(vertices, faces, count).faces is faces


def test_a_library_that_opens_the_surface_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, asked = fast_simplification.simplify, list[tuple[int, float]]()

    def opening(points: object, triangles: object, target_count: int, agg: float) -> object:
        asked.append((target_count, agg))
        made, faces = honest(points, triangles, target_count=target_count, agg=agg)
        return (made, faces[1:]) if len(asked) < 5 else (made, faces)

    monkeypatch.setattr(fast_simplification, "simplify", opening)
    fewer = decimate(*solid("ball"), 1000)
    assert asked[-1] == (1500, 4.0)  # three orders at 1,000, two at 1,500
    assert len(fewer.faces) == 1500
    assert fewer.note == "1500 faces instead of 1000, to keep the surface closed"
    monkeypatch.setattr(fast_simplification, "simplify", lambda p, t, **_: (p, t[1:]))
    fewer = decimate(*solid("ball"), 1000)
    assert len(fewer.faces) == 5120
    assert fewer.note == "all 5120 faces were kept, since fewer would open the surface"
