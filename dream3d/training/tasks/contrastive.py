"""The task of the contrastive image encoder: CLIP's loss without false negatives (Radford et al. 2021)."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from dream3d.bounds import Between, Seed, Settings
from dream3d.dataset.compositing import over
from dream3d.errors import UsageError
from dream3d.evaluation.retrieval import recall_at
from dream3d.files import build_folder, hash_file, write_json
from dream3d.prior.folder import read_settings
from dream3d.prior.image_encoder import (
    FOLDER,
    EncoderConfig,
    ImageEncoder,
    Towers,
    load_text,
    load_towers,
    pooled_texts,
    save_towers,
)
from dream3d.run import checkpoints
from dream3d.training.contrastive_data import Captioned, Color, Pairs, PairSampler, color_words, describes
from dream3d.training.events import StepEvent
from dream3d.training.logs import StepLog
from dream3d.training.loop import Trainer, make_accelerator
from dream3d.training.objective import contrastive_loss
from dream3d.training.recipe import Steps
from dream3d.training.task import Loss, Task, Trained

RUN_FOLDER = f"{FOLDER}-training"
"""Checkpoints and metrics of a run that is not finished, beside the folder that it will write."""
CHECKPOINT_EVERY = 100
MAX_LOG_SCALE = math.log(100)
"""CLIP's limit on the inverse temperature, against a runaway."""
VIEWS_JUDGED = 8
"""Of each held-out object, evenly spread."""


@dataclass(frozen=True)
class ContrastiveRecipe(Settings):
    """How the encoder is learnt. Raises :class:`UsageError` for numbers out of range."""

    steps: Steps = 2000
    batch: Annotated[int, Between(2, 65536)] = 64
    """Objects in a step; each is a negative for the others."""
    seed: Seed = 0
    learning_rate: Annotated[float, Between(0, 1, above=True, below=True)] = 1e-3
    """At its peak, after the first twentieth of the steps; it ends at zero along a cosine."""
    weight_decay: Annotated[float, Between(0, 1000)] = 0.05
    log_every: Steps = 10

    def rate_at(self, step: int) -> float:
        """Share of the peak learning rate at a step from 0 on."""
        warm = max(1, self.steps // 20)
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))


