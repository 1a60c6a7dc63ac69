"""Renders of nothing, of too much, and of haze: every path gives images, and memory stays within the budget."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_render import BallField

from dream3d.cameras import Cameras, orbit, sample_orthogonal
from dream3d.field.background import FixedBackground, NetworkBackground
from dream3d.field.radiance import RadianceField
from dream3d.kernels import hash_encode, nerfacc
from dream3d.kernels.march import RAYS_PER_CHUNK, visible_samples
from dream3d.kernels.samples import Marching, Samples
from dream3d.recipe.presets import preset
from dream3d.recipe.scene import FieldRecipe, RenderRecipe, ShadingRecipe
from dream3d.render import renderer as renderer_module
from dream3d.render.light import sample_light
from dream3d.render.occupancy import OccupancyGrid
from dream3d.render.renderer import Light, Renderer, Rendering

SMALL = FieldRecipe(levels=2, log2_entries=10, base_resolution=4, per_level_scale=2.0, hidden_width=8)
COARSE = RenderRecipe(samples_per_diagonal=32)
BLACK = FixedBackground((0.0, 0.0, 0.0))


def field(recipe: FieldRecipe = SMALL) -> RadianceField:
    return RadianceField(recipe, torch.Generator().manual_seed(0))


def light_at(cameras: Cameras) -> Light:
    return Light(cameras.c2w[:, :3, 3], ambient=0.3, diffuse=0.7)


@pytest.mark.parametrize("size", [8, 192, 256])
def test_images_of_nothing_are_the_background(size: int) -> None:
    renderer, cameras = Renderer(COARSE), orbit(1)
    renderer.grid.occupied[:] = False
    rendering = renderer.evaluate(field(), BLACK, cameras, size, size)
    assert not bool(rendering.color.any())
    assert not bool(rendering.opacity.any())


@pytest.mark.parametrize("shaded", [False, True])
@pytest.mark.parametrize("kind", ["fixed", "network"])
def test_a_training_render_of_nothing_has_gradients_of_zero(kind: str, shaded: bool) -> None:
    renderer, cameras, one = Renderer(COARSE), orbit(1), field()
    renderer.grid.occupied[:] = False
    generator = torch.Generator().manual_seed(0)
    background = BLACK if kind == "fixed" else NetworkBackground(0.0, generator)
    light = light_at(cameras) if shaded else None
    rendering = renderer.render(
        one, background, cameras, 8, 8, generator=generator, light=light, differentiable_normals=shaded
    )
    orientation = 0 if rendering.orientation is None else rendering.orientation
    (rendering.color.sum() + rendering.opacity.sum() + orientation).backward()
    assert all(p.grad is None or not bool(p.grad.any()) for p in one.parameters())


def test_a_piece_of_rays_without_a_sample_is_fine() -> None:
    """The last rays of an image, above the number that goes through at once, see nothing."""
    renderer, cells = Renderer(COARSE), COARSE.occupancy_resolution
    renderer.grid.occupied = torch.arange(cells**3) % cells >= 3 * cells // 4  # the upper quarter
    opacity = renderer.evaluate(field(), BLACK, orbit(1, elevation_deg=0), 264, 264).opacity[0]
    assert RAYS_PER_CHUNK < 264**2
    assert not bool(opacity[RAYS_PER_CHUNK // 264 :].any())
    assert float(opacity.max()) > 0.1


def test_no_call_counts_beyond_int32(monkeypatch: pytest.MonkeyPatch) -> None:
    """17 million samples of MVDream's grid, as shapes alone: ``embedding_bag`` counts rows in int32."""
    calls: list[int] = []
    real = torch.nn.functional.embedding_bag

    def count(rows: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(rows.numel())
        return real(rows, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "embedding_bag", count)
    shape = (16, 17_000_000, 8)
    rows = torch.empty(shape, dtype=torch.int32, device="meta")
    table = torch.empty(1000, 2, device="meta", requires_grad=True)
    encoded = hash_encode.interpolate(table, rows, torch.empty(shape, device="meta"))
    assert encoded.shape == (17_000_000, 32)
    assert sum(calls) == math.prod(shape)
    assert max(calls) < 2**31


def test_pieces_of_the_interpolation_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    results = []
    for most in (2**23, 7):
        monkeypatch.setattr(hash_encode, "BAGS_AT_ONCE", most)
        one = field()
        density, color = one(positions)
        (density.sum() + color.square().sum()).backward()
        results.append([density, color, *(p.grad for p in one.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True) if a is not None and b is not None)


def rendered(one: RadianceField, *, shaded: bool, recipe: RenderRecipe = COARSE) -> tuple[Rendering, Renderer]:
    renderer, cameras = Renderer(recipe), orbit(2)
    light = light_at(cameras) if shaded else None
    generator = torch.Generator().manual_seed(0)
    rendering = renderer.render(
        one, BLACK, cameras, 12, 12, generator=generator, light=light, differentiable_normals=shaded
    )
    return rendering, renderer


@pytest.mark.parametrize("shaded", [False, True])
def test_many_samples_in_pieces_give_the_same_images_and_gradients(
    monkeypatch: pytest.MonkeyPatch, shaded: bool
) -> None:
    results, encoded = [], list[int]()
    for most in (2**19, 400):
        monkeypatch.setattr(renderer_module, "SAMPLES_AT_ONCE", most)
        one = field()
        one.encoding.register_forward_hook(lambda _, inputs, __: encoded.append(len(inputs[0])))
        encoded.clear()
        rendering, _ = rendered(one, shaded=shaded)
        loss = rendering.color.square().sum() + (rendering.orientation if rendering.orientation is not None else 0)
        loss.backward()
        results.append([rendering.color.detach(), *(p.grad for p in one.parameters())])
    assert max(encoded) <= 400
    for whole, pieces in zip(*results, strict=True):
        torch.testing.assert_close(whole, pieces, rtol=1e-4, atol=1e-5)


def test_too_many_samples_double_the_step_until_they_fit() -> None:
    plain, renderer = rendered(field(), shaded=False)
    assert renderer.coarsened == 0
    budget = replace(COARSE, sample_budget=900)
    limited, renderer = rendered(field(), shaded=False, recipe=budget)
    assert renderer.coarsened == 1
    again, _ = rendered(field(), shaded=False, recipe=budget)
    assert torch.equal(limited.color, again.color)
    assert float((plain.opacity - limited.opacity).detach().abs().mean()) < 0.05


def test_haze_below_the_alpha_threshold_is_dropped_and_the_grid_caps_it() -> None:
    rays_o, rays_d = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[-1.0, 0.0, 0.0]])
    grid = OccupancyGrid(RenderRecipe())
    haze = BallField(0.5, 0.05)  # alpha 0.005 a step

    def count(threshold: float, mean: float) -> int:
        grid.ema[:] = mean
        marching = Marching(0.1, 1e-4, threshold)
        return len(visible_samples(haze.density, grid, rays_o, rays_d, marching, None).length)

    assert count(0.0, 1.0) == 20  # also what is empty
    assert count(0.01, 1.0) == 0
    assert count(0.01, 0.004) == 10  # a thin field: its mean is the better border
    assert preset("mvdream").render.alpha_threshold == 0.01
    assert preset("mini").render.alpha_threshold == 0.0


