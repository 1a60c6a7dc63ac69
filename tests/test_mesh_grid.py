"""The density grid and its projection along the rays of cameras."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh_fields import ball
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.mesh.grid import peak_projection, raw_from_density, sample_density_grid
from dream3d.mesh.loops import largest_along


def test_the_grid_is_indexed_xyz_on_corner_points() -> None:
    grid = sample_density_grid(lambda xyz: (xyz * torch.tensor([100.0, 10.0, 1.0])).sum(-1) + 111, 2, chunk=4)
    assert grid.shape == (3, 3, 3)
    assert grid.dtype == np.float32
    assert grid[0, 0, 0] == 0  # -100 - 10 - 1 + 111
    assert grid[2, 1, 0] == 100 + 0 - 1 + 111
    assert grid[1, 2, 2] == 0 + 10 + 1 + 111


@given(chunk=st.integers(1, 300))
@settings(deadline=None, max_examples=10)
def test_chunks_do_not_change_the_grid(chunk: int) -> None:
    def density(xyz: Tensor) -> Tensor:  # sums and products only: exp and sqrt round differently in vector lanes
        return (xyz[:, 0] * 4 + xyz[:, 1]) * 4 + xyz[:, 2]

    assert np.array_equal(sample_density_grid(density, 5, chunk=chunk), sample_density_grid(density, 5))


def test_a_density_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"\(27,\), got \(27, 1\)"):
        sample_density_grid(lambda xyz: xyz[:, :1], 2)


def test_sampling_keeps_no_gradients() -> None:
    scale = torch.ones(1, requires_grad=True)
    seen: list[bool] = []

    def density(xyz: Tensor) -> Tensor:
        result = (xyz * scale).sum(-1)
        seen.append(result.requires_grad)
        return result

    sample_density_grid(density, 2)
    assert seen == [False]


@given(raw=st.floats(-8, 80))
def test_raw_is_the_inverse_of_softplus(raw: float) -> None:
    density = np.array([math.log1p(math.exp(raw))])
    assert raw_from_density(density)[0] == pytest.approx(raw, abs=1e-4)


def test_raw_of_nothing_is_finite_and_below_everything() -> None:
    nothing, little = raw_from_density(np.array([0.0, 0.01], dtype=np.float32))
    assert np.isfinite(nothing)
    assert nothing < little


def test_the_peak_projection_of_one_corner_is_seen_where_the_camera_looks() -> None:
    grid = np.zeros((5, 5, 5), dtype=np.float32)
    grid[2, 2, 2] = 7.0
    peaks = peak_projection(grid, orbit(4, elevation_deg=0), 33, 33)
    assert peaks.shape == (4, 33, 33)
    # The central ray passes the origin; its 8 samples are 2/7 apart, so one is within 1/7 of it: 7 * (1 - 2/7) = 5.
    assert peaks[:, 16, 16] == pytest.approx([5, 5, 5, 5], abs=0.01)
    assert np.all(peaks[:, 0, 0] <= 0)


def test_rays_that_miss_the_cube_see_nothing() -> None:
    peaks = peak_projection(np.ones((3, 3, 3), np.float32), orbit(1, elevation_deg=0, distance=10.0), 9, 9)
    assert peaks[0, 0, 0] == -math.inf
    assert peaks[0, 4, 4] == 1


def test_the_peak_projection_does_not_depend_on_its_batches() -> None:
    grid = sample_density_grid(ball(0.5), 8)
    whole = peak_projection(grid, orbit(2), 10, 10)
    assert np.array_equal(whole, peak_projection(grid, orbit(2), 10, 10, samples=50))


@pytest.mark.parametrize("shape", [(5, 5, 5), (3, 7, 4)])
def test_the_loop_finds_what_torch_does(shape: tuple[int, int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    volume = torch.randn(shape, generator=random)
    rays_o, rays_d = torch.randn(50, 3, generator=random), torch.randn(50, 3, generator=random)
    distance = torch.rand(50, 20, generator=random) * 3
    points = rays_o[:, None] + distance[..., None] * rays_d[:, None]
    # grid_sample names the last axis x and the first z; ours is indexed [x, y, z].
    values = torch.nn.functional.grid_sample(
        volume[None, None], points.flip(-1)[None, None], padding_mode="border", align_corners=True
    )
    found = np.empty(50, np.float32)
    largest_along(volume.numpy(), rays_o.numpy(), rays_d.numpy(), distance.numpy(), found)
    assert found == pytest.approx(values[0, 0, 0].amax(-1).numpy(), abs=1e-5)
