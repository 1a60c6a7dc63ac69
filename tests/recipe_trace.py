"""A short optimisation, counted: what :mod:`test_recipe_effects_generation` looks at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from dream3d.cameras import Cameras, orbit
from dream3d.distill import Distillation, start
from dream3d.generate import optimise
from dream3d.kernels.hash_grid import TorchHashGrid
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.recipe.generation import (
    Recipe,
)
from dream3d.render.renderer import Rendering
from dream3d.run.progress import Progress
from dream3d.run.session import Session


class Watched(DiffusionPrior):
    """A prior that remembers for which cameras it was asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: list[Cameras] = []

    def predict_x0(
        self, x_t: Tensor, timestep: int, cameras: Cameras | None, conditioning: Conditioning, views: int
    ) -> tuple[Tensor, Tensor]:
        """What the prior says."""
        self.asked += [] if cameras is None else [cameras]
        return super().predict_x0(x_t, timestep, cameras, conditioning, views)


@dataclass(frozen=True)
class Trace:
    """What a short run did."""

    recipe: Recipe
    start: Distillation
    """As it was before the first step."""
    state: Distillation
    """As it was after the last."""
    steps: list[Progress]
    asked: list[Cameras]
    queries: int
    """Positions at which the field was evaluated."""
    pixels: int
    """Rendered during the optimisation."""
    rendering: Rendering
    """Of the end."""


def fresh(recipe: Recipe, prior: DiffusionPrior) -> Distillation:
    """A run before its first step."""
    return start(recipe, prior, 0)


def trace(recipe: Recipe, prior: Watched) -> Trace:
    """A whole optimisation, counted."""
    queries, pixels, reports = 0, 0, list[Progress]()
    original = Cameras.rays
    prior.asked = []

    def count_queries(module: torch.nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        nonlocal queries
        queries += len(inputs[0]) if isinstance(module, TorchHashGrid) else 0

    def count_pixels(cameras: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
        nonlocal pixels
        pixels += len(cameras) * height * width
        return original(cameras, height, width)

    with (
        torch.nn.modules.module.register_module_forward_hook(count_queries),
        mock.patch.object(Cameras, "rays", count_pixels),
    ):
        state = optimise("a red chair", prior, recipe, seed=0, device="cpu", session=Session(reports.append))
    rendering = state.scene.evaluate(orbit(2), 16)
    steps = [report for report in reports if report.stage == "optimise"]
    return Trace(recipe, fresh(recipe, prior), state, steps, prior.asked, queries, pixels, rendering)
