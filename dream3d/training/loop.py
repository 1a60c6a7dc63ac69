"""The training loop: one readable loop on accelerate, which knows of devices, precisions and processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from diffusers import UNet2DConditionModel
from torch import Tensor

from dream3d.errors import TrainingError
from dream3d.prior.codec import PatchPCA
from dream3d.prior.unet import call_unet
from dream3d.run.signals import listening
from dream3d.training import state as checkpoints
from dream3d.training.data import Batch
from dream3d.training.fast import accelerate, products_pay
from dream3d.training.inputs import Stock
from dream3d.training.network import make_network
from dream3d.training.objective import channel_weights, diffuse, draw_timesteps, level_weights, weighted_loss
from dream3d.training.outputs import Outputs
from dream3d.training.recipe import TrainingRecipe


@dataclass(frozen=True)
class StepEvent:
    """What is told after every step."""

    step: int
    steps: int
    mode: str
    """"3d" or "image"."""
    loss: float
    rate: float
    norm: float
    """Of the gradient, before it is clipped."""
    seconds: float
    """That the step took."""
    images: int
    """In the batch of this process."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    prior: Path
    step: int
    stopped_by: int | None = None
    """Number of the signal that ended it before its last step; its checkpoint is written then."""


Observer = Callable[[StepEvent], None]


