"""What the tasks of a training recipe share: frozen inputs, the learning rate, and rows of their logs."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from dream3d.files import remove_leftovers, replace_folder
from dream3d.prior.layout import files_of
from dream3d.training.denoising import weights_of_latents
from dream3d.training.events import StepEvent
from dream3d.training.inputs import FrozenInputs
from dream3d.training.logs import StepLog
from dream3d.training.recipe import TrainingRecipe
from dream3d.training.task import Task, Trained

if TYPE_CHECKING:
    from accelerate import Accelerator

Batch = TypeVar("Batch")


class RecipeTask(Task[Batch]):
    """A task whose settings are a :class:`TrainingRecipe`, and whose result is a prior in the folder ``prior``."""

    advice = "lower optimizer.rate or clip, or use precision bf16 or fp32"
    free = ("every", "sample_prompts", "name")
    measured: tuple[str, ...] = ("loss",)
    """Columns of ``heldout.csv`` after step and timestep."""

    def __init__(self, recipe: TrainingRecipe, out: Path, accelerator: Accelerator) -> None:
        """Reads the start and all data; raises DatasetError, PriorError or UsageError for what does not fit."""
        self.recipe, self.accelerator = recipe, accelerator
        self.steps, self.checkpoint_every = recipe.steps, recipe.every.checkpoint
        self.out, self.result = out, out / "prior"
        out.mkdir(parents=True, exist_ok=True)
        self.inputs = FrozenInputs(recipe, out, accelerator)
        self.channels = weights_of_latents(self.inputs.codec, recipe.loss.channel_power, accelerator.device)
        self.metrics = StepLog(out / "metrics.csv", ("step", "mode", "loss", "rate", "norm", "seconds"))
        self.heldout = StepLog(out / "heldout.csv", ("step", "timestep", *self.measured))

    def averaged(self, part: str, network: nn.Module, copy: nn.Module | None = None) -> Trained:
        """All parameters of a network under the recipe's AdamW, with a moving average; ``part`` is their prefix.

        The average is kept in the parameters of a ``copy`` of the network, or else in plain tensors.
        """
        optimizer, parameters = self.recipe.optimizer, dict(network.named_parameters())
        adamw = torch.optim.AdamW(
            parameters.values(), lr=optimizer.rate, betas=(0.9, 0.99), weight_decay=optimizer.weight_decay, fused=True
        )
        average: dict[str, Tensor] = (
            {name: value.detach().clone() for name, value in parameters.items()}
            if copy is None
            else dict(copy.named_parameters())
        )
        return Trained(part, parameters, adamw, list(parameters.values()), optimizer.clip, average, decay=optimizer.ema)

    def write_start_with(self, part: str, write: Callable[[Path], None]) -> None:
        """As the result, a copy of the start with a new folder ``part``: ``write`` makes it at the path it is given."""
        start = self.inputs.start.folder

        def fill(folder: Path) -> None:
            for name in (*files_of(start, optional=True), "attribution.csv"):
                if not name.startswith(f"{part}/") and (start / name).is_file():
                    (folder / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(start / name, folder / name)
            write(folder / part)

        remove_leftovers(self.result.parent, self.result.name[:40], folders=True)
        replace_folder(self.result, fill)

    def settings(self) -> dict[str, Any]:
        """The recipe."""
        return self.recipe.to_dict()

    def rate(self, step: int) -> float:
        """See :func:`learning_rate`."""
        return learning_rate(self.recipe, step)

    def log(self, event: StepEvent) -> None:
        """A row of ``metrics.csv``."""
        numbers = (f"{value:.6g}" for value in (event.loss, event.rate, event.norm))
        self.metrics.add(event.step, event.mode, *numbers, f"{event.seconds:.4f}")

    def rewind(self, step: int) -> None:
        """Forget rows of later steps."""
        self.metrics.rewind(step)
        self.heldout.rewind(step)


def learning_rate(recipe: TrainingRecipe, step: int) -> float:
    """The rate after ``step`` steps: a linear warm-up times half a cosine, see OptimizerRecipe."""
    optimizer = recipe.optimizer
    warm = min(1.0, (step + 1) / optimizer.warmup) if optimizer.warmup else 1.0
    return optimizer.rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / (optimizer.cosine or recipe.steps)))
