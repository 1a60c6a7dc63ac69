"""The hash grid in loops that numba compiles: the same function as :mod:`dream3d.kernels.hash_encode`, on a CPU.

Torch computes the eight corners of every point in some forty passes over memory. Here each point is finished before the
next, and the gradient computes the corners again, so that nothing but the positions is kept for it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream3d.kernels.compiled import compiled, in_threads, ranges
from dream3d.kernels.hash_encode import PRIMES, HashGridSpec, hash_encode
from dream3d.kernels.hash_grid import TorchHashGrid

POINTS_PER_PIECE = 4096
"""At least: fewer are not worth a thread."""
_Y, _Z = np.uint32(PRIMES[1]), np.uint32(PRIMES[2])
_ONE, _HALF, _ZERO = np.float32(1), np.float32(0.5), np.float32(0)
Floats = NDArray[np.float32]
Levels = NDArray[np.int64]
"""One row per level: resolution, entries, offset, hashed."""


@compiled
def _row(x: int, y: int, z: int, level: Any) -> Any:
    resolution, entries, offset, hashed = level
    if hashed:
        mixed = np.uint32(x) ^ (np.uint32(y) * _Y) ^ (np.uint32(z) * _Z)
        return np.int64(mixed & np.uint32(entries - 1)) + offset
    row = x + y * resolution + z * resolution * resolution
    if row >= entries:
        row -= entries
    return row + offset


@compiled
def _cell(positions: Floats, n: int, scale: Any) -> Any:
    """The lower corner of the cell that a point lies in, as whole numbers, and its place (x, y, z) in it, 0..1."""
    x, y, z = positions[n, 0] * scale + _HALF, positions[n, 1] * scale + _HALF, positions[n, 2] * scale + _HALF
    x0, y0, z0 = np.floor(x), np.floor(y), np.floor(z)
    return np.int64(x0), np.int64(y0), np.int64(z0), x - x0, y - y0, z - z0


@compiled
def _corner(cell: Any, corner: int, level: Any) -> Any:
    """The row of one of a cell's eight corners, and its trilinear weight."""
    x0, y0, z0, x, y, z = cell
    dx, dy, dz = corner >> 2 & 1, corner >> 1 & 1, corner & 1
    weight = (x if dx else _ONE - x) * (y if dy else _ONE - y) * (z if dz else _ONE - z)
    return _row(x0 + dx, y0 + dy, z0 + dz, level), weight


@compiled
def _encode(
    positions: Floats, table: Floats, scales: Floats, levels: Levels, out: Floats, begin: int, end: int
) -> None:
    for n in range(begin, end):
        for index in range(len(scales)):
            cell = _cell(positions, n, scales[index])
            first, second = _ZERO, _ZERO
            for corner in range(8):
                row, weight = _corner(cell, corner, levels[index])
                first += weight * table[row, 0]
                second += weight * table[row, 1]
            out[n, 2 * index] = first
            out[n, 2 * index + 1] = second


@compiled
def _add_gradient(positions: Floats, grad: Floats, scales: Floats, levels: Levels, out: Floats, index: int) -> None:
    for n in range(len(positions)):
        cell = _cell(positions, n, scales[index])
        first, second = grad[n, 2 * index], grad[n, 2 * index + 1]
        for corner in range(8):
            row, weight = _corner(cell, corner, levels[index])
            out[row, 0] += weight * first
            out[row, 1] += weight * second


@functools.cache
def _arrays(spec: HashGridSpec) -> tuple[Floats, Levels]:
    scales = np.array([level.scale for level in spec.levels], np.float32)
    rows = [(level.resolution, level.entries, level.offset, level.hashed) for level in spec.levels]
    return scales, np.array(rows, np.int64)


class _Encode(torch.autograd.Function):
    """The gradient reaches the table only. Each level's is added by one thread, in the order of the points."""

    @staticmethod
    def forward(ctx: Any, positions: Tensor, table: Tensor, spec: HashGridSpec) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.spec, ctx.shape = spec, table.shape
        out = positions.new_empty(len(positions), spec.width)
        arrays = (positions.numpy(), table.detach().numpy(), *_arrays(spec), out.numpy())
        in_threads(_encode, [(*arrays, *piece) for piece in ranges(len(positions), POINTS_PER_PIECE)])
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor, None]:
        (positions,) = ctx.saved_tensors
        total = positions.new_zeros(ctx.shape)
        arrays = (positions.numpy(), grad_outputs[0].contiguous().numpy(), *_arrays(ctx.spec), total.numpy())
        in_threads(_add_gradient, [(*arrays, index) for index in range(len(ctx.spec.levels))])
        return None, total, None


class NumbaHashGrid(TorchHashGrid):
    """:class:`TorchHashGrid` by the compiled loops where they can: float32, two features, no positions' gradients."""

    def forward(self, positions: Tensor) -> Tensor:
        """(N, 3) in [0, 1] -> (N, width)."""
        kinds = {positions.dtype, self.table.dtype}
        if positions.requires_grad or self.spec.features != 2 or kinds != {torch.float32}:
            return hash_encode(positions, self.table, self.spec)
        encoded: Tensor = _Encode.apply(positions.contiguous(), self.table, self.spec)  # type: ignore[no-untyped-call]
        return encoded
