from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from dream3d.cameras import Cameras, look_at_origin, orbit
from dream3d.kernels.compiled import compiled
from dream3d.mesh import loops, raster
from dream3d.mesh.appearance import Texture
from dream3d.mesh.raster import covered_pixels, interpolate, rasterize, silhouettes
from dream3d.mesh.shading import shade


def front_camera(distance: float = 2.0, fovy_deg: float = 90.0) -> Cameras:
    """On +x, looking along -x: image right is +y, image up is +z. At 90 degrees the image spans depth * [-1, 1]."""
    angle = torch.zeros(1)
    return Cameras(look_at_origin(angle, angle, torch.tensor([distance])), torch.tensor([fovy_deg]))


def facing_triangle(x: float, size: float = 10.0) -> NDArray[np.float64]:
    """A triangle in the plane of that x, larger than the image, facing the front camera."""
    return np.array([[x, -size, -size], [x, size, -size], [x, 0, 2 * size]], dtype=np.float64)


ONE_FACE = np.array([[0, 1, 2]])
RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def test_pixel_centres_follow_the_rays() -> None:
    # Depth 2, 4 x 4 pixels over [-2, 2]: pixel centres at -1.5, -0.5, 0.5, 1.5. The triangle holds one of them.
    vertices = np.array([[0, 0.3, 0.4], [0, 0.7, 0.4], [0, 0.5, 0.7]])
    face = rasterize(vertices, ONE_FACE, front_camera(), 4, 4).face[0]
    assert np.argwhere(face == 0).tolist() == [[1, 2]]  # y = 0.5 is column 2, z = 0.5 is row 1 from the top


def test_a_triangle_between_pixel_centres_is_not_seen() -> None:
    vertices = np.array([[0, -0.4, -0.4], [0, 0.4, -0.4], [0, 0, 0.4]])
    assert not silhouettes(vertices, ONE_FACE, front_camera(), 4, 4).any()


@pytest.mark.parametrize(("height", "width"), [(9, 9), (6, 12), (12, 5)])
def test_depth_is_the_distance_along_the_ray(height: int, width: int) -> None:
    cameras = orbit(5, elevation_deg=35, azimuth_deg=10, fovy_deg=50)
    vertices = np.array([[0.1, -0.9, -0.7], [-0.2, 0.8, -0.5], [0.3, 0.1, 0.9]])
    fragments = rasterize(vertices, ONE_FACE, cameras, height, width)
    depth = fragments.depth(cameras)
    rays_o, rays_d = (rays.double().numpy() for rays in cameras.rays(height, width))
    normal = np.cross(vertices[1] - vertices[0], vertices[2] - vertices[0])
    distance = ((vertices[0] - rays_o) @ normal) / (rays_d @ normal)
    seen = fragments.face == 0
    assert seen.any(axis=(1, 2)).all()
    assert depth[seen] == pytest.approx(distance[seen], abs=1e-5)
    assert (depth[~seen] == math.inf).all()
    # The hit point from the weights is the hit point from the ray.
    hit = rays_o + depth[..., None].astype(float).clip(max=99) * rays_d
    assert fragments.barycentric[seen] @ vertices == pytest.approx(hit[seen], abs=1e-5)


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_any_triangle_agrees_with_ray_intersection(seed: int) -> None:
    vertices = np.random.default_rng(seed).uniform(-1, 1, size=(3, 3))
    cameras = orbit(2, elevation_deg=20, azimuth_deg=seed % 360)
    fragments = rasterize(vertices, ONE_FACE, cameras, 16, 16)
    rays_o, rays_d = (rays.double().numpy().reshape(-1, 3) for rays in cameras.rays(16, 16))
    edges = np.stack([vertices[0] - vertices[1], vertices[0] - vertices[2]], -1)
    # o + t d = v0 + u (v1 - v0) + v (v2 - v0) solved for (u, v, t) by Cramer's rule
    system = np.concatenate([np.broadcast_to(-edges, (len(rays_d), 3, 2)), -rays_d[..., None]], -1)
    u, v, _ = np.linalg.solve(system, (rays_o - vertices[0])[..., None])[..., 0].T
    margin = np.minimum(np.minimum(u, v), 1 - u - v)
    face = fragments.face.reshape(-1)
    assert (face[margin > 1e-4] == 0).all()
    assert (face[margin < -1e-4] == -1).all()


