"""The compiled march against torch's: the very same samples."""

from __future__ import annotations

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dream3d.kernels.choose import choose
from dream3d.kernels.march import VISIBLE_SAMPLES, intersect_cube, march
from dream3d.kernels.numba_march import RAYS_PER_PIECE
from dream3d.kernels.numba_march import march as compiled_march
from dream3d.kernels.samples import Marching, Samples
from dream3d.recipe.scene import RenderRecipe
from dream3d.render.occupancy import OccupancyGrid


def scene(seed: int, rays: int, distance: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, OccupancyGrid]:
    """Rays from a sphere towards points of the cube and somewhat beyond, and a third of the cells occupied."""
    generator = torch.Generator().manual_seed(seed)
    rays_o = distance * torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator), dim=-1)
    rays_d = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator) * 0.6 - rays_o, dim=-1)
    grid = OccupancyGrid(RenderRecipe(occupancy_resolution=8))
    grid.occupied = torch.rand(512, generator=generator) < 0.3
    return rays_o, rays_d, grid


def equal(found: Samples, wanted: Samples) -> bool:
    return all(torch.equal(getattr(found, name), getattr(wanted, name)) for name in ("ray_index", "distance", "length"))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    rays=st.sampled_from((1, 7, 2 * RAYS_PER_PIECE + 3)),
    distance=st.sampled_from((0.1, 1.0, 3.0, 1e4)),
    step_size=st.sampled_from((0.02, 0.3, 5.0)),
    jitter=st.booleans(),
    threads=st.sampled_from((1, 2)),
)
def test_the_same_samples_to_the_bit(
    seed: int, rays: int, distance: float, step_size: float, jitter: bool, threads: int
) -> None:
    rays_o, rays_d, grid = scene(seed, rays, distance)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found, wanted = (
            one(rays_o, rays_d, grid, step_size, torch.Generator().manual_seed(seed) if jitter else None)
            for one in (compiled_march, march)
        )
    finally:
        torch.set_num_threads(before)
    assert equal(found, wanted)


def test_no_rays_and_rays_that_miss_have_no_samples() -> None:
    _, _, grid = scene(0, 1)
    aside = torch.tensor([[0.0, 5.0, 0.0]])
    for rays_o, rays_d in ((torch.zeros(0, 3), torch.zeros(0, 3)), (aside, torch.tensor([[1.0, 0.0, 0.0]]))):
        samples = compiled_march(rays_o, rays_d, grid, 0.1)
        assert (len(samples.ray_index), len(samples.distance), len(samples.length)) == (0, 0, 0)


def test_a_full_cube_is_sampled_along_the_whole_way() -> None:
    rays_o, rays_d, grid = scene(1, 20)
    grid.occupied[:] = True
    samples = compiled_march(rays_o, rays_d, grid, 0.1)
    near, far = intersect_cube(rays_o, rays_d)
    way = torch.zeros(20).index_add(0, samples.ray_index, samples.length)
    torch.testing.assert_close(way, (far - near).clamp_min(0), rtol=0, atol=1e-5)


def test_the_chosen_one_keeps_what_torch_keeps() -> None:
    rays_o, rays_d, grid = scene(2, 50)
    marching = Marching(0.05, early_stop_transmittance=0.01, alpha_threshold=0.01)
    chosen = choose(VISIBLE_SAMPLES, "cpu")
    assert chosen.name == "numba"
    found, wanted = (
        one(lambda points: 20 * (points[:, 0] > 0), grid, rays_o, rays_d, marching, torch.Generator().manual_seed(3))
        for one in (chosen.implementation, choose(VISIBLE_SAMPLES, "cpu", "torch").implementation)
    )
    assert len(found.length) > 0
    assert equal(found, wanted)


def test_a_march_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("dream3d.kernels.numba_march")
    monkeypatch.setattr(module, "march", lambda *args: march(args[0] + 0.01, *args[1:]))
    choice = choose.__wrapped__(VISIBLE_SAMPLES, "cpu")
    assert (choice.name, choice.reason.endswith("its samples are not those of torch")) == ("torch", True)
