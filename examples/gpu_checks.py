"""The checks of ``gpu_check.py`` on single kernels, and what all its checks share. Never run on a GPU so far.

A check notes figures in a report, and problems where a figure is not as expected. It raises :class:`NotRun` with the
reason where it cannot be run. On the CPU it runs at a small size, against float64 or itself.
"""

from __future__ import annotations

import functools
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.kernels import composite, hash_encode, march
from dream3d.kernels.choose import choose
from dream3d.kernels.hash_encode import HashGridSpec, hash_encode_reference, hash_grid_spec
from dream3d.kernels.hash_grid import HASH_GRID
from dream3d.kernels.operations import report as choices
from dream3d.kernels.samples import Marching, Samples, positions_of
from dream3d.recipe.scene import RenderRecipe
from dream3d.render.occupancy import OccupancyGrid
from dream3d.version import __version__

Device = torch.device
FULL_GRID = (16, 2, 19, 16, 1.447269237440378)


class NotRun(Exception):
    """A check that cannot be run here; the message is the reason."""


@dataclass
class Report:
    """What a check found."""

    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def at_most(self, name: str, value: float, limit: float) -> None:
        """Note a figure; one over the limit, or not a number, is a problem."""
        self.figures[name] = value
        if not value <= limit:
            self.problems.append(f"{name} is {value:.3g}, over {limit:g}")

    def at_least(self, name: str, value: float, limit: float) -> None:
        """Note a figure; one under the limit, or not a number, is a problem."""
        self.figures[name] = value
        if not value >= limit:
            self.problems.append(f"{name} is {value:.3g}, under {limit:g}")

    def holds(self, name: str, truth: bool) -> None:
        """Note whether something holds; if not, it is a problem."""
        self.figures[name] = "yes" if truth else "no"
        if not truth:
            self.problems.append(f"not {name}")


def needs_cuda(device: Device) -> None:
    """Raise NotRun on the CPU."""
    if device.type != "cuda":
        raise NotRun("no CUDA device")


def milliseconds(function: Callable[[], Any], device: Device, times: int = 10) -> float:
    """Mean time of a call; on a GPU after two for warming up."""
    warm = 2 if device.type == "cuda" else 0
    for call in range(warm + times):
        if call == warm:
            wait(device)
            start = time.perf_counter()
        function()
    wait(device)
    return (time.perf_counter() - start) * 1000 / times


def wait(device: Device) -> None:
    """Until a GPU has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest wanted number."""
    found, wanted = found.detach().cpu().double(), wanted.detach().cpu().double()
    return float((found - wanted).abs().max() / wanted.abs().max())


def versions(report: Report, device: Device) -> None:
    """What is installed, and what each operation uses and why."""
    report.figures |= {"dream3d": __version__, "Python": platform.python_version(), "torch": torch.__version__}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        report.figures |= {"CUDA": torch.version.cuda, "device": found.name, "GB": found.total_memory / 1e9}
    report.figures |= {choice.operation: f"{choice.name} ({choice.reason})" for choice in choices(str(device))}


def _ball(positions: Tensor) -> Tensor:
    """Density of a soft ball: (M, 3) -> (M,)."""
    return 20 * torch.sigmoid(40 * (0.6 - positions.norm(dim=-1)))


def _rendered(
    device: Device, dtype: torch.dtype, size: int, marcher: Any, weigh: Any
) -> tuple[Samples, Tensor, Tensor]:
    """Samples, opacity and the density's gradient of each ray, of four views of the ball."""
    rays_o, rays_d = (rays.reshape(-1, 3).to(device, dtype) for rays in orbit(4).rays(size, size))
    grid = OccupancyGrid(RenderRecipe(), device)
    grid.update(_ball, 0, 0.0068, torch.Generator().manual_seed(0))
    samples = marcher(_ball, grid, rays_o, rays_d, Marching(0.0068, 1e-4, 0.01), None)
    density = _ball(positions_of(samples, rays_o, rays_d)).requires_grad_()
    index, rays = samples.ray_index, len(rays_o)
    opacity = composite.accumulate_along_rays(weigh(density, samples, rays), None, index, rays)[:, 0]
    (gradient,) = torch.autograd.grad(opacity.sum(), density)
    return samples, opacity, torch.zeros_like(opacity).index_add(0, index, gradient)


def rendering(report: Report, device: Device) -> None:
    """Marching and compositing, float32 against float64 on the CPU."""
    size = 256 if device.type == "cuda" else 64
    torch_path = (size, march.visible_samples, composite.weights_from_density)
    found = _rendered(device, torch.float32, *torch_path)
    wanted = _rendered(Device("cpu"), torch.float64, *torch_path)
    counts = [len(one[0].length) for one in (found, wanted)]
    report.figures["samples"] = counts[0]
    report.at_most("difference of counts", abs(counts[0] - counts[1]) / counts[1], 1e-4)
    report.at_most("of opacity", float((found[1].cpu() - wanted[1]).abs().mean()), 1e-4)
    report.at_most("of gradients", difference(found[2], wanted[2]), 2e-2)  # a sample at a threshold may be another


