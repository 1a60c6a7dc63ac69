"""The task of a network and its image adapter together, for a prior of one's own.

A small network that knows little cannot be led by pictures to what it never drew: frozen, it keeps its own shapes and
takes colours alone. Here it learns at the same time to draw by the text, as in the multi-view task, and by pictures, as
in the adapter's. Without pictures the result is a prior like any other.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from dream3d.prior.image_adapter.folder import FOLDER
from dream3d.prior.image_encoder import FOLDER as ENCODER_FOLDER
from dream3d.prior.unet import MultiViewUNet
from dream3d.training.guided_data import GuidedBatch, without_pictures
from dream3d.training.loop import Trainer, make_accelerator
from dream3d.training.network import make_network
from dream3d.training.outputs import write_sheet, write_trained_prior
from dream3d.training.recipe import BatchRecipe, DataRecipe, TrainingRecipe
from dream3d.training.start import copy_folder
from dream3d.training.task import Trained
from dream3d.training.tasks.retrieval import RetrievalTask

if TYPE_CHECKING:
    from accelerate import Accelerator


class JointTask(RetrievalTask):
    """The network, the resampler and the projections; codec, text and image encoder are frozen."""

    defaults = TrainingRecipe(
        task="joint", data=DataRecipe(views="none", images="none"), batch=BatchRecipe(image_mode_fraction=0)
    ).to_dict()

    def __init__(self, recipe: TrainingRecipe, out: Path, accelerator: Accelerator) -> None:
        """Raises as :class:`RetrievalTask`."""
        super().__init__(recipe, out, accelerator)
        self.network = accelerator.prepare(self.unet)

    def _unet(self) -> MultiViewUNet:
        """The start's, which learns."""
        start, generator = self.inputs.start.folder / "unet", torch.Generator().manual_seed(self.recipe.seed)
        return make_network(start, {}, self.inputs.settings.attention, self.inputs.latent_size, generator).train()

    def _trained(self) -> Trained:
        """Both, under one optimiser and one norm of the gradient."""
        return self.averaged("learnt", nn.ModuleDict({"unet": self.unet, "adapter": self.adapter}))

    def draw(self, step: int) -> GuidedBatch:
        """The batch of a step, which is the same whenever it is drawn; its kind is that of all processes."""
        batch, retrieval, seed = self.recipe.batch, self.recipe.retrieval, self.recipe.seed
        alone, two_d = np.random.default_rng([seed, step]).random(2) < (retrieval.text_alone, batch.image_mode_fraction)
        rng = np.random.default_rng([seed, step, self.accelerator.process_index + 1])
        if alone:
            plain = self.inputs.sampler
            return without_pictures(
                plain.draw_images(batch.images, rng) if two_d else plain.draw_objects(batch.objects, rng)
            )
        return self.sampler.draw_images(batch.images, rng) if two_d else self.sampler.draw_objects(batch.objects, rng)

    def write(self, step: int, seconds: float) -> None:
        """Held-out losses, and the prior with a sheet of samples, each every so many steps."""
        super().write(step, seconds)
        if self.recipe.every.samples and step % self.recipe.every.samples == 0:
            self.finish(step, seconds)

    def finish(self, step: int, seconds: float) -> None:
        """The prior with the moving average of both, and a sheet of samples by text if the recipe asks for sheets."""
        recipe, inputs = self.recipe, self.inputs
        unet, adapter = (_part(self.trained.average, name) for name in ("unet", "adapter"))
        averaged = copy.deepcopy(self.unet)
        averaged.load_state_dict(unet)

        def add_adapter(folder: Path) -> None:
            copy_folder(inputs.start.folder / ENCODER_FOLDER, folder / ENCODER_FOLDER)
            self.write_adapter(folder / FOLDER, adapter, step, seconds)

        write_trained_prior(self.result, recipe, inputs, averaged, step, seconds, add_adapter)
        write_sheet(self.out, self.result, recipe, inputs, step, self.accelerator.device)


def _part(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those whose name begins with ``name`` and a dot, by what follows."""
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def make_trainer(recipe: TrainingRecipe, out: Path, device: str = "cpu") -> Trainer[JointTask]:
    """The trainer of a recipe in a folder, which resumes what is there; raises as :class:`JointTask`."""
    accelerator = make_accelerator(device, recipe.precision)
    return Trainer(JointTask(recipe, out, accelerator), accelerator, out)
