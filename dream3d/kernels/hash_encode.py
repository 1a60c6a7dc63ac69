"""Multi-resolution hash grid (Mueller et al. 2022, "Instant Neural Graphics Primitives", section 3).

Two evaluations of the same function live here. :func:`hash_encode_reference` is the definition, in
differentiable torch operations (any derivative, also with respect to positions). :func:`hash_encode`
takes a faster path with a hand-written gradient when only the table needs one. Layout and rounding
follow tiny-cuda-nn's ``HashGrid``, so that the three can be compared entry by entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PRIMES = (1, 2654435761, 805459861)
"""Of the spatial hash, one per axis (equation 4)."""
BAGS_AT_ONCE = 2**23
"""Interpolations in one call. Eight rows each are a quarter of what int32 counts, which ``embedding_bag`` does."""
_CORNERS = tuple((corner >> 2 & 1, corner >> 1 & 1, corner & 1) for corner in range(8))


@dataclass(frozen=True)
class Level:
    """One resolution of the grid."""

    scale: float
    """Grid units per unit of position: position p in [0, 1] sits at p * scale + 0.5."""
    resolution: int
    """Grid points along each side."""
    entries: int
    offset: int
    """First row of this level in the shared table."""
    hashed: bool


@dataclass(frozen=True)
class HashGridSpec:
    """The shape of a hash grid."""

    levels: tuple[Level, ...]
    features: int
    log2_entries: int
    """Rows of a level at most, as a power of two."""
    base_resolution: int
    per_level_scale: float

    @property
    def entries(self) -> int:
        """Rows of the shared table."""
        return self.levels[-1].offset + self.levels[-1].entries

    @property
    def width(self) -> int:
        """Numbers per encoded position."""
        return len(self.levels) * self.features


def hash_grid_spec(
    levels: int, features: int, log2_entries: int, base_resolution: int, per_level_scale: float
) -> HashGridSpec:
    """Sizes of every level: dense while the grid fits in 2**log2_entries rows, hashed beyond."""
    built: list[Level] = []
    offset = 0
    for index in range(levels):
        scale = base_resolution * per_level_scale**index - 1
        # The rounding guards against 15.999999 -> 16 and 16.0000001 -> 17 flipping with the platform's pow.
        resolution = int(-(-round(scale, 6) // 1)) + 1
        dense = (resolution**3 + 7) // 8 * 8
        entries = min(dense, 2**log2_entries)
        built.append(Level(scale, resolution, entries, offset, hashed=resolution**3 > entries))
        offset += entries
    return HashGridSpec(tuple(built), features, log2_entries, base_resolution, per_level_scale)


def _rows(level: Level, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Table rows of integer grid points (int32 tensors of broadcastable shapes)."""
    if level.hashed:
        row = (x.long() * PRIMES[0]) ^ (y.long() * PRIMES[1]) ^ (z.long() * PRIMES[2])
        return (row & (level.entries - 1)) + level.offset
    row = x + y * level.resolution + z * level.resolution**2
    # Points on the far faces spill over the last row once; a comparison is much cheaper than a remainder.
    return row - (row >= level.entries) * level.entries + level.offset


def hash_encode_reference(positions: Tensor, table: Tensor, spec: HashGridSpec) -> Tensor:
    """Encode positions by trilinear interpolation of the table, level after level.

    ``positions`` (N, 3) in [0, 1]; ``table`` (spec.entries, spec.features). Returns (N, spec.width).
    Differentiable in both arguments, twice in the positions' case (orientation loss needs it).
    """
    encoded = []
    for level in spec.levels:
        scaled = positions * level.scale + 0.5
        floor = scaled.detach().floor()
        fraction = scaled - floor
        x0, y0, z0 = floor.int().unbind(-1)
        total: Tensor | None = None
        for dx, dy, dz in _CORNERS:
            weight = torch.ones_like(fraction[:, 0])
            for axis, upper in enumerate((dx, dy, dz)):
                weight = weight * (fraction[:, axis] if upper else 1 - fraction[:, axis])
            term = table[_rows(level, x0 + dx, y0 + dy, z0 + dz)] * weight[:, None]
            total = term if total is None else total + term
        assert total is not None
        encoded.append(total)
    return torch.cat(encoded, dim=-1)


def corner_rows_and_weights(positions: Tensor, spec: HashGridSpec) -> tuple[Tensor, Tensor]:
    """For each level and position, the eight table rows around it and their trilinear weights.

    Returns int32 rows and weights, both (levels, N, 8). Reused when the same positions are encoded twice.
    """
    count = positions.shape[0]
    rows = torch.empty(len(spec.levels), count, 8, dtype=torch.int32, device=positions.device)
    weights = torch.empty(len(spec.levels), count, 8, dtype=positions.dtype, device=positions.device)
    axes = positions.t().contiguous()  # one contiguous row per axis: every operation below streams through memory
    for index, level in enumerate(spec.levels):
        scaled = axes * level.scale + 0.5
        floor = scaled.floor()
        upper = scaled - floor
        x0, y0, z0 = floor.int()
        x, y, z = torch.stack([x0, x0 + 1]), torch.stack([y0, y0 + 1]), torch.stack([z0, z0 + 1])
        rows[index] = _rows(level, x[:, None, None], y[None, :, None], z[None, None]).reshape(8, count).t()
        wx, wy, wz = torch.stack([1 - upper, upper]).unbind(1)
        weights[index] = (wx[:, None, None] * wy[None, :, None] * wz[None, None]).reshape(8, count).t()
    return rows, weights


class _Interpolate(torch.autograd.Function):
    """Weighted sums of table rows; the gradient reaches the table only."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        levels, count, corners = rows.shape
        ctx.save_for_backward(rows, weights)
        ctx.table_shape = table.shape
        pieces = zip(*(part.view(-1, corners).split(BAGS_AT_ONCE) for part in (rows, weights)), strict=True)
        flat = torch.cat([F.embedding_bag(r, table, mode="sum", per_sample_weights=w) for r, w in pieces])
        features = table.shape[1]
        return flat.view(levels, count, features).transpose(0, 1).reshape(count, levels * features)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        rows, weights = ctx.saved_tensors
        levels, count, corners = rows.shape
        entries, features = ctx.table_shape
        grad = grad_outputs[0].view(count, levels, features).transpose(0, 1).reshape(levels * count, features)
        total = grad.new_zeros(entries, features)
        # A pair of floats as one complex number: half the scattered additions, and twice as fast.
        paired = features == 2 and grad.dtype in (torch.float32, torch.float64)
        target = torch.view_as_complex(total) if paired else total
        parts = (part.split(BAGS_AT_ONCE) for part in (grad, rows.view(-1, corners), weights.view(-1, corners)))
        for g, r, w in zip(*parts, strict=True):
            terms = torch.complex(g[:, :1] * w, g[:, 1:] * w) if paired else g[:, None, :] * w[..., None]
            target.index_add_(0, r.reshape(-1), terms.reshape(-1, *target.shape[1:]))
        return total, None, None


def interpolate(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Encode from precomputed :func:`corner_rows_and_weights`; returns (N, levels * features)."""
    encoded: Tensor = _Interpolate.apply(table, rows, weights)  # type: ignore[no-untyped-call]
    return encoded


def hash_encode(positions: Tensor, table: Tensor, spec: HashGridSpec) -> Tensor:
    """The same function as :func:`hash_encode_reference`, by the fastest path that its gradients allow."""
    if positions.requires_grad:
        return hash_encode_reference(positions, table, spec)
    return interpolate(table, *corner_rows_and_weights(positions, spec))
