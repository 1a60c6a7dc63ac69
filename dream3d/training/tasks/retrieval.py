"""The task of an image adapter: a frozen prior learns to draw by pictures, in 3D and 2D mode (MV-RAG, section 3.4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dream3d.errors import PriorError
from dream3d.prior.attention import ContextKeys, cross_layers
from dream3d.prior.folder import read_settings
from dream3d.prior.image_adapter.adapter import ImageAdapter, layer_channels
from dream3d.prior.image_adapter.config import AdapterConfig, EncoderKind
from dream3d.prior.image_adapter.features import PictureEncoder, load_encoder
from dream3d.prior.image_adapter.folder import FOLDER, has_adapter, load_adapter, save_adapter
from dream3d.prior.image_encoder import FOLDER as ENCODER_FOLDER
from dream3d.prior.schema import read_json
from dream3d.prior.unet import MultiViewUNet, load_unet
from dream3d.training.data import attribution
from dream3d.training.denoising import LEVELS, predict_noised
from dream3d.training.fast import speed_up
from dream3d.training.guided_data import GuidedBatch, GuidedSampler
from dream3d.training.loop import Trainer, make_accelerator
from dream3d.training.objective import draw_timesteps, level_weights, weighted_loss
from dream3d.training.outputs import licences_in
from dream3d.training.recipe import DataRecipe, TrainingRecipe
from dream3d.training.task import Loss, Trained
from dream3d.training.tasks.base import RecipeTask

if TYPE_CHECKING:
    from accelerate import Accelerator

HELDOUT_OBJECTS = 16
"""Drawn from the held-out ones, with repetition if there are fewer."""
HELDOUT_SEED = 1234
WHITE = (1.0, 1.0, 1.0)
"""Padding of pictures for an image encoder of our own, as corpora have it."""


class Guide(nn.Module):
    """An adapter as training calls it: features of pictures to what the network's cross-attention looks at."""

    def __init__(self, adapter: ImageAdapter, unet: MultiViewUNet, text_weight: float, dtype: torch.dtype) -> None:
        """``dtype`` of the keys and values: the network's queries have it."""
        super().__init__()
        self.adapter, self.text_weight, self.dtype = adapter, text_weight, dtype
        self.heads = {name: layer.heads for name, layer in cross_layers(unet).items()}

    def forward(self, features: Tensor, times: int) -> dict[str, ContextKeys]:
        """(groups, K, M, width) -> keys and values, those of each group ``times`` times."""
        groups = features.shape[0]
        tokens = self.adapter.resampler(features.flatten(0, 1)).unflatten(0, (groups, -1)).flatten(1, 2)
        tokens = tokens.repeat_interleave(times, 0)
        made = {}
        for name, heads in self.heads.items():
            key, value = (one.to(self.dtype) for one in self.adapter.keys(name, tokens, heads))
            made[name] = ContextKeys(None, (key, value), self.text_weight, 1.0)
        return made


