"""The occupancy grid: a coarse memory of where the field is empty, so that rays skip it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dream3d.recipe.scene import RenderRecipe

DensityFn = Callable[[Tensor], Tensor]


class OccupancyGrid:
    """Per cell of the cube [-1, 1]^3, a decaying maximum of density * step (Mueller et al. 2022, appendix C)."""

    def __init__(self, recipe: RenderRecipe, device: torch.device | str = "cpu") -> None:
        self.resolution = recipe.occupancy_resolution
        self.threshold = recipe.occupancy_threshold
        self.decay = recipe.occupancy_decay
        self.warmup = recipe.occupancy_warmup
        cells = self.resolution**3
        self.ema = torch.zeros(cells, device=device)
        """(cells,) density * step, as last seen."""
        self.occupied = torch.ones(cells, dtype=torch.bool, device=device)
        """(cells,) what rays do not skip; everything, until the first update."""

    @property
    def fraction(self) -> Tensor:
        """Share of cells that rays do not skip, 0..1; a scalar on the grid's device."""
        return self.occupied.float().mean()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that an exact resume needs."""
        return {"ema": self.ema, "occupied": self.occupied}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.ema = state["ema"].to(self.ema)
        self.occupied = state["occupied"].to(self.occupied)

    def contains(self, positions: Tensor) -> Tensor:
        """(N, 3) world positions -> (N,) bool, false outside the cube."""
        cell = ((positions + 1) * (0.5 * self.resolution)).floor().long()
        inside = ((cell >= 0) & (cell < self.resolution)).all(-1)
        x, y, z = cell.clamp(0, self.resolution - 1).unbind(-1)
        return inside & self.occupied[(x * self.resolution + y) * self.resolution + z]

    @torch.no_grad()
    def update(self, density_fn: DensityFn, step: int, step_size: float, generator: torch.Generator) -> None:
        """Refresh the grid from the field at one random point of each visited cell.

        All cells are visited up to the warm-up step; later a random quarter and all occupied ones.
        """
        cells = self._cells_to_visit(step, generator)
        resolution = self.resolution
        corner = torch.stack([cells // resolution**2, cells // resolution % resolution, cells % resolution], dim=-1).to(
            self.ema.dtype
        )
        jitter = torch.rand(corner.shape, generator=generator).to(corner, non_blocking=True)
        positions = (corner + jitter) * (2 / resolution) - 1
        optical = density_fn(positions) * step_size
        self.ema[cells] = torch.maximum(self.ema[cells] * self.decay, optical)
        # While all of the field is thin (the first steps), its mean is the better border of "empty".
        self.occupied = self.ema > self.ema.mean().clamp(max=self.threshold)

    def _cells_to_visit(self, step: int, generator: torch.Generator) -> Tensor:
        total = self.ema.shape[0]
        if step < self.warmup:
            return torch.arange(total, device=self.ema.device)
        random = (torch.rand(total, generator=generator) < 0.25).to(self.ema.device, non_blocking=True)
        return torch.nonzero(random | self.occupied)[:, 0]