def test_an_icosphere_is_the_analytic_disc_up_to_its_border() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=5, radius=0.8)
    cameras = orbit(4, elevation_deg=30)
    drawn = silhouettes(sphere.vertices, sphere.faces, cameras, 96, 96)
    rays_o, rays_d = cameras.rays(96, 96)
    analytic = (torch.linalg.cross(rays_o, rays_d).norm(dim=-1) < 0.8).numpy()
    for one, other in zip(drawn, analytic, strict=True):
        border = ndimage.binary_dilation(other) ^ ndimage.binary_erosion(other)
        assert (one == other)[~border].all()
    assert (drawn ^ analytic).mean() < 0.005


def test_there_are_no_holes_between_neighbouring_faces() -> None:
    # The fan's centre and spokes lie exactly on pixel centres, the worst case for the edge rule.
    ring = np.linspace(0, 2 * math.pi, 9)[:-1]
    vertices = np.concatenate([[[0, 0, 0]], np.stack([np.zeros(8), 1.5 * np.cos(ring), 1.5 * np.sin(ring)], -1)])
    faces = np.array([[0, 1 + i, 1 + (i + 1) % 8] for i in range(8)])
    drawn = silhouettes(vertices, faces, front_camera(), 41, 41)[0]
    assert np.array_equal(drawn, ndimage.binary_fill_holes(drawn))
    assert drawn[20, 20]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_face_wins_whatever_the_order(order: tuple[int, int]) -> None:
    vertices = np.concatenate([facing_triangle(0.5), facing_triangle(-0.5)])
    faces = np.array([[0, 1, 2], [3, 4, 5]])[list(order)]
    fragments = rasterize(vertices, faces, front_camera(), 8, 8)
    assert (fragments.face == order.index(0)).all()


def test_of_equal_depths_the_first_face_wins() -> None:
    faces = np.array([[0, 1, 2]] * 5)
    assert (rasterize(facing_triangle(0), faces, front_camera(), 8, 8).face == 0).all()


def test_crossing_faces_are_cut_where_they_cross() -> None:
    # Planes x = y and x = -y meet on the z axis: the right half sees the one that comes nearer for y > 0.
    vertices = np.array([[-5, -5, -9], [1.5, 1.5, 0], [-5, -5, 9], [1.5, -1.5, 0], [-5, 5, -9], [-5, 5, 9]], float)
    face = rasterize(vertices, np.array([[0, 1, 2], [3, 4, 5]]), front_camera(), 6, 6).face[0]
    assert (face[2:4, 3:] == 0).all()
    assert (face[2:4, :3] == 1).all()


def test_interpolation_is_perspective_correct() -> None:
    # A floor z = -1 from depth 1 (x = 1) to depth 3 (x = -1), camera at x = 2; value = depth. Along the image
    # column through the middle, row coordinate r = -z / depth, so depth = 1 / r, which is not linear in r.
    vertices = np.array([[1, -30, -1], [1, 30, -1], [-1, -30, -1], [-1, 30, -1]], dtype=np.float64)
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    fragments = rasterize(vertices, faces, front_camera(), 20, 20)
    depths = interpolate(fragments, faces, np.array([[1.0], [1.0], [3.0], [3.0]]))[0, :, 10, 0]
    for row in range(20):
        below = (row + 0.5) / 10 - 1
        expected = 1 / below if below >= 1 / 3 else 0
        assert depths[row] == pytest.approx(expected, abs=1e-5)


def test_weights_sum_to_one_inside_and_zero_outside() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=2, radius=0.6)
    fragments = rasterize(sphere.vertices, sphere.faces, orbit(2), 32, 32)
    total = fragments.barycentric.sum(-1)
    assert total[fragments.face >= 0] == pytest.approx(1, abs=1e-5)
    assert (total[fragments.face < 0] == 0).all()


# --- the compiled loops against array operations -----------------------------------------------------------------