class Trainer:
    """Network, moving average, optimiser and data of one run; :meth:`run` trains to the recipe's last step.

    Goes on from the newest checkpoint in ``out``, if there is one. All trainers of a process must have the same
    precision and device: accelerate keeps them for the process, and raises ValueError otherwise.
    """

    def __init__(self, recipe: TrainingRecipe, out: Path, device: str = "cpu") -> None:
        """Reads everything; raises DatasetError, PriorError, UsageError or TrainingError before the first step."""
        self.recipe, self.out = recipe, out
        self.accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision="no" if recipe.precision == "fp32" else recipe.precision,
            # In image mode the camera network has no gradient.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self.device = self.accelerator.device
        out.mkdir(parents=True, exist_ok=True)
        self.stock = Stock(recipe, out, self.accelerator)
        self.unet, self.average = self._network().train(), self._network().requires_grad_(False)
        self.names = [name for name, _ in self.unet.named_parameters()]
        self.parameters, self.averages = list(self.unet.parameters()), list(self.average.parameters())
        self.raw_optimizer = torch.optim.AdamW(
            self.parameters,
            lr=recipe.optimizer.rate,
            betas=(0.9, 0.99),
            weight_decay=recipe.optimizer.weight_decay,
            fused=True,
        )
        self.step, self.seconds = 0, 0.0
        self.network, self.optimizer = self.accelerator.prepare(self.unet, self.raw_optimizer)
        codec = self.stock.codec
        scale = codec.scale if isinstance(codec, PatchPCA) else torch.ones(codec.channels, device=self.device)
        self.channels = channel_weights(scale, recipe.loss.channel_power)
        self.outputs = Outputs(recipe, out, self.stock)
        self._resume()

    def _network(self) -> UNet2DConditionModel:
        """The network at step 0; the same one whenever it is called."""
        recipe, generator = self.recipe, torch.Generator().manual_seed(self.recipe.seed)
        unet = make_network(
            self.stock.start.folder / "unet", recipe.network, recipe.attention, self.stock.latent_size, generator
        )
        fits = recipe.attention != "temporal" and recipe.precision == "fp32" and self.device.type == "cpu"
        if recipe.products == "on" or (recipe.products == "auto" and fits and products_pay()):
            accelerate(unet, joint=recipe.attention == "3d")
        return unet.to(self.device)

    def run(self, observer: Observer = lambda event: None) -> Outcome:
        """Train; on SIGTERM or SIGINT, finish the step, write a checkpoint and return."""
        with listening() as signals:
            while self.step < self.recipe.steps and signals.received is None:
                event = self.train_step()
                if self.accelerator.is_main_process:
                    self.outputs.note(event)
                    self._write_what_is_due()
                observer(event)
            if self.accelerator.is_main_process:
                self.save()
                if signals.received is None:
                    self.outputs.finish(self.step, self.seconds, self.average)
        return Outcome(self.outputs.prior, self.step, signals.received)

    def train_step(self) -> StepEvent:
        """One step of the optimiser and of the moving average; raises TrainingError if the loss is not finite."""
        began = time.perf_counter()
        recipe, step = self.recipe, self.step
        batch, rng = self.draw(step)
        rate = learning_rate(recipe, step)
        for group in self.raw_optimizer.param_groups:
            group["lr"] = rate
        loss = self.loss(batch, rng)
        if not math.isfinite(value := loss.item()):
            raise TrainingError(
                f"the loss of step {step + 1} is {value}; lower optimizer.rate or clip, or use precision bf16 or fp32, "
                "and run again: it goes on from the last checkpoint"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = float(self.accelerator.clip_grad_norm_(self.parameters, recipe.optimizer.clip))
        self.optimizer.step()
        self.step += 1
        decay = min(recipe.optimizer.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.averages, [p.detach() for p in self.parameters], 1 - decay)
        seconds = time.perf_counter() - began
        self.seconds += seconds
        mode = "image" if batch.cameras is None else "3d"
        return StepEvent(self.step, recipe.steps, mode, value, rate, norm, seconds, len(batch.images))

    def draw(self, step: int) -> tuple[Batch, np.random.Generator]:
        """The batch of a step, which is the same whenever it is drawn, and the generator for its noise.

        The mode is that of all processes; the rest is each process's own.
        """
        batch = self.recipe.batch
        image_mode = np.random.default_rng([self.recipe.seed, step]).random() < batch.image_mode_fraction
        rng = np.random.default_rng([self.recipe.seed, step, self.accelerator.process_index + 1])
        sampler = self.stock.sampler
        return sampler.draw_images(batch.images, rng) if image_mode else sampler.draw_objects(batch.objects, rng), rng

    def loss(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """The weighted loss of a batch: one timestep for each object, noise of its own for each view."""
        stock, recipe = self.stock, self.recipe.loss
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        with torch.no_grad():
            x0 = stock.codec.encode(batch.images.to(self.device), generator)
        uniform = torch.rand(len(batch.captions), generator=generator)
        steps = draw_timesteps(uniform, recipe.tilt, len(stock.alphas_cumprod)).repeat_interleave(batch.views)
        noise = torch.randn(x0.shape, generator=generator).to(self.device)
        alpha_bar = stock.alphas_cumprod[steps].to(self.device)
        noisy, target = diffuse(x0, noise, alpha_bar, stock.prediction_type)
        text = stock.captions.of(batch.captions, batch.views).to(self.device)
        cameras = None if batch.cameras is None else batch.cameras.flatten(0, 1).to(self.device)
        with self.accelerator.autocast():
            predicted = call_unet(self.network, noisy, steps.to(self.device), text, cameras, batch.views)
        levels = level_weights(alpha_bar, stock.prediction_type, recipe.weighting, recipe.gamma)
        return weighted_loss(predicted, target, levels, self.channels)

    def _write_what_is_due(self) -> None:
        every = self.recipe.every
        if every.checkpoint and self.step % every.checkpoint == 0:
            self.save()
        if self.step == self.recipe.steps:
            return  # the end writes the rest
        if every.heldout and self.step % every.heldout == 0:
            self.outputs.note_heldout(self.step, self.average, self.channels)
        if every.samples and self.step % every.samples == 0:
            self.outputs.note_samples(self.step, self.seconds, self.average)

    def save(self) -> Path:
        """Write a checkpoint of the step that is done."""
        tensors = {f"unet.{name}": value for name, value in self.unet.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.average.state_dict().items()}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            for key, value in self.raw_optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {}
        return checkpoints.save(
            self.out / "checkpoints",
            checkpoints.Checkpoint(
                self.step,
                self.seconds,
                self.recipe.to_dict(),
                scaler,
                {name: value.detach().cpu() for name, value in tensors.items()},
            ),
        )

    def _resume(self) -> None:
        path = checkpoints.latest(self.out / "checkpoints")
        if path is not None:
            self._load(path)
        if self.accelerator.is_main_process:
            self.outputs.truncate(self.step)

    def _load(self, path: Path) -> None:
        found = checkpoints.load(path, self.recipe.to_dict())
        parts: dict[str, dict[str, Tensor]] = {"unet": {}, "ema": {}, "optimizer": {}}
        for name, value in found.tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value
        try:
            self.unet.load_state_dict(parts["unet"])
            self.average.load_state_dict(parts["ema"])
        except RuntimeError as error:
            raise TrainingError(f"{path} does not fit the network; the start has changed since") from error
        own = dict(zip(self.names, self.parameters, strict=True))
        for name, value in parts["optimizer"].items():
            key, _, parameter_name = name.partition(".")
            parameter = own[parameter_name]
            # In the parameter's own layout: what is fused walks through both alike.
            state = value if key == "step" else torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            self.raw_optimizer.state[parameter][key] = state.detach()
        if found.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(dict(found.scaler))
        self.step, self.seconds = found.step, found.seconds


def learning_rate(recipe: TrainingRecipe, step: int) -> float:
    """The rate of the step after ``step`` done ones: a linear warm-up times half a cosine, see OptimizerRecipe."""
    warm = min(1.0, (step + 1) / recipe.optimizer.warmup) if recipe.optimizer.warmup else 1.0
    return (
        recipe.optimizer.rate
        * warm
        * (0.5 + 0.5 * math.cos(math.pi * step / (recipe.optimizer.cosine or recipe.steps)))
    )


def train(recipe: TrainingRecipe, out: Path, device: str = "cpu", observer: Observer = lambda event: None) -> Outcome:
    """Train by a recipe into a folder, or go on with what is there; see :class:`Trainer`."""
    return Trainer(recipe, out, device).run(observer)


__all__ = ["Outcome", "StepEvent", "Trainer", "learning_rate", "train"]
