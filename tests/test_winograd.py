"""Winograd's convolution, compared with torch's own, in values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training_network import random_unet
from tiny_prior import UNET
from torch import Tensor, nn

from dream3d.prior.unet import call_unet
from dream3d.prior.winograd import (
    Kernels,
    Tiles,
    accelerate_convolutions,
    convolutions_pay,
    convolve3,
    transformed,
    transforms,
)


def both(layer: nn.Conv2d, fast: nn.Module, x: Tensor) -> list[tuple[Tensor | None, ...]]:
    """Results and gradients of a layer and of what stands for it."""
    results: list[tuple[Tensor | None, ...]] = []
    for network in (layer, fast):
        own = x.clone().requires_grad_()
        y = network(own)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        (y * weight).sum().backward()
        results.append((y.detach(), own.grad, *(p.grad for p in network.parameters())))
    return results


def twin(layer: nn.Conv2d, make: nn.Conv2d) -> nn.Module:
    make.load_state_dict(layer.state_dict())
    fast = nn.Sequential(make)
    accelerate_convolutions(fast)
    return fast


@pytest.mark.parametrize("side", [4, 2])
def test_a_tile_by_hand(side: int) -> None:
    """A kernel that is 1 in its middle gives the data, one that is 1 all over the sums of nine."""
    image = torch.arange(float(side * side)).view(1, 1, side, side)
    middle = torch.zeros(1, 1, 3, 3)
    middle[0, 0, 1, 1] = 1
    torch.testing.assert_close(convolve3(image, transformed(middle, side), None, side), image, atol=1e-5, rtol=1e-5)
    sums = convolve3(torch.ones(1, 1, side, side), transformed(torch.ones(1, 1, 3, 3), side), torch.tensor([0.5]), side)
    row = [2.0, *[3.0] * (side - 2), 2.0]
    expected = torch.tensor(row)[:, None] * torch.tensor(row) + 0.5
    torch.testing.assert_close(sums[0, 0], expected, atol=1e-5, rtol=1e-5)


def test_tiles_share_two_places_with_the_next() -> None:
    x = torch.arange(64.0).view(1, 8, 8, 1)
    tiles = Tiles.apply(x, 4).view(6, 6, 2, 2)  # type: ignore[no-untyped-call]
    assert torch.equal(tiles[4:, :, 0], tiles[:2, :, 1])
    assert torch.equal(tiles[:, 4:, :, 0], tiles[:, :2, :, 1])
    assert torch.equal(tiles[1:5, 1:5, 0, 0], x[0, :4, :4, 0])
    assert tiles[0, :, 0].abs().sum() == 0  # the padding


def test_each_place_gets_as_many_gradients_as_tiles_have_it() -> None:
    x = torch.zeros(1, 8, 8, 1, requires_grad=True)
    Tiles.apply(x, 4).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    row = torch.tensor([1.0, 1, 1, 2, 2, 1, 1, 1])
    assert torch.equal(x.grad[0, :, :, 0], row[:, None] * row)


@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([4, 2]),
)
@settings(max_examples=25, deadline=None)
def test_any_size_agrees_with_torch(n: int, c: int, out: int, rows: int, columns: int, side: int) -> None:
    generator = torch.Generator().manual_seed(rows * 7 + columns)
    x = torch.randn(n, c, rows * side, columns * side, generator=generator)
    weight, bias = torch.randn(out, c, 3, 3, generator=generator), torch.randn(out, generator=generator)
    expected = F.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(convolve3(x, transformed(weight, side), bias, side), expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("size", [(8, 8), (4, 4), (2, 6), (16, 4)])
@pytest.mark.parametrize("kernel", [3, 1])
def test_layers_agree_in_values_and_gradients(size: tuple[int, int], kernel: int) -> None:
    torch.manual_seed(0)
    layer, make = (nn.Conv2d(6, 5, kernel, padding=kernel // 2) for _ in range(2))
    plain, fast = both(layer, twin(layer, make), torch.randn(3, 6, *size))
    for found, expected in zip(fast, plain, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (lambda: nn.Conv2d(4, 4, 3, padding=1), (5, 5)),
        (lambda: nn.Conv2d(4, 4, 3, padding=1, stride=2), (8, 8)),
        (lambda: nn.Conv2d(4, 4, 3), (8, 8)),
    ],
    ids=["odd", "stride 2", "no padding"],
)
def test_what_does_not_fit_is_left_to_torch(layer: Callable[[], nn.Conv2d], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    one, other = layer(), layer()
    plain, fast = both(one, twin(one, other), torch.randn(2, 4, *size))
    for found, expected in zip(fast, plain, strict=True):
        assert found is not None
        assert expected is not None
        assert torch.equal(found, expected) or size == (5, 5)  # kept in another order of memory
        torch.testing.assert_close(found, expected)


def test_a_network_agrees_with_the_plain_one() -> None:
    plain, fast = random_unet(UNET), random_unet(UNET)
    accelerate_convolutions(fast)
    assert all(
        torch.equal(one, two) for one, two in zip(plain.state_dict().values(), fast.state_dict().values(), strict=True)
    )
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(4, UNET["in_channels"], 8, 8, generator=generator)
    text = torch.randn(4, 5, UNET["cross_attention_dim"], generator=generator)
    gradients = []
    for network in (plain, fast):
        answer = call_unet(network, latents, torch.full((4,), 500), text, None, 1, None)
        answer.square().sum().backward()
        gradients.append((answer.detach(), *(p.grad for p in network.parameters() if p.grad is not None)))
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_transforms_are_exact_in_halves() -> None:
    data, kernel, result = transforms(2)
    assert data.shape == (16, 16)
    assert kernel.shape == (16, 9)
    assert result.shape == (4, 16)
    # One place by hand: a tile of ones under a kernel of ones gives nine everywhere.
    ones = result @ ((data @ torch.ones(16)) * (kernel @ torch.ones(9)))
    assert torch.equal(ones, torch.full((4,), 9.0))


def test_kernels_are_kept_until_they_change() -> None:
    kernels, weight = Kernels(), torch.randn(2, 3, 3, 3)
    kept = kernels.of(weight, 4)
    assert kernels.of(weight, 4) is kept
    assert kernels.of(weight, 2).shape == (16, 3, 2)
    weight.mul_(2)
    torch.testing.assert_close(kernels.of(weight, 4), 2 * kept)
    weight.requires_grad_()
    assert kernels.of(weight, 4).requires_grad


def test_only_small_networks_in_float32_pay() -> None:
    assert convolutions_pay(nn.Conv2d(2, 2, 3))
    assert not convolutions_pay(nn.Conv2d(2, 2, 3).half())
    with torch.device("meta"):
        assert not convolutions_pay(nn.Linear(10_000, 10_000))
