"""One convention: hand-computed poses, the published fixtures, and geometry that must always hold."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dream3d.cameras import CameraRange, camera_distance, look_at_origin, orbit, sample_orthogonal

FIXTURES = json.loads((Path(__file__).parent / "data" / "mvdream_fixtures.json").read_text())
CAMERAS = FIXTURES["cameras"]

elevations = st.floats(-89, 89)
azimuths = st.floats(-720, 720)
distances = st.floats(0.1, 50)


def pose(elevation: float, azimuth: float, distance: float = 1.0) -> torch.Tensor:
    def one(value: float) -> torch.Tensor:
        return torch.tensor([value], dtype=torch.float64)

    return look_at_origin(one(elevation), one(azimuth), one(distance))[0]


@pytest.mark.parametrize(
    "item", CAMERAS["items"], ids=lambda item: f"{item['elevation_deg']}-{item['azimuth_mvdream_deg']}"
)
def test_published_matrices(item: dict[str, Any]) -> None:
    expected = torch.tensor(item["c2w_row_major_16"], dtype=torch.float64).view(4, 4)
    actual = pose(item["elevation_deg"], item["azimuth_threestudio_deg"])
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("azimuth", "position"), [(0, (1, 0, 0)), (90, (0, 1, 0)), (180, (-1, 0, 0)), (270, (0, -1, 0))]
)
def test_azimuth_grows_counter_clockwise_from_the_front(azimuth: float, position: tuple[float, ...]) -> None:
    torch.testing.assert_close(pose(0, azimuth)[:3, 3], torch.tensor(position, dtype=torch.float64), atol=1e-12, rtol=0)


def test_front_camera_sees_plus_y_on_its_right_and_z_up() -> None:
    c2w = pose(0, 0)
    assert c2w[:3, 0].tolist() == pytest.approx([0, 1, 0])  # right
    assert c2w[:3, 1].tolist() == pytest.approx([0, 0, 1])  # up
    assert c2w[:3, 2].tolist() == pytest.approx([1, 0, 0])  # back, towards the camera


@given(elevations, azimuths, distances)
def test_poses_are_rigid_and_look_at_the_origin(elevation: float, azimuth: float, distance: float) -> None:
    c2w = pose(elevation, azimuth, distance)
    rotation, position = c2w[:3, :3], c2w[:3, 3]
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=0)
    assert float(torch.det(rotation)) == pytest.approx(1)
    assert float(position.norm()) == pytest.approx(distance)
    torch.testing.assert_close(rotation[:, 2], position / distance, atol=1e-9, rtol=0)
    assert float(rotation[2, 0]) == pytest.approx(0, abs=1e-12)  # no roll


@given(elevations, azimuths, distances)
def test_conditioning_forgets_distance_but_not_its_input(elevation: float, azimuth: float, distance: float) -> None:
    cameras = orbit(1, elevation_deg=elevation, azimuth_deg=azimuth, distance=distance)
    before = cameras.c2w.clone()
    conditioning = cameras.conditioning().view(4, 4)
    assert torch.equal(cameras.c2w, before)  # the release writes into its caller's tensor
    assert float(conditioning[:3, 3].norm()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(conditioning[:3, :3], before[0, :3, :3])


@pytest.mark.parametrize("item", CAMERAS["relative_radius"], ids=lambda item: str(item["fovy_deg"]))
def test_distance_rule_of_mvdream(item: dict[str, Any]) -> None:
    low, high = item["sds_distance_min_max"]
    fovy = torch.tensor([float(item["fovy_deg"])], dtype=torch.float64)
    assert float(camera_distance(fovy, torch.tensor([0.8]), "tan")) == pytest.approx(low, rel=1e-6)
    assert float(camera_distance(fovy, torch.tensor([1.0]), "tan")) == pytest.approx(high, rel=1e-6)


def test_distance_rule_of_mini_fits_the_unit_sphere() -> None:
    # sin(60 / 2 degrees) = 1/2: the sphere of radius 1 touches the image border from distance 2.
    assert float(camera_distance(torch.tensor([60.0]), torch.tensor([1.0]), "sin")) == pytest.approx(2.0)


def test_central_ray_looks_at_the_origin() -> None:
    cameras = orbit(5, elevation_deg=20)
    rays_o, rays_d = cameras.rays(3, 5)
    torch.testing.assert_close(rays_d[:, 1, 2], -cameras.c2w[:, :3, 2])
    torch.testing.assert_close(rays_o[:, 0, 0], cameras.c2w[:, :3, 3])


def test_rays_by_hand() -> None:
    # 90 degrees vertically: half height 1 at depth 1. 2 x 2 pixels have their centres at +-1/2.
    cameras = orbit(1, elevation_deg=0, fovy_deg=90, distance=2.0)
    _, rays_d = cameras.rays(2, 2)
    # From +x: right is +y, up is +z, forward is -x. The top-left pixel looks at (-1, -1/2, +1/2).
    expected = torch.tensor([-1.0, -0.5, 0.5]) / math.sqrt(1.5)
    torch.testing.assert_close(rays_d[0, 0, 0], expected)
    torch.testing.assert_close(rays_d[0, 1, 1], expected * torch.tensor([1, -1, -1]))


def test_wide_images_have_square_pixels() -> None:
    _, rays_d = orbit(1, elevation_deg=0, fovy_deg=90, distance=2.0).rays(2, 4)
    per_depth = rays_d[0] / -rays_d[0, ..., :1]  # forward is -x
    torch.testing.assert_close(per_depth[0, :, 1], torch.tensor([-1.5, -0.5, 0.5, 1.5]))


@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 2**32))
def test_sampled_views_are_evenly_spaced_and_share_the_rest(objects: int, views: int, seed: int) -> None:
    ranges = CameraRange(elevation_deg=(0, 35), fovy_deg=(25, 50), relative_distance=(0.85, 1.0), distance_rule="sin")
    cameras = sample_orthogonal(ranges, objects, views, torch.Generator().manual_seed(seed))
    position = cameras.c2w[:, :3, 3].view(objects, views, 3)
    azimuth = torch.rad2deg(torch.atan2(position[..., 1], position[..., 0]))
    steps = (azimuth[:, 1:] - azimuth[:, :-1]) % 360
    torch.testing.assert_close(steps, torch.full_like(steps, 360 / views), atol=1e-2, rtol=0)
    distance = position.norm(dim=-1)
    torch.testing.assert_close(distance, distance[:, :1].expand_as(distance))
    fovy = cameras.fovy_deg.view(objects, views)
    assert bool((fovy == fovy[:, :1]).all())
    assert 25 <= float(fovy.min()) <= float(fovy.max()) <= 50
    relative = distance * torch.sin(torch.deg2rad(fovy) / 2)
    assert 0.85 - 1e-4 <= float(relative.min()) <= float(relative.max()) <= 1 + 1e-4
    elevation = torch.rad2deg(torch.asin(position[..., 2] / distance))
    assert -1e-3 <= float(elevation.min()) <= float(elevation.max()) <= 35 + 1e-3


def test_sphere_elevations_cover_the_published_part_only() -> None:
    ranges = CameraRange(elevation_deg=(0, 30), sphere_elevation_probability=1.0)
    cameras = sample_orthogonal(ranges, 2000, 1, torch.Generator().manual_seed(0))
    elevation = torch.rad2deg(torch.asin(cameras.c2w[:, 2, 2]))
    assert float(elevation.min()) >= -1e-3
    assert 19.0 < float(elevation.max()) <= 19.48


def test_same_seed_same_cameras() -> None:
    draws = [sample_orthogonal(CameraRange(), 2, 4, torch.Generator().manual_seed(7)).c2w for _ in range(2)]
    assert torch.equal(draws[0], draws[1])


def test_an_orbit_needs_a_view() -> None:
    with pytest.raises(ValueError, match="at least one view, got 0"):
        orbit(0)