def test_views_of_an_object_share_the_light_as_the_official_code_has_it() -> None:
    shading = ShadingRecipe(from_step=0, albedo_probability=0.0)
    cameras = sample_orthogonal(preset("mvdream").cameras, 3, 4, torch.Generator().manual_seed(0))

    def distances(kind: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        light = sample_light(replace(shading, light_per=kind), 0, cameras, 4, generator)
        assert light is not None
        return light.position.norm(dim=-1).view(3, 4)

    assert float(distances("object").std(1).max()) < 1e-5
    assert float(distances("object").std(0).min()) > 1e-3
    assert float(distances("view").std(1).min()) > 1e-3
    shaded = preset("mvdream-shading").shading
    assert shaded is not None
    assert shaded.light_per == "object"


class Estimator:
    """Stands in for nerfacc's, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.binaries = self.occs = torch.zeros(0)

    def sampling(self, rays_o: torch.Tensor, rays_d: torch.Tensor, **options: Any) -> tuple[torch.Tensor, ...]:
        self.asked.append(options)
        start = options["t_min"]
        return torch.zeros(1, dtype=torch.long), start[:1], start[:1] + options["render_step_size"]


def test_nerfacc_is_jittered_by_our_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = Estimator()
    monkeypatch.setattr(nerfacc, "_estimator", lambda resolution, device: estimator)
    grid, rays = OccupancyGrid(RenderRecipe()), torch.ones(5, 3)
    before = torch.random.get_rng_state()

    def sample(seed: int) -> Samples:
        generator = torch.Generator().manual_seed(seed)
        return nerfacc.visible_samples(lambda p: p[:, 0], grid, rays, rays, Marching(0.5, 1e-4, 0.01), generator)

    first, second, other = sample(3), sample(3), sample(4)
    assert torch.equal(first.distance, second.distance)
    assert not torch.equal(first.distance, other.distance)
    assert torch.equal(torch.random.get_rng_state(), before)
    shift = estimator.asked[0]["t_min"]
    assert bool(((shift >= 0) & (shift < 0.5)).all())
    assert (estimator.asked[0]["stratified"], estimator.asked[0]["alpha_thre"]) == (False, 0.01)
    assert estimator.occs is grid.ema
