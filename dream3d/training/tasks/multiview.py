"""The task of a multi-view diffusion prior: 3D and image mode with the same weights (MVDream, Shi et al. 2023)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from dream3d.training.data import Batch
from dream3d.training.denoising import heldout_losses, predict_noised
from dream3d.training.events import Observer, Outcome
from dream3d.training.fast import speed_up
from dream3d.training.loop import Trainer, make_accelerator
from dream3d.training.network import make_network
from dream3d.training.objective import draw_timesteps, level_weights, weighted_loss
from dream3d.training.outputs import write_sheet, write_trained_prior
from dream3d.training.recipe import BatchRecipe, DataRecipe, TrainingRecipe
from dream3d.training.task import Loss
from dream3d.training.tasks.base import RecipeTask

if TYPE_CHECKING:
    from accelerate import Accelerator


class MultiviewTask(RecipeTask[Batch]):
    """All parameters of a UNet on views of objects with cameras, and on captioned images without."""

    defaults = TrainingRecipe(data=DataRecipe(views="none"), batch=BatchRecipe(image_mode_fraction=0)).to_dict()

    def __init__(self, recipe: TrainingRecipe, out: Path, accelerator: Accelerator) -> None:
        """Reads everything; raises DatasetError, PriorError or UsageError for what does not fit."""
        super().__init__(recipe, out, accelerator)
        self.unet, self.average = self._network().train(), self._network().requires_grad_(False)
        self.trained = self.averaged("unet", self.unet, self.average)
        self.network = accelerator.prepare(self.unet)

    def _network(self) -> UNet2DConditionModel:
        """The network at step 0; the same one whenever it is called."""
        recipe, device = self.recipe, self.accelerator.device
        generator = torch.Generator().manual_seed(recipe.seed)
        unet = make_network(
            self.inputs.start.folder / "unet", recipe.network, recipe.attention, self.inputs.latent_size, generator
        )
        speed_up(unet, recipe, recipe.attention, device)
        return unet.to(device)

    def draw(self, step: int) -> Batch:
        """The batch of a step, which is the same whenever it is drawn.

        The mode is that of all processes; the rest is each process's own.
        """
        batch, sampler = self.recipe.batch, self.inputs.sampler
        image_mode = np.random.default_rng([self.recipe.seed, step]).random() < batch.image_mode_fraction
        rng = np.random.default_rng([self.recipe.seed, step, self.accelerator.process_index + 1])
        return sampler.draw_images(batch.images, rng) if image_mode else sampler.draw_objects(batch.objects, rng)

    def loss(self, batch: Batch) -> Loss:
        """The weighted loss of a batch: one timestep for each object, noise of its own for each view."""
        inputs, recipe = self.inputs, self.recipe.loss
        generator = torch.Generator().manual_seed(batch.noise_seed)
        with torch.no_grad():
            x0 = inputs.codec.encode(batch.images.to(self.accelerator.device), generator)
        uniform = torch.rand(len(batch.captions), generator=generator)
        timesteps = draw_timesteps(uniform, recipe.tilt, len(inputs.alphas_cumprod)).repeat_interleave(batch.views)
        noise = torch.randn(x0.shape, generator=generator)
        with self.accelerator.autocast():
            predicted, target, alpha_bar = predict_noised(inputs, self.network, batch, x0, noise, timesteps)
        levels = level_weights(alpha_bar, inputs.prediction_type, recipe.weighting, recipe.gamma)
        loss = weighted_loss(predicted, target, levels, self.channels)
        return Loss("image" if batch.cameras is None else "3d", len(batch.images), {"diffusion": loss})

    def write(self, step: int, seconds: float) -> None:
        """Held-out losses and samples of the moving average, each every so many steps."""
        every = self.recipe.every
        if every.heldout and step % every.heldout == 0:
            for level, loss in heldout_losses(self.inputs, self.average, self.channels).items():
                self.heldout.add(step, level, f"{loss:.6g}")
        if every.samples and step % every.samples == 0:
            self.finish(step, seconds)

    def finish(self, step: int, seconds: float) -> None:
        """The prior with the moving average's weights, and a sheet of samples if the recipe asks for sheets."""
        recipe, inputs = self.recipe, self.inputs
        write_trained_prior(self.result, recipe, inputs, self.average, step, seconds)
        write_sheet(self.out, self.result, recipe, inputs, step, self.average.device)


def make_trainer(recipe: TrainingRecipe, out: Path, device: str = "cpu") -> Trainer[MultiviewTask]:
    """The trainer of a recipe in a folder, which resumes what is there; raises as :class:`MultiviewTask`."""
    accelerator = make_accelerator(device, recipe.precision)
    return Trainer(MultiviewTask(recipe, out, accelerator), accelerator, out)


def train(recipe: TrainingRecipe, out: Path, device: str = "cpu", observer: Observer = lambda event: None) -> Outcome:
    """Train by a recipe into a folder, or go on with what is there; see :class:`dream3d.training.loop.Trainer`."""
    return make_trainer(recipe, out, device).run(observer)