@given(seed=st.integers(0, 10_000), batch=st.sampled_from([97, 1 << 20]))
@settings(deadline=None, max_examples=20)
def test_the_loop_draws_what_array_operations_do_to_the_last_bit(seed: int, batch: int) -> None:
    random = np.random.default_rng(seed)
    # Some behind the camera, some across the border, some without area, and the first ones twice.
    screen, z = random.uniform(-10, 50, (60, 2)), random.uniform(-0.2, 3, 60)
    faces = random.integers(0, 60, (150, 3))
    faces = np.concatenate([faces, faces[:20]])
    z_buffer, owner, weights = np.full((30, 40), np.inf), np.full((30, 40), -1), np.zeros((30, 40, 3))
    loops.cover(screen, z, faces, True, z_buffer, owner, weights)
    first_owner = np.full((30, 40), -1)
    loops.cover(screen, z, faces, False, np.full((30, 40), np.inf), first_owner, np.zeros((30, 40, 3)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raster, "BATCH", batch)
        parts = zip(*covered_pixels(screen[faces], z[faces], 30, 40), strict=True)
        face, pixel, weight, depth = (np.concatenate(part) for part in parts)
    assert len(np.unique(pixel)) > 600
    for key, drawn in ((depth, owner), (face, first_owner)):
        order = np.lexsort([face, key, pixel])
        seen, first = np.unique(pixel[order], return_index=True)
        expected = np.full(30 * 40, -1)
        expected[seen] = face[order[first]]
        assert np.array_equal(drawn.reshape(-1), expected)
        if drawn is owner:
            assert np.array_equal(weights.reshape(-1, 3)[seen], weight[order[first]])
            assert np.array_equal(z_buffer.reshape(-1)[seen], depth[order[first]])


def test_values_at_pixels_are_those_of_array_operations() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=0.9)
    values = np.random.default_rng(0).normal(size=(len(sphere.vertices), 9)).astype(np.float32)
    fragments = rasterize(sphere.vertices, sphere.faces, orbit(2), 40, 40)
    seen = fragments.face >= 0
    expected = np.einsum("pk,pkc->pc", fragments.barycentric[seen], values[sphere.faces[fragments.face[seen]]])
    found = interpolate(fragments, sphere.faces, values)
    assert found[seen] == pytest.approx(expected, abs=1e-6)
    assert (found[~seen] == 0).all()


def test_where_nothing_can_be_kept_the_loops_are_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **options: object) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'twice': no locator available for file")
        return lambda function: function

    def twice(numbers: NDArray[np.float64]) -> None:
        numbers *= 2

    monkeypatch.setattr(numba, "njit", refuse)
    numbers = np.ones(2)
    compiled(twice)(numbers)
    assert numbers.tolist() == [2, 2]


def test_what_is_behind_the_camera_is_not_drawn() -> None:
    assert not silhouettes(facing_triangle(3.0), ONE_FACE, front_camera(), 8, 8).any()
    through = np.array([[0, 0, 0], [3, 1, 0], [3, 0, 1]], dtype=np.float64)
    assert not silhouettes(through, ONE_FACE, front_camera(), 8, 8).any()


def test_degenerate_and_missing_faces_are_nothing() -> None:
    assert not silhouettes(np.zeros((3, 3)), ONE_FACE, front_camera(), 8, 8).any()
    fragments = rasterize(np.zeros((0, 3)), np.zeros((0, 3), np.int64), front_camera(), 8, 8)
    assert (fragments.face == -1).all()
    assert interpolate(fragments, np.zeros((0, 3), np.int64), np.zeros((0, 2))).shape == (1, 8, 8, 2)


def test_both_sides_are_drawn() -> None:
    assert silhouettes(facing_triangle(0), np.array([[0, 2, 1]]), front_camera(), 8, 8).all()


def test_vertices_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        rasterize(np.full((3, 3), np.nan), ONE_FACE, front_camera(), 8, 8)


# --- pictures ---------------------------------------------------------------------------------------------------


def test_ambient_light_alone_shows_the_bare_colours() -> None:
    colors = np.array([RED, RED, RED])
    picture = shade(facing_triangle(0), ONE_FACE, colors, front_camera(), 8, 8, ambient=1)
    assert picture.shape == (1, 8, 8, 3)
    assert picture.dtype == np.uint8
    assert (picture == (255, 0, 0)).all()


