"""The hash grid: layout by hand, interpolation, gradients, and each path against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dream3d.kernels.choose import choose
from dream3d.kernels.hash_encode import HashGridSpec, hash_encode, hash_encode_reference, hash_grid_spec
from dream3d.kernels.hash_grid import HASH_GRID, TorchHashGrid
from dream3d.recipe.generation import FieldRecipe

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


def test_on_a_cpu_the_reference_is_chosen_and_says_why() -> None:
    choice = choose(HASH_GRID, "cpu")
    assert choice.name == "torch"
    assert "CUDA" in choice.reason
