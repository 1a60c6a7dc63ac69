"""The CUDA libraries against the reference, values and gradients: with a GPU and the library, it must work."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_render import BallField

from dream3d.cameras import orbit
from dream3d.kernels import march, nerfacc
from dream3d.kernels.choose import Candidate, Operation, choose
from dream3d.kernels.composite import RAY_WEIGHTS, accumulate_along_rays, weights_from_density
from dream3d.kernels.hash_encode import hash_encode_reference, hash_grid_spec
from dream3d.kernels.hash_grid import HASH_GRID, TinyCudaHashGrid
from dream3d.kernels.march import VISIBLE_SAMPLES
from dream3d.kernels.samples import Marching, positions_of
from dream3d.recipe.scene import RenderRecipe
from dream3d.render.occupancy import OccupancyGrid


def chosen(operation: Operation[Any], library: str, module: str) -> None:
    """Skips without a GPU or the library; with both, a library that is not chosen is a failure, with its reason."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    choice = choose(operation, "cuda")
    assert choice.name == library, choice.reason


def test_a_warning_of_a_library_is_no_reason_against_it() -> None:
    def warns(device: str) -> None:
        warnings.warn("built for a lower compute capability", stacklevel=1)

    candidates = (
        Candidate[Callable[[], int]]("fast", lambda: 1, warns),
        Candidate[Callable[[], int]]("torch", lambda: 0),
    )
    with pytest.warns(UserWarning, match="lower compute"):
        choice = choose(Operation("adding one", candidates), "cuda:1")
    assert choice.name == "fast"


def test_a_test_gets_the_whole_device() -> None:
    devices: list[str] = []
    operation = Operation("adding one", (Candidate[Callable[[], int]]("fast", lambda: 1, devices.append),))
    for name in ("cuda:1", "cuda", "cuda:1"):
        choose(operation, name)
    assert devices == ["cuda:1", "cuda"]


def test_nerfacc_equals_the_reference() -> None:
    chosen(VISIBLE_SAMPLES, "nerfacc", "nerfacc")
    chosen(RAY_WEIGHTS, "nerfacc", "nerfacc")
    rays_o, rays_d = (rays.reshape(-1, 3) for rays in orbit(2).to("cuda").rays(32, 32))
    grid, field = OccupancyGrid(RenderRecipe(), "cuda"), BallField(0.6, 5.0)
    grid.update(field.density, 0, 0.0068, torch.Generator().manual_seed(0))
    results = []
    for module in (nerfacc, march):
        generator = torch.Generator().manual_seed(1)
        samples = module.visible_samples(field.density, grid, rays_o, rays_d, Marching(0.0068, 1e-4, 0.01), generator)
        density = field.density(positions_of(samples, rays_o, rays_d)).requires_grad_()
        fast = module is nerfacc
        weigh = nerfacc.weights_from_density if fast else weights_from_density
        opacity = accumulate_along_rays(weigh(density, samples, len(rays_o)), None, samples.ray_index, len(rays_o))
        (gradient,) = torch.autograd.grad(opacity.sum(), density)
        results.append((opacity[:, 0], torch.zeros_like(opacity[:, 0]).index_add(0, samples.ray_index, gradient)))
    torch.testing.assert_close(results[0][0], results[1][0], atol=2e-2, rtol=0)
    torch.testing.assert_close(results[0][1], results[1][1], atol=2e-2, rtol=1e-1)


def test_tiny_cuda_nn_equals_the_reference() -> None:
    """Values, the table's gradient, the slope at positions, and the table's gradient of a loss on that slope."""
    chosen(HASH_GRID, "tiny-cuda-nn", "tinycudann")
    spec = hash_grid_spec(4, 2, 12, 16, 1.447269237440378)
    native = TinyCudaHashGrid(spec, torch.Generator().manual_seed(0)).cuda()
    table = native.encoding.params.detach().float().view(-1, 2).requires_grad_()
    results = []
    for encode, parameter in (
        (native, native.encoding.params),
        (lambda p: hash_encode_reference(p, table, spec), table),
    ):
        positions = torch.rand(256, 3, generator=torch.Generator().manual_seed(1)).cuda().requires_grad_()
        values = encode(positions)
        (slope,) = torch.autograd.grad(values.square().sum(), positions, create_graph=True)
        first, second = (
            torch.autograd.grad(loss, parameter, retain_graph=True)[0].view(-1, 2)
            for loss in (values.square().sum(), slope.square().sum())
        )
        results.append((values, slope, first, second))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, atol=1e-5 * float(slow.detach().abs().max()) + 1e-8, rtol=1e-2)