def test_bytes_and_floats_mean_the_same_colours() -> None:
    colors = np.array([[51, 102, 204]] * 3, np.uint8)
    as_bytes = shade(facing_triangle(0), ONE_FACE, colors, front_camera(), 4, 4)
    as_floats = shade(facing_triangle(0), ONE_FACE, colors / 255, front_camera(), 4, 4)
    assert np.array_equal(as_bytes, as_floats)


def test_a_texture_is_seen_pixel_by_pixel() -> None:
    # Depth 2, 4 x 4 pixels over [-2, 2]: a square of side 4 fills the image, and the texture's 4 x 4 pixels are its.
    vertices = np.array([[0, -2, 2], [0, 2, 2], [0, 2, -2], [0, -2, -2]], dtype=np.float64)
    faces = np.array([[0, 2, 1], [0, 3, 2]])
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    picture = shade(vertices, faces, Texture(uv, image), front_camera(), 4, 4, ambient=1)[0]
    assert np.abs(picture.astype(int) - image).max() <= 1


def test_light_does_not_show_a_textures_seam() -> None:
    # Two faces bent at an edge that is there twice: the normals on both sides of it are the same.
    vertices = np.array([[0, 0, -9], [0, 0, 9], [-4, 9, 0], [0, 0, -9], [0, 0, 9], [-4, -9, 0]], dtype=np.float64)
    faces = np.array([[0, 2, 1], [3, 4, 5]])
    white = Texture(np.zeros((6, 2)), np.full((1, 1, 3), 255, np.uint8))
    middle = shade(vertices, faces, white, front_camera(), 8, 8, ambient=0.2)[0, 4, 3:5, 0]
    apart = shade(vertices, faces, np.ones((6, 3)), front_camera(), 8, 8, ambient=0.2)[0, 4, 3:5, 0]
    assert middle.min() > apart.max() + 2  # at the edge the common normal faces the camera
    assert middle[0] == middle[1]


def test_the_background_is_white_unless_told() -> None:
    nothing, faces = np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    assert (shade(nothing, faces, nothing, front_camera(), 4, 4) == 255).all()
    assert (shade(nothing, faces, nothing, front_camera(), 4, 4, background=0.0) == 0).all()


def test_a_slanted_face_is_darker_by_the_cosine() -> None:
    # Normal (1, 1, 0) / sqrt 2 seen along x, far away: 0.2 + 0.8 * cos 45 degrees = 0.7657, times 255 = 195.
    vertices = np.array([[9, -9, -9], [-9, 9, -9], [0, 0, 18]], dtype=np.float64)
    white = np.ones((3, 3))
    picture = shade(vertices, ONE_FACE, white, front_camera(1000, 0.1), 5, 5, ambient=0.2)
    assert abs(int(picture[0, 2, 2, 0]) - 195) <= 1


def test_supersampling_averages_the_border() -> None:
    # Depth 2, 2 x 2 pixels over [-2, 2]; black for y < -1 covers the left half of the left column.
    vertices = np.array([[0, -1, -50], [0, -1, 50], [0, -99, 0]], dtype=np.float64)
    black = np.zeros((3, 3))
    sharp = shade(vertices, ONE_FACE, black, front_camera(), 2, 2)
    smooth = shade(vertices, ONE_FACE, black, front_camera(), 2, 2, supersample=4)
    assert set(np.unique(sharp)) <= {0, 255}
    assert (smooth[0, :, 0] == 128).all()
    assert (smooth[0, :, 1] == 255).all()


def test_four_views_see_four_sides() -> None:
    box = trimesh.creation.box((0.8, 0.8, 0.8))
    # Left-handed pairs would swap columns 1 and 3: azimuth 0, 90, 180, 270 look at +x, +y, -x, -y.
    colors = (box.vertices + 0.5) @ np.array([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0]])
    middle = shade(box.vertices, box.faces, colors, orbit(4, elevation_deg=0), 9, 9, ambient=1)[:, 4, 4]
    # x = +0.4 has red 0.45, x = -0.4 has 0.05; in the middle of a side the other channel is 0.25.
    expected = np.array([[0.45, 0.25], [0.25, 0.45], [0.05, 0.25], [0.25, 0.05]]) * 255
    assert middle[:, :2] == pytest.approx(expected, abs=1)