class RetrievalTask(RecipeTask[GuidedBatch]):
    """The resampler and the projections of an adapter; network, codec, text and image encoder are frozen."""

    defaults = TrainingRecipe(task="retrieval", data=DataRecipe(views="none", images="none")).to_dict()
    measured = ("text", "pictures")

    def __init__(self, recipe: TrainingRecipe, out: Path, accelerator: Accelerator) -> None:
        """Reads everything; raises DatasetError, PriorError or UsageError for what does not fit."""
        super().__init__(recipe, out, accelerator)
        start, device = self.inputs.start, accelerator.device
        if start.two_d:
            raise PriorError(f"{start.folder} is a 2D model; train a multi-view prior from it first")
        self.unet = self._unet()
        self.encoder = _encoder_of(start.folder, device)
        self.sampler = GuidedSampler(self.inputs.sampler, recipe.retrieval, self.encoder.size)
        self.adapter = self._adapter(start.folder).train()
        # The faster layers' cross-attention is per object.
        self.per_object = speed_up(self.unet, recipe, self.inputs.settings.attention, device)
        self.network: Any = self.unet.to(device)
        """As it is called."""
        dtype = torch.bfloat16 if self.per_object else torch.float32
        guide = Guide(self.adapter, self.unet, recipe.retrieval.text_weight, dtype)
        self.guide = accelerator.prepare(guide.to(device))
        self.trained = self._trained()

    def _unet(self) -> MultiViewUNet:
        """The network at step 0, in float32: the start's, frozen."""
        folder = self.inputs.start.folder
        return load_unet(folder / "unet", torch.float32, read_settings(folder).attention)

    def _trained(self) -> Trained:
        """What learns: the adapter."""
        return self.averaged("adapter", self.adapter)

    def _adapter(self, folder: Path) -> ImageAdapter:
        """The adapter at step 0: the start's own, or a new one whose projections are those of the text."""
        recipe = self.recipe.retrieval
        if has_adapter(folder):
            loaded = load_adapter(folder, folder.name, self.unet, torch.float32)
            return loaded.module.requires_grad_(True)
        _, count, width = self.encoder.blank().shape
        kind = _kind_of(folder)
        config = AdapterConfig(
            encoder=kind,
            feature_width=width,
            positions=count if kind == "contrastive" else 0,
            dim=recipe.dim,
            depth=recipe.depth,
            heads=recipe.heads,
            head_dim=recipe.head_dim,
            queries=recipe.queries,
            token_width=self.unet.config.cross_attention_dim,
            padding=WHITE if kind == "contrastive" else (0.0, 0.0, 0.0),
            weight_sum=1 + recipe.text_weight,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)  # torch's layers draw their first weights from the global generator
            adapter = ImageAdapter(config, layer_channels(self.unet))
        adapter.start_from(self.unet)
        return adapter

    def draw(self, step: int) -> GuidedBatch:
        """The batch of a step, which is the same whenever it is drawn; 3D and 2D mode take turns."""
        batch, modes = self.recipe.batch, self.recipe.retrieval.modes
        rng = np.random.default_rng([self.recipe.seed, step, self.accelerator.process_index + 1])
        if modes == "2d" or (modes == "both" and step % 2):
            return self.sampler.draw_images(batch.images, rng)
        return self.sampler.draw_objects(batch.objects, rng)

    def loss(self, batch: GuidedBatch) -> Loss:
        """The weighted loss of the targets, as the prior's own training has it, with the pictures shown."""
        inputs, recipe, targets = self.inputs, self.recipe.loss, batch.targets
        generator = torch.Generator().manual_seed(targets.noise_seed)
        with torch.no_grad():
            x0 = inputs.codec.encode(targets.images.to(self.accelerator.device), generator)
        uniform = torch.rand(len(targets.captions), generator=generator)
        timesteps = draw_timesteps(uniform, recipe.tilt, len(inputs.alphas_cumprod)).repeat_interleave(targets.views)
        noise = torch.randn(x0.shape, generator=generator)
        with self.accelerator.autocast():
            keys = self._keys(batch)
            predicted, target, alpha_bar = predict_noised(inputs, self.network, targets, x0, noise, timesteps, keys)
        levels = level_weights(alpha_bar, inputs.prediction_type, recipe.weighting, recipe.gamma)
        loss = weighted_loss(predicted, target, levels, self.channels)
        return Loss(batch.mode, len(targets.images), {"diffusion": loss})

    def _keys(self, batch: GuidedBatch) -> dict[str, ContextKeys] | None:
        """Of a batch's pictures, with the blank one's in the place of those that are blank; None without pictures."""
        if not batch.pictures.shape[1]:
            return None
        with torch.no_grad():
            features = self.encoder.features(batch.pictures.flatten(0, 1)).unflatten(0, batch.pictures.shape[:2])
            blank = batch.blank.to(features.device)[:, None, None, None]
            features = torch.where(blank, self.encoder.blank(), features)  # (groups, K, M, width)
        keys: dict[str, ContextKeys] = self.guide(features, 1 if self.per_object else batch.targets.views)
        return keys

    def write(self, step: int, seconds: float) -> None:
        """Held-out losses, every so many steps."""
        every = self.recipe.every.heldout
        if every and step % every == 0:
            for level, losses in self.heldout_losses().items():
                self.heldout.add(step, level, *(f"{loss:.6g}" for loss in losses))

    @torch.no_grad()
    def heldout_losses(self) -> dict[int, tuple[float, float]]:
        """By timestep: the loss on views of held-out objects by text alone (the start's own), and with pictures.

        The same objects, pictures and noise in every call; empty without such objects.
        """
        inputs = self.inputs
        if not inputs.heldout:
            return {}
        recipe = dataclasses.replace(self.recipe.retrieval, dropout=0.0, modes="3d")
        plain = inputs.sampler.of(inputs.heldout)
        rng = np.random.default_rng(HELDOUT_SEED)
        batch = GuidedSampler(plain, recipe, self.encoder.size).draw_objects(HELDOUT_OBJECTS, rng)
        targets, generator = batch.targets, torch.Generator().manual_seed(HELDOUT_SEED)
        x0 = inputs.codec.encode(targets.images.to(self.accelerator.device), generator)
        guided = self._keys(batch)
        losses = {}
        for level in (level * len(inputs.alphas_cumprod) // 1000 for level in LEVELS):
            noise, timesteps = torch.randn(x0.shape, generator=generator), torch.full((len(x0),), level)
            pair = []
            for keys in (None, guided):
                predicted, target, bar = predict_noised(inputs, self.unet, targets, x0, noise, timesteps, keys)
                pair.append(weighted_loss(predicted, target, torch.ones_like(bar), self.channels).item())
            losses[level] = (pair[0], pair[1])
        return losses

    def finish(self, step: int, seconds: float) -> None:
        """A copy of the start with the moving average of the adapter in its folder ``image_adapter``."""
        self.write_start_with(FOLDER, lambda folder: self.write_adapter(folder, self.trained.average, step, seconds))

    def write_adapter(self, folder: Path, weights: Mapping[str, Tensor], step: int, seconds: float) -> None:
        """A new folder of an adapter with these parameters."""
        inputs, recipe = self.inputs, self.recipe
        facts = {
            "licence_weights": read_settings(inputs.start.folder).licence_weights,
            "licence_data": licences_in(inputs),
            "iterations": step,
            "trained_seconds": round(seconds),
            "training": recipe.to_dict(),
        }
        averaged = ImageAdapter(self.adapter.config, layer_channels(self.unet))
        averaged.load_state_dict({**self.adapter.state_dict(), **weights})
        folder.mkdir()
        save_adapter(averaged, folder, facts, recipe.retrieval.compact)
        text = attribution(inputs.objects, inputs.images)
        (folder / "attribution.csv").write_text(text, encoding="utf-8")


def _encoder_of(folder: Path, device: torch.device) -> PictureEncoder:
    """The image encoder of a prior's folder, of either kind."""
    path = folder / ENCODER_FOLDER / "config.json"
    if not path.is_file():
        raise PriorError(
            f"{folder} has no image encoder, by which an adapter reads pictures; train one by 'dream3d train-encoder'"
        )
    return load_encoder(folder, _kind_of(folder), device)


def _kind_of(folder: Path) -> EncoderKind:
    is_own = read_json(folder / ENCODER_FOLDER / "config.json").get("type") == "contrastive"
    return "contrastive" if is_own else "clip_vision"


def make_trainer(recipe: TrainingRecipe, out: Path, device: str = "cpu") -> Trainer[RetrievalTask]:
    """The trainer of a recipe in a folder, which resumes what is there; raises as :class:`RetrievalTask`."""
    accelerator = make_accelerator(device, recipe.precision)
    return Trainer(RetrievalTask(recipe, out, accelerator), accelerator, out)