def _encoded(encode: Any, positions: Tensor, table: Tensor, spec: HashGridSpec) -> tuple[Tensor, Tensor]:
    """Features, and the table's gradient of a fixed sum of them."""
    values = encode(positions, table, spec)
    upstream = torch.cos(torch.arange(values.numel(), dtype=torch.float64)).view_as(values).to(values)
    return values, torch.autograd.grad((values * upstream).sum(), table)[0]


def hash_grid(report: Report, device: Device) -> None:
    """The hash grid against float64 on the CPU."""
    spec, generator = hash_grid_spec(16, 2, 15, 16, FULL_GRID[-1]), torch.Generator().manual_seed(0)
    positions = torch.rand(2**16 if device.type == "cuda" else 2**13, 3, generator=generator)
    table = (torch.rand(spec.entries, 2, generator=generator) - 0.5) * 0.02
    found = _encoded(hash_encode.hash_encode, positions.to(device), table.to(device).requires_grad_(), spec)
    wanted = _encoded(hash_encode_reference, positions.double(), table.double().requires_grad_(), spec)
    report.at_most("difference of values", float((found[0].detach().cpu() - wanted[0].detach()).abs().max()), 1e-5)
    # Position * 4095 in float32 is up to 2.4e-4 of a cell off, along each axis.
    report.at_most("of gradients", difference(found[1], wanted[1]), 5e-4)


def many_samples(report: Report, device: Device) -> None:
    """More interpolations than int32 counts in eighths, in pieces; on the CPU few, in small pieces."""
    count, full = (17_000_000, True) if device.type == "cuda" else (5000, False)
    if not full:
        hash_encode.BAGS_AT_ONCE = 2**10
    spec, generator = hash_grid_spec(*FULL_GRID), torch.Generator().manual_seed(0)
    table = torch.rand(spec.entries, 2, generator=generator).to(device).requires_grad_()
    positions = torch.rand(count, 3, generator=generator).to(device)
    values = hash_encode.hash_encode(positions, table, spec)
    (gradient,) = torch.autograd.grad(values.sum(), table)
    some = torch.linspace(0, count - 1, 2000, device=device).long()
    report.figures["positions"] = count
    wanted = hash_encode_reference(positions[some], table, spec)
    report.at_most("difference of values", difference(values[some], wanted), 1e-5)
    weight = 2.0 * count * len(spec.levels)  # the weights of a position sum to 1 at each level, for both features
    report.at_most("of the gradient's sum", abs(float(gradient.double().sum()) / weight - 1), 1e-5)


def _same_rendering(report: Report, device: Device) -> None:
    """nerfacc against the reference: results and time."""
    own = [choose(one, str(device), "nerfacc").implementation for one in (march.VISIBLE_SAMPLES, composite.RAY_WEIGHTS)]
    reference = (march.visible_samples, composite.weights_from_density)
    runs = [functools.partial(_rendered, device, torch.float32, 256, *pair) for pair in (reference, own)]
    wanted, found = (run() for run in runs)
    report.at_most("opacity by nerfacc", difference(found[1], wanted[1]), 2e-2)
    report.at_most("gradients by nerfacc", difference(found[2], wanted[2]), 1e-1)
    times = [milliseconds(run, device) for run in runs]
    report.at_least("times as fast by nerfacc", times[0] / times[1], 5)


def _same_encoding(report: Report, device: Device) -> None:
    """tiny-cuda-nn against the reference: results and time."""
    spec = hash_grid_spec(*FULL_GRID)
    native: Any = choose(HASH_GRID, str(device), "tiny-cuda-nn").implementation
    with torch.cuda.device(device):
        grid = native(spec, torch.Generator().manual_seed(0)).to(device)
    parameter = grid.encoding.params
    table = parameter.detach().float().view(-1, 2).requires_grad_()
    positions = torch.rand(2**20, 3, generator=torch.Generator().manual_seed(1)).to(device)
    runs = [
        functools.partial(_encoded, hash_encode.hash_encode, positions, table, spec),
        functools.partial(_encoded, lambda where, *_: grid(where), positions, parameter, spec),
    ]
    wanted, found = (run() for run in runs)
    report.at_most("values by tiny-cuda-nn", difference(found[0], wanted[0]), 1e-2)
    report.at_most("gradients by tiny-cuda-nn", difference(found[1].view(-1, 2), wanted[1]), 1e-2)
    times = [milliseconds(run, device) for run in runs]
    report.at_least("times as fast by tiny-cuda-nn", times[0] / times[1], 5)


def optional_kernels(report: Report, device: Device) -> None:
    """Every optional implementation against its reference."""
    needs_cuda(device)
    missing = []
    for compare in (_same_encoding, _same_rendering):
        try:
            compare(report, device)
        except LookupError as reason:
            missing.append(str(reason))
    if len(missing) == 2:
        raise NotRun("; ".join(missing))
    report.figures |= {"not run": "; ".join(missing)} if missing else {}
