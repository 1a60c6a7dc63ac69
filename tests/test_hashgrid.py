"""The hash grid: layout by hand, interpolation, gradients, and each path against the reference."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dream3d.kernels.choose import choose
from dream3d.kernels.hash_encode import HashGridSpec, hash_encode, hash_encode_reference, hash_grid_spec
from dream3d.kernels.hash_grid import HASH_GRID, TorchHashGrid
from dream3d.kernels.numba_hash import POINTS_PER_PIECE, NumbaHashGrid
from dream3d.recipe.scene import FieldRecipe

SMALL = hash_grid_spec(levels=3, features=2, log2_entries=9, base_resolution=4, per_level_scale=2.0)
"""4^3 = 64 and 8^3 = 512 points fit in 2^9 rows; 16^3 is hashed into 512."""


def positions_and_table(spec: HashGridSpec, count: int = 50, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(count, 3, dtype=torch.float64, generator=generator)
    return positions, torch.randn(spec.entries, spec.features, dtype=torch.float64, generator=generator)


def test_layout_by_hand() -> None:
    assert [(level.resolution, level.entries, level.offset, level.hashed) for level in SMALL.levels] == [
        (4, 64, 0, False),
        (8, 512, 64, False),
        (16, 512, 576, True),
    ]
    assert (SMALL.entries, SMALL.width) == (1088, 6)


def test_mvdream_grid_reaches_4096() -> None:
    recipe = FieldRecipe()
    spec = hash_grid_spec(16, 2, 19, recipe.base_resolution, recipe.per_level_scale)
    assert spec.levels[0].resolution == 16
    assert spec.levels[-1].resolution == 4096
    assert spec.width == 32
    assert all(level.entries <= 2**19 for level in spec.levels)


def test_interpolation_by_hand() -> None:
    # One dense level of 2^3 points, scale 1: position p sits at p + 1/2, so p = 1/2 is grid point 1 exactly
    # and p = 1/4 lies three quarters of the way from point 0 to point 1.
    spec = hash_grid_spec(levels=1, features=1, log2_entries=10, base_resolution=2, per_level_scale=1.0)
    table = torch.arange(8, dtype=torch.float64)[:, None]  # row = x + 2 y + 4 z
    corner = hash_encode_reference(torch.tensor([[0.5, 0.5, 0.5]], dtype=torch.float64), table, spec)
    assert float(corner) == pytest.approx(1 + 2 + 4)
    between = hash_encode_reference(torch.tensor([[0.25, 0.5, 0.5]], dtype=torch.float64), table, spec)
    assert float(between) == pytest.approx(0.75 + 2 + 4)


def test_constant_table_encodes_to_the_constant() -> None:
    positions, table = positions_and_table(SMALL)
    for encode in (hash_encode, hash_encode_reference):
        torch.testing.assert_close(
            encode(positions, torch.ones_like(table) * 3, SMALL), torch.full((50, 6), 3.0, dtype=torch.float64)
        )


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(4, 12), st.integers(2, 9), st.integers(0, 10**6))
def test_fast_path_equals_the_reference(levels: int, features: int, log2_entries: int, base: int, seed: int) -> None:
    spec = hash_grid_spec(levels, features, log2_entries, base, 1.6)
    positions, table = positions_and_table(spec, 20, seed)
    upstream = torch.randn(20, spec.width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    results = []
    for encode in (hash_encode, hash_encode_reference):
        leaf = table.clone().requires_grad_()
        encoded = encode(positions, leaf, spec)
        (gradient,) = torch.autograd.grad(encoded, leaf, upstream)
        results.append((encoded, gradient))
    torch.testing.assert_close(results[0], results[1])


def test_no_positions_encode_to_nothing() -> None:
    table = torch.rand(SMALL.entries, 2)
    for encode in (hash_encode, hash_encode_reference):
        assert encode(torch.zeros(0, 3), table, SMALL).shape == (0, 2 * len(SMALL.levels))


def test_table_gradient_against_finite_differences() -> None:
    spec = hash_grid_spec(2, 2, 6, 3, 1.7)
    positions, table = positions_and_table(spec, 6)
    for encode in (hash_encode, hash_encode_reference):
        torch.autograd.gradcheck(lambda t, f=encode: f(positions, t, spec), table.requires_grad_())


def test_position_gradients_against_finite_differences() -> None:
    spec = hash_grid_spec(2, 2, 6, 3, 1.7)
    positions, table = positions_and_table(spec, 6)

    def encode(points: torch.Tensor) -> torch.Tensor:
        return hash_encode(points, table, spec)

    torch.autograd.gradcheck(encode, positions.requires_grad_())
    torch.autograd.gradgradcheck(encode, positions.requires_grad_())


def test_the_encoding_is_continuous_across_cells() -> None:
    positions = torch.linspace(0.1, 0.9, 4001, dtype=torch.float64)[:, None].repeat(1, 3)
    _, table = positions_and_table(SMALL)
    jumps = hash_encode(positions, table, SMALL).diff(dim=0).abs().amax()
    assert float(jumps) < 0.05  # step 2e-4, slope up to 16 cells * 3 axes * |feature|: no cell border shows


def test_modules_start_small_and_follow_the_generator() -> None:
    first, second = (TorchHashGrid(SMALL, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.table, second.table)
    assert 0 < float(first.table.detach().abs().max()) <= 1e-4


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(4, 12), st.integers(2, 9), st.integers(0, 10**6), st.sampled_from((1, 2)))
def test_compiled_grid_equals_the_reference(levels: int, log2_entries: int, base: int, seed: int, threads: int) -> None:
    spec = hash_grid_spec(levels, 2, log2_entries, base, 1.6)
    count = 1 if seed % 3 == 0 else 2 * POINTS_PER_PIECE + 1
    positions = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
    positions[0] = seed % 2  # a corner of the cube
    upstream = torch.randn(count, spec.width, generator=torch.Generator().manual_seed(seed))
    results = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for build in (NumbaHashGrid, TorchHashGrid):
            grid = build(spec, torch.Generator().manual_seed(seed))
            encoded = grid(positions)
            results.append((encoded, *torch.autograd.grad(encoded, [grid.table], upstream)))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-9)


def test_compiled_grid_leaves_to_torch_what_it_cannot_do() -> None:
    grid = NumbaHashGrid(SMALL, torch.Generator().manual_seed(0))
    positions = torch.rand(5, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(grid(positions).sum(), positions)
    assert bool(slope.any())
    torch.testing.assert_close(grid.double()(positions.double()), grid.float()(positions).double())
    single = hash_grid_spec(2, 1, 4, 2, 2.0)
    assert NumbaHashGrid(single, torch.Generator())(positions.detach()).shape == (5, 2)


def test_no_positions_encode_to_nothing_in_compiled_loops() -> None:
    grid = NumbaHashGrid(SMALL, torch.Generator().manual_seed(0))
    encoded = grid(torch.zeros(0, 3))
    assert encoded.shape == (0, SMALL.width)
    encoded.sum().backward()
    assert grid.table.grad is not None
    assert not grid.table.grad.any()


def test_on_a_cpu_the_compiled_grid_is_chosen_and_the_others_say_why_not() -> None:
    choice = choose(HASH_GRID, "cpu")
    assert choice.name == "numba"
    assert "CUDA" in choice.reason


def test_without_numba_torch_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dream3d.kernels.numba_hash", None)
    choice = choose.__wrapped__(HASH_GRID, "cpu")
    assert choice.name == "torch"
    assert "numba is not usable here" in choice.reason
