"""The task of a decoder: a small network learns to draw clean images from a frozen prior's own predictions."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers.models.autoencoders.vae import Decoder
from torch import Tensor

from dream3d.errors import PriorError, UsageError
from dream3d.prior.decoder import FOLDER, DecodedPatchPCA, decoder_network, save_decoder
from dream3d.prior.folder import shapes_of
from dream3d.prior.patch_pca import PatchPCA
from dream3d.prior.unet import load_unet
from dream3d.training.data import Batch
from dream3d.training.denoising import predict_noised
from dream3d.training.fast import speed_up
from dream3d.training.loop import Trainer, make_accelerator
from dream3d.training.objective import error_of_x0, image_errors
from dream3d.training.recipe import DataRecipe, TrainingRecipe
from dream3d.training.task import Loss
from dream3d.training.tasks.base import RecipeTask

if TYPE_CHECKING:
    from accelerate import Accelerator

LEVELS = (0.0, 0.1, 0.3, 0.5)
"""Noise levels at which held-out objects are measured, as shares of the schedule; at 0 their latents are clean."""
HELDOUT_OBJECTS = 16
HELDOUT_SEED = 1234


class DecoderTask(RecipeTask[Batch]):
    """A decoder's weights; network, codec and text encoder are frozen."""

    defaults = TrainingRecipe(task="decoder", data=DataRecipe(views="none")).to_dict()
    measured = ("linear", "decoder")

    def __init__(self, recipe: TrainingRecipe, out: Path, accelerator: Accelerator) -> None:
        """Reads everything; raises DatasetError, PriorError or UsageError for what does not fit."""
        super().__init__(recipe, out, accelerator)
        start, device, codec = self.inputs.start, accelerator.device, self.inputs.codec
        if start.two_d or not isinstance(codec, PatchPCA):
            raise PriorError(f"{start.folder} has no linear codec; its images need no other decoder")
        self.unet = load_unet(start.folder / "unet", torch.float32, self.inputs.settings.attention)
        speed_up(self.unet, recipe, self.inputs.settings.attention, device)
        self.unet.to(device)
        self.linear = PatchPCA(codec.patch_size, codec.basis, codec.mean, codec.scale)
        self.decoder = self._decoder(codec).train().to(device)
        self.codec = DecodedPatchPCA(self.linear, self.decoder)
        self.trained = self.averaged(FOLDER, self.decoder)

    def _decoder(self, codec: PatchPCA) -> Decoder:
        """The network at step 0: the start's own if it has the same sizes, or a new one, which adds nothing yet."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)  # torch's layers draw their first weights from the global generator
            try:
                made = decoder_network(asdict(self.recipe.decoder), codec.channels, codec.patch_size)
            except ValueError as error:
                raise UsageError(f"decoder.block_out_channels does not fit: {error}") from error
        torch.nn.init.zeros_(made.conv_out.weight)
        torch.nn.init.zeros_(made.conv_out.bias)
        if isinstance(codec, DecodedPatchPCA) and shapes_of(codec.network) == shapes_of(made):
            made.load_state_dict(codec.network.state_dict())
        return made

    def draw(self, step: int) -> Batch:
        """The objects of a step, which are the same whenever they are drawn."""
        rng = np.random.default_rng([self.recipe.seed, step, self.accelerator.process_index + 1])
        return self.inputs.sampler.draw_objects(self.recipe.batch.objects, rng)

    def loss(self, batch: Batch) -> Loss:
        """The absolute error of the pixels, and of their differences, between decoded latents and the images."""
        recipe, views = self.recipe.decoder, batch.views
        generator = torch.Generator().manual_seed(batch.noise_seed)
        images = batch.images.to(self.accelerator.device)
        with torch.no_grad():
            x0 = self.linear.encode(images)
            count = round(recipe.predicted * len(batch.captions))
            levels = torch.rand(count, generator=generator) * recipe.strongest
            predicted = self._predict(first_objects(batch, count), x0[: count * views], levels, generator)
            clean = x0[count * views :]
            spread = torch.rand(len(clean), 1, 1, 1, generator=generator) * recipe.noise
            clean = clean + (spread * torch.randn(clean.shape, generator=generator)).to(clean)
            latents = torch.cat([predicted, clean])
        pixels, edges = image_errors(self.codec.decode(latents), images)
        return Loss("3d", len(images), {"pixels": pixels, "edges": recipe.edges * edges})

    @torch.no_grad()
    def _predict(self, batch: Batch, x0: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
        """What the prior takes latents (N, C, h, w) for after noise of a level (objects,) in [0, 1] for each object."""
        if not len(x0):
            return x0
        inputs = self.inputs
        timesteps = (levels * len(inputs.alphas_cumprod)).long().clamp(max=len(inputs.alphas_cumprod) - 1)
        noise = torch.randn(x0.shape, generator=generator)
        answer, target, alpha_bar = predict_noised(
            inputs, self.unet, batch, x0, noise, timesteps.repeat_interleave(batch.views)
        )
        return x0 + error_of_x0(answer.float() - target, alpha_bar, inputs.prediction_type)

    def write(self, step: int, seconds: float) -> None:
        """Held-out errors, every so many steps."""
        every = self.recipe.every.heldout
        if every and step % every == 0:
            for timestep, errors in self.heldout_errors().items():
                self.heldout.add(step, timestep, *(f"{error:.6g}" for error in errors))

    @torch.no_grad()
    def heldout_errors(self) -> dict[int, tuple[float, float]]:
        """By timestep: mean squared error of pixels in [-1, 1] by the linear codec and by the averaged decoder.

        On views of held-out objects, the same in every call; empty without such objects.
        """
        inputs = self.inputs
        if not inputs.heldout:
            return {}
        some = np.linspace(0, len(inputs.heldout) - 1, min(HELDOUT_OBJECTS, len(inputs.heldout))).astype(int)
        batch = inputs.sampler.fixed([inputs.heldout[i] for i in some])
        generator = torch.Generator().manual_seed(HELDOUT_SEED)
        images = batch.images.to(self.accelerator.device)
        x0, averaged = self.linear.encode(images), self._averaged()
        errors = {}
        for level in LEVELS:
            latents = self._predict(batch, x0, torch.full((len(some),), level), generator) if level else x0
            both = (codec.decode(latents) for codec in (self.linear, averaged))
            linear, decoded = ((one - images).square().mean().item() for one in both)
            errors[int(level * len(inputs.alphas_cumprod))] = (linear, decoded)
        return errors

    def _averaged(self) -> DecodedPatchPCA:
        network = copy.deepcopy(self.decoder)
        network.load_state_dict(dict(self.trained.average))
        return DecodedPatchPCA(self.linear, network.eval())

    def finish(self, step: int, seconds: float) -> None:
        """A copy of the start with the moving average of the decoder in its folder ``decoder``."""
        sizes, weights = asdict(self.recipe.decoder), self._averaged().network.state_dict()
        self.write_start_with(FOLDER, lambda folder: save_decoder(sizes, weights, folder))


def first_objects(batch: Batch, count: int) -> Batch:
    """The first objects of a batch in 3D mode."""
    cameras = None if batch.cameras is None else batch.cameras[:count]
    images, captions = batch.images[: count * batch.views], batch.captions[:count]
    return replace(batch, images=images, captions=captions, cameras=cameras)


def make_trainer(recipe: TrainingRecipe, out: Path, device: str = "cpu") -> Trainer[DecoderTask]:
    """The trainer of a recipe in a folder, which resumes what is there; raises as :class:`DecoderTask`."""
    accelerator = make_accelerator(device, recipe.precision)
    return Trainer(DecoderTask(recipe, out, accelerator), accelerator, out)