class ContrastiveTask(Task[Pairs]):
    """The two towers of an image encoder, and the temperature of its loss, on the CPU."""

    advice = "lower the learning rate"
    checkpoint_every = CHECKPOINT_EVERY

    def __init__(
        self,
        recipe: ContrastiveRecipe,
        data: Captioned,
        prior: Path,
        out: Path,
        config: EncoderConfig | None = None,
        heldout: Iterable[tuple[str, Captioned]] = (),
    ) -> None:
        """``out`` gets a folder ``image_encoder``; ``heldout`` are splits with their names, read at the end.

        The prior's folder gives text encoder and background. ``config`` (the default with the text encoder's width if
        None) must fit the images of ``data``. Raises UsageError for an ``out`` that does not do, PriorError, and
        DatasetError for fewer than two objects.
        """
        check_place(out)
        self.recipe, self.steps, self.heldout = recipe, recipe.steps, heldout
        self.result, self.folder = out / FOLDER, out / RUN_FOLDER
        self.measured: dict[str, dict[str, float]] = {}
        """What the written encoder achieves by split, see :func:`heldout_recall`."""
        self.text, self.background = load_text(prior), read_settings(prior).background
        config = config or EncoderConfig(text_width=self.text.width)
        self.sampler = PairSampler(data, recipe.batch, self.background, recipe.seed)
        captions = sorted({caption for record in data.records for caption in record.captions})
        self.pooled = dict(zip(captions, pooled_texts(self.text, captions, torch.device("cpu")), strict=True))
        """Mean text states of every caption, made once: the text encoder is frozen."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)  # torch's layers draw their first weights from the global generator
            self.towers = Towers(config)
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.trained = self._trained()
        self.inputs = {"encoder": asdict(config), "background": self.background, "data": data.digest()}
        self.inputs["text"] = hash_file(prior / "text_encoder" / "model.safetensors")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.metrics = StepLog(self.folder / "metrics.csv", ("step", "loss", "accuracy", "scale"))

    def _trained(self) -> Trained:
        recipe, towers = self.recipe, self.towers
        groups = [
            {"params": list(towers.parameters()), "weight_decay": recipe.weight_decay},
            {"params": [self.log_scale], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
        optimizer.register_step_post_hook(self._limit_scale)
        parameters = {**dict(towers.named_parameters()), "log_scale": self.log_scale}
        return Trained("encoder", parameters, optimizer, list(towers.parameters()), clip=1.0)

    @torch.no_grad()
    def _limit_scale(self, *step: object) -> None:
        self.log_scale.clamp_(0, MAX_LOG_SCALE)

    def settings(self) -> dict[str, Any]:
        """The recipe, and what tells whether all else is the same."""
        return {**asdict(self.recipe), **self.inputs}

    def rate(self, step: int) -> float:
        """See :class:`ContrastiveRecipe`."""
        return self.recipe.learning_rate * self.recipe.rate_at(step)

    def draw(self, step: int) -> Pairs:
        """The next batch."""
        return self.sampler.draw()

    def loss(self, batch: Pairs) -> Loss:
        """CLIP's loss; ``accuracy`` is the share of images whose highest caption is right for them."""
        images = self.towers.images(batch.images)
        texts = self.towers.texts(torch.stack([self.pooled[caption] for caption in batch.captions]))
        best = (images.detach() @ texts.detach().t()).argmax(1)
        accuracy = batch.matches[torch.arange(len(best)), best].float().mean()
        loss = contrastive_loss(images, texts, self.log_scale.exp(), batch.matches)
        return Loss("pairs", len(images), {"contrastive": loss}, {"accuracy": accuracy})

    def log(self, event: StepEvent) -> None:
        """A row of ``metrics.csv`` now and then; its steps count from 0, and ``scale`` is the inverse temperature."""
        step = event.step - 1
        if step % self.recipe.log_every == 0 or event.step == event.steps:
            self.metrics.add(step, event.loss, event.figures["accuracy"], float(self.log_scale.detach().exp()))

    def rewind(self, step: int) -> None:
        """Forget rows of later steps."""
        self.metrics.rewind(step - 1)

    def random_state(self) -> Mapping[str, Tensor]:
        """The sampler's."""
        return self.sampler.state()

    def set_random_state(self, state: Mapping[str, Tensor]) -> None:
        """The sampler's."""
        self.sampler.set_state(state)

    def finish(self, step: int, seconds: float) -> None:
        """``image_encoder``, whole or not at all; then the run's own files go.

        Beside the weights: ``metrics.csv``, and ``heldout.json`` with the recipe and :func:`heldout_recall` by split.
        """

        def fill(folder: Path) -> None:
            save_towers(self.towers, folder)
            encoder = ImageEncoder(load_towers(folder), self.text)  # as written, in half precision
            for split, data in self.heldout:
                if data.records:
                    self.measured[split] = heldout_recall(encoder, data, self.background)
            write_json(folder / "heldout.json", {"recipe": asdict(self.recipe), "heldout": self.measured})
            (folder / "metrics.csv").write_bytes(self.metrics.path.read_bytes())

        build_folder(self.result, fill)
        for path in (*checkpoints.all_in(self.folder / "checkpoints"), self.metrics.path):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a file of somebody else's stays, and its folder
            (self.folder / "checkpoints").rmdir()
            self.folder.rmdir()


def heldout_recall(encoder: ImageEncoder, data: Captioned, background: Color) -> dict[str, float]:
    """R@1 and R@5 of the right sentence for held-out images, among one sentence of each object.

    An object's sentence is its longest caption; every sentence that describes an object is right for it. The images
    are not augmented, and lie on ``background``. Also how many images and sentences there were.
    """
    owner = {max(record.captions, key=len): record for record in reversed(data.records)}
    captions = sorted(owner)
    colors = color_words(data.records)
    similar, right = [], []
    texts = encoder.embed_texts(captions)
    for record, rgba in zip(data.records, data.rgba, strict=True):
        chosen = torch.linspace(0, len(rgba) - 1, min(VIEWS_JUDGED, len(rgba))).long()
        images = over(rgba[chosen].float() / 255, torch.tensor(background))
        similar.append(encoder.embed_images(images) @ texts.t())
        right += [{j for j, text in enumerate(captions) if describes(text, owner[text], record, colors)}] * len(images)
    similarity = torch.cat(similar)
    measured = {f"R@{k}": recall_at(similarity, right, k) for k in (1, 5)}
    return {**measured, "pictures": len(similarity), "sentences": len(captions)}


def check_place(folder: Path) -> None:
    """Raises :class:`UsageError` if ``folder`` is a file, cannot be written, or has an image encoder already."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; give a folder")
    if (folder / FOLDER).exists():
        raise UsageError(f"{folder / FOLDER} exists; give another --out, or move it away")
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UsageError(f"--out {folder} cannot be written; give a folder inside one that can")


def make_trainer(
    recipe: ContrastiveRecipe,
    data: Captioned,
    prior: Path,
    out: Path,
    config: EncoderConfig | None = None,
    heldout: Iterable[tuple[str, Captioned]] = (),
) -> Trainer[ContrastiveTask]:
    """The trainer of an encoder, which resumes what is in ``out``; see :class:`ContrastiveTask`."""
    accelerator = make_accelerator()
    task = ContrastiveTask(recipe, data, prior, out, config, heldout)
    return Trainer(task, accelerator, task.folder)
