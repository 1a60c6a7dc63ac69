"""The renderer against closed forms: a slab, a sphere, hand-made rays; and each backend against the reference."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dream3d.cameras import Cameras, orbit
from dream3d.field.background import FixedBackground, NetworkBackground, build_background, spherical_harmonics
from dream3d.kernels.composite import accumulate_along_rays, transmittance_from_density, weights_from_density
from dream3d.kernels.march import intersect_cube, march
from dream3d.kernels.samples import Samples, positions_of
from dream3d.recipe.scene import BackgroundRecipe, RenderRecipe
from dream3d.render.occupancy import OccupancyGrid
from dream3d.render.renderer import Light, Renderer, Rendering

FINE = RenderRecipe(samples_per_diagonal=4096, early_stop_transmittance=0.0)


class BallField:
    """Constant density inside a ball, one colour; the chord length gives every answer in closed form."""

    def __init__(self, radius: float, density: float) -> None:
        self.radius, self.value = radius, density

    def density(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.where(positions.norm(dim=-1) < self.radius, self.value, 0.0)

    def __call__(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.density(positions), torch.tensor([1.0, 0.5, 0.0]).expand(len(positions), 3)

    def normals(self, positions: torch.Tensor, *, differentiable: bool = False) -> torch.Tensor:
        return torch.nn.functional.normalize(positions, dim=-1)


class SlabField(BallField):
    """Constant density for |x| < half the thickness."""

    def density(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.where(positions[:, 0].abs() < self.radius, self.value, 0.0)


def samples_of(ray_index: list[int], lengths: list[float]) -> Samples:
    return Samples(torch.tensor(ray_index), torch.zeros(len(lengths)), torch.tensor(lengths))


def test_transmittance_by_hand() -> None:
    # Ray 0: optical depths ln 2, ln 2, ln 4; ray 3: ln 10. Light is halved, halved, quartered.
    density = torch.tensor([math.log(2), math.log(2) / 2, math.log(4), math.log(10)])
    samples = samples_of([0, 0, 0, 3], [1.0, 2.0, 1.0, 1.0])
    torch.testing.assert_close(transmittance_from_density(density, samples), torch.tensor([1, 0.5, 0.25, 1]))
    weights = weights_from_density(density, samples)
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.25, 0.1875, 0.9]))
    opacity = accumulate_along_rays(weights, None, samples.ray_index, 4)
    torch.testing.assert_close(opacity[:, 0], torch.tensor([0.9375, 0, 0, 0.9]))


def test_weighted_values_by_hand() -> None:
    values = torch.tensor([[2.0, 0.0], [4.0, 8.0], [1.0, 1.0]])
    total = accumulate_along_rays(torch.tensor([0.5, 0.25, 1.0]), values, torch.tensor([0, 0, 2]), 3)
    assert total.tolist() == [[2.0, 2.0], [0.0, 0.0], [1.0, 1.0]]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_weights_are_a_distribution_per_ray(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, 6, (count,), generator=generator).sort().values
    density = torch.rand(count, generator=generator) * 50
    samples = Samples(index, torch.zeros(count), torch.rand(count, generator=generator))
    weights = weights_from_density(density, samples)
    assert bool((weights >= 0).all())
    opacity = accumulate_along_rays(weights, None, index, 6)[:, 0]
    optical = torch.zeros(6).index_add(0, index, density * samples.length)
    torch.testing.assert_close(opacity, -torch.expm1(-optical), atol=1e-5, rtol=1e-5)


def test_weight_gradients_against_finite_differences() -> None:
    samples = Samples(
        torch.tensor([0, 0, 0, 1, 4]), torch.zeros(5, dtype=torch.float64), torch.rand(5, dtype=torch.float64) + 0.1
    )
    density = torch.rand(5, dtype=torch.float64).requires_grad_()
    torch.autograd.gradcheck(lambda d: weights_from_density(d, samples), density)


def test_an_empty_batch_of_samples_is_fine() -> None:
    empty = samples_of([], [])
    assert transmittance_from_density(torch.zeros(0), empty).shape == (0,)


def test_cube_intersections_by_hand() -> None:
    rays_o = torch.tensor([[3.0, 0, 0], [0.0, 0, 0], [3.0, 2, 0], [3.0, 0.5, 0.5]])
    rays_d = torch.tensor([[-1.0, 0, 0], [0.0, 0, 1], [-1.0, 0, 0], [1.0, 0, 0]])
    near, far = intersect_cube(rays_o, rays_d)
    assert [float(near[0]), float(far[0])] == [2, 4]
    assert [float(near[1]), float(far[1])] == [0, 1]  # starts inside
    assert far[2] < near[2]  # passes beside
    assert far[3] < near[3]  # looks away


@settings(deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_marched_lengths_add_up_to_the_way_through_the_cube(seed: int, jitter: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    rays_o = torch.nn.functional.normalize(torch.randn(8, 3, generator=generator), dim=-1) * 3
    rays_d = torch.nn.functional.normalize(torch.rand(8, 3, generator=generator) - 0.5 - rays_o, dim=-1)
    grid = OccupancyGrid(RenderRecipe())
    samples = march(rays_o, rays_d, grid, 0.05, generator if jitter else None)
    near, far = intersect_cube(rays_o, rays_d)
    way = torch.zeros(8).index_add(0, samples.ray_index, samples.length)
    torch.testing.assert_close(way, (far - near).clamp_min(0), atol=1e-3, rtol=1e-4)
    assert bool((positions_of(samples, rays_o, rays_d).abs() <= 1 + 1e-5).all())
    assert bool((samples.ray_index.diff() >= 0).all())
    same_ray = samples.ray_index.diff() == 0
    assert bool((samples.distance.diff()[same_ray] > 0).all())


def test_rays_that_miss_give_no_samples() -> None:
    grid = OccupancyGrid(RenderRecipe())
    samples = march(torch.tensor([[5.0, 5, 5]]), torch.tensor([[1.0, 0, 0]]), grid, 0.1)
    assert samples.ray_index.numel() == 0


def test_stratified_samples_differ_and_cover_the_interval() -> None:
    rays_o, rays_d = torch.tensor([[2.0, 0, 0]]), torch.tensor([[-1.0, 0, 0]])
    grid = OccupancyGrid(RenderRecipe())
    generator = torch.Generator().manual_seed(0)
    first = torch.stack([march(rays_o, rays_d, grid, 0.5, generator).distance[0] for _ in range(200)])
    assert 1.0 <= float(first.min()) < 1.02  # the first interval is [1, 1.5]
    assert 1.48 < float(first.max()) <= 1.5
    assert float(first.mean()) == pytest.approx(1.25, abs=0.03)


def render(field: BallField, cameras: Cameras, size: int, recipe: RenderRecipe = FINE) -> Rendering:
    background = FixedBackground((0.0, 0.0, 1.0))
    return Renderer(recipe).evaluate(field, background, cameras, size, size)


@pytest.mark.parametrize("density", [0.5, 2.0, 10.0])
def test_constant_slab_transmittance(density: float) -> None:
    # Orthogonal view of a slab 0.5 thick: pixel by pixel the way is 0.5 / cos of the angle to the axis.
    cameras = orbit(1, elevation_deg=0, fovy_deg=20, distance=3.0)
    rendering = render(SlabField(0.25, density), cameras, 9)
    _, rays_d = cameras.rays(9, 9)
    expected = torch.exp(-density * 0.5 / rays_d[..., 0].abs())
    assert float((1 - rendering.opacity[..., 0] - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("density", [0.5, 2.0, 8.0])
def test_analytic_sphere_transmittance(density: float) -> None:
    cameras = orbit(3, elevation_deg=25, fovy_deg=40)
    rendering = render(BallField(0.6, density), cameras, 16)
    rays_o, rays_d = cameras.rays(16, 16)
    closest = (rays_o - (rays_o * rays_d).sum(-1, keepdim=True) * rays_d).norm(dim=-1)
    chord = 2 * (0.6**2 - closest**2).clamp_min(0).sqrt()
    error = (1 - rendering.opacity[..., 0] - torch.exp(-density * chord)).abs()
    assert float(error.max()) < 1e-3


def test_colour_is_composited_over_the_background() -> None:
    rendering = render(BallField(0.6, 1e3), orbit(1, elevation_deg=0), 8)
    assert rendering.color[0, 4, 4].tolist() == pytest.approx([1.0, 0.5, 0.0], abs=1e-4)
    assert rendering.color[0, 0, 0].tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-4)


def test_depth_is_the_distance_along_the_ray() -> None:
    rendering = render(BallField(0.6, 1e4), orbit(1, elevation_deg=10, distance=3.0), 9)
    assert rendering.depth is not None
    assert float(rendering.depth[0, 4, 4]) == pytest.approx(2.4, abs=2e-3)
    assert float(rendering.depth[0, 0, 0]) == 0.0


def test_early_stop_changes_opacity_by_less_than_its_threshold() -> None:
    cameras = orbit(2)
    field = BallField(0.6, 30.0)
    full = render(field, cameras, 12)
    stopped = render(field, cameras, 12, RenderRecipe(samples_per_diagonal=4096, early_stop_transmittance=1e-3))
    assert float((full.opacity - stopped.opacity).abs().max()) < 1.1e-3


def test_normals_face_out_of_a_ball() -> None:
    renderer = Renderer(FINE)
    cameras = orbit(1, elevation_deg=0)
    rendering = renderer.render(BallField(0.6, 1e4), FixedBackground((0.0, 0.0, 0.0)), cameras, 9, 9, with_normals=True)
    assert rendering.normals is not None
    assert rendering.normals[0, 4, 4].tolist() == pytest.approx([1, 0, 0], abs=1e-2)


def test_shading_by_hand() -> None:
    # A light at the camera: n . l = 1 in the middle, so colour = albedo * (ambient + diffuse).
    cameras = orbit(1, elevation_deg=0)
    renderer, ball = Renderer(FINE), BallField(0.6, 1e4)
    black = FixedBackground((0.0, 0.0, 0.0))
    light = Light(cameras.c2w[:, :3, 3], ambient=0.25, diffuse=0.5)
    shaded = renderer.render(ball, black, cameras, 9, 9, light=light).color[0, 4, 4]
    assert shaded.tolist() == pytest.approx([0.75, 0.375, 0.0], abs=2e-3)
    bare = Light(cameras.c2w[:, :3, 3], ambient=0.25, diffuse=0.5, textureless=True)
    textureless = renderer.render(ball, black, cameras, 9, 9, light=bare).color[0, 4, 4]
    assert textureless.tolist() == pytest.approx([0.75, 0.75, 0.75], abs=2e-3)


def test_orientation_loss_is_zero_for_an_opaque_ball_and_positive_for_its_inside_out() -> None:
    class InsideOut(BallField):
        def normals(self, positions: torch.Tensor, *, differentiable: bool = False) -> torch.Tensor:
            return -super().normals(positions)

    def orientation(field: BallField) -> float:
        rendering = Renderer(FINE).render(
            field, FixedBackground((0.0, 0.0, 0.0)), orbit(1), 9, 9, differentiable_normals=True
        )
        assert rendering.orientation is not None
        return float(rendering.orientation)

    assert orientation(BallField(0.6, 1e4)) == pytest.approx(0, abs=1e-6)
    assert orientation(InsideOut(0.6, 1e4)) > 0.1


def test_occupancy_prunes_empty_space_and_keeps_the_object() -> None:
    grid = OccupancyGrid(RenderRecipe(occupancy_resolution=16))
    grid.update(BallField(0.5, 100.0).density, 0, 0.01, torch.Generator().manual_seed(0))
    assert bool(grid.contains(torch.tensor([[0.0, 0.0, 0.0]])))
    assert not bool(grid.contains(torch.tensor([[0.9, 0.9, 0.9]])))
    assert not bool(grid.contains(torch.tensor([[1.5, 0.0, 0.0]])))
    ball_share = 4 / 3 * math.pi * 0.5**3 / 8
    assert float(grid.fraction) == pytest.approx(ball_share, rel=0.3)


def test_occupancy_forgets_what_has_gone() -> None:
    grid = OccupancyGrid(RenderRecipe(occupancy_resolution=8, occupancy_decay=0.5))
    generator = torch.Generator().manual_seed(0)
    grid.update(BallField(0.5, 100.0).density, 0, 0.01, generator)
    for _ in range(12):
        grid.update(BallField(0.0, 0.0).density, 0, 0.01, generator)
    assert float(grid.ema.max()) < 1e-3


def test_occupancy_state_round_trip() -> None:
    grid = OccupancyGrid(RenderRecipe(occupancy_resolution=8))
    grid.update(BallField(0.5, 100.0).density, 0, 0.01, torch.Generator().manual_seed(0))
    other = OccupancyGrid(RenderRecipe(occupancy_resolution=8))
    other.load_state_dict(grid.state_dict())
    assert torch.equal(other.occupied, grid.occupied)
    assert torch.equal(other.ema, grid.ema)


def test_pruned_and_unpruned_renders_agree() -> None:
    field, cameras = BallField(0.5, 20.0), orbit(2)
    recipe = RenderRecipe(samples_per_diagonal=256, occupancy_every=1)
    plain, pruned = Renderer(recipe), Renderer(recipe)
    pruned.update_occupancy(field, 0, torch.Generator().manual_seed(0))
    pruned.update_occupancy(field, 1, torch.Generator().manual_seed(1))
    background = FixedBackground((0.0, 0.0, 0.0))
    first, second = (r.evaluate(field, background, cameras, 24, 24).opacity for r in (plain, pruned))
    assert float(pruned.grid.fraction) < 0.2
    assert float((first - second).abs().mean()) < 0.01  # single border cells may go unvisited


def test_spherical_harmonics_are_orthonormal() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=generator), dim=-1)
    basis = spherical_harmonics(directions)
    gram = basis.t() @ basis / len(directions) * 4 * math.pi
    torch.testing.assert_close(gram, torch.eye(9), atol=0.03, rtol=0)


def test_network_background_randomises_in_training_only() -> None:
    background = NetworkBackground(1.0, torch.Generator().manual_seed(0))
    directions = torch.nn.functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    generator = torch.Generator().manual_seed(2)
    first, second = background(directions, generator), background(directions, generator)
    assert bool((first == first[0]).all())
    assert not torch.equal(first, second)
    learnt = background(directions)
    assert not bool((learnt == learnt[0]).all())
    assert bool(((learnt >= 0) & (learnt <= 1)).all())


def test_background_kinds() -> None:
    generator = torch.Generator().manual_seed(0)
    fixed = build_background(BackgroundRecipe(kind="fixed"), (0.1, 0.2, 0.3), generator)
    torch.testing.assert_close(fixed(torch.zeros(2, 3)), torch.tensor([[0.1, 0.2, 0.3]]).repeat(2, 1))
    assert isinstance(build_background(BackgroundRecipe(), (0.0, 0.0, 0.0), generator), NetworkBackground)
