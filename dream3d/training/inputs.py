"""All that the training of a prior reads and never changes: data, captions, codec and schedule."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from dream3d.errors import PriorError
from dream3d.guidance import PredictionType
from dream3d.prior.codec import load_codec
from dream3d.prior.folder import read_settings
from dream3d.prior.schedule import load_schedule
from dream3d.prior.text import PromptEncoder, with_suffix
from dream3d.training.data import Captions, Sampler, load_images, load_objects, share_weights
from dream3d.training.recipe import TrainingRecipe
from dream3d.training.start import find_start

if TYPE_CHECKING:
    from accelerate import Accelerator


class FrozenInputs:
    """The frozen parts of the start (copied to ``out/start``) and the data, in memory."""

    def __init__(self, recipe: TrainingRecipe, out: Path, accelerator: Accelerator) -> None:
        """Raises PriorError for an unfit start and DatasetError for unfit data."""
        self.start = find_start(recipe.start)
        self.folder = out / "start"
        if accelerator.is_main_process:
            self.start.freeze(self.folder)
        accelerator.wait_for_everyone()
        self.settings = read_settings(self.folder)
        self.image_size = recipe.image_size or self.settings.image_size
        self.codec = load_codec(self.folder).to(accelerator.device)
        schedule = load_schedule(self.folder / "scheduler" / "scheduler_config.json")
        self.alphas_cumprod = schedule.alphas_cumprod.float()
        """(T,) on the CPU."""
        self.prediction_type: PredictionType = schedule.config.prediction_type
        self.latent_size = self._latent_size()
        self._read_data(recipe)

    def _latent_size(self) -> int:
        patch = self.codec.patch_size
        if self.image_size % patch:
            raise PriorError(f"the codec takes images in steps of {patch} pixels, not of {self.image_size}")
        return int(self.image_size // patch)

    def _read_data(self, recipe: TrainingRecipe) -> None:
        data, batch = recipe.data, recipe.batch
        groups = [load_objects(f, "train", data.concepts, self.image_size) for f in data.view_folders]
        heldout = [load_objects(f, "heldout", data.concepts, self.image_size) for f in data.view_folders]
        self.objects, self.heldout = list(chain(*groups)), list(chain(*heldout))
        images = [load_images(f, self.image_size) for f in data.image_folders] if recipe.uses_images else []
        self.images = list(chain(*images))
        self.sampler = Sampler(
            self.objects,
            self.images,
            data.background,
            views=batch.views,
            suffix=batch.prompt_suffix,
            dropout=batch.caption_dropout,
            weights=share_weights([len(group) for group in groups], data.shares) if data.shares else None,
        )
        texts = [with_suffix(c, batch.prompt_suffix) for o in (*self.objects, *self.heldout) for c in o.record.captions]
        texts += [caption for image in self.images for caption in image.captions]
        self.captions = Captions(PromptEncoder(self.folder, self.settings.text_tokens), texts)
