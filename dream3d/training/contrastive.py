"""Training of the contrastive encoder: CLIP's loss, without negatives that are none."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.dataset.compositing import over
from dream3d.errors import DatasetError, TrainingError, UsageError
from dream3d.evaluation.retrieval import recall_at
from dream3d.files import build_folder, write_atomically
from dream3d.prior.image_encoder import (
    FOLDER,
    EncoderConfig,
    ImageEncoder,
    Towers,
    load_towers,
    pooled_texts,
    save_towers,
)
from dream3d.prior.text import PromptEncoder
from dream3d.training.contrastive_data import BACKGROUND, Batch, Captioned, batches, caption_fits, color_words

MAX_LOG_SCALE = math.log(100)
"""CLIP's limit on the inverse temperature, against a runaway."""
VIEWS_JUDGED = 8
"""Of each held-out object, evenly spread."""


@dataclass(frozen=True)
class ContrastiveRecipe:
    """How the encoder is learnt. Raises :class:`UsageError` for numbers out of range."""

    steps: int = 2000
    batch: int = 64
    """Objects in a step; each is a negative for the others."""
    seed: int = 0
    learning_rate: float = 1e-3
    """At its peak, after the first twentieth of the steps; it ends at zero along a cosine."""
    weight_decay: float = 0.05
    log_every: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 10**7:
            raise UsageError(f"the encoder trains for 1 to 10000000 steps, got --steps {self.steps}")
        if not 2 <= self.batch <= 65536:
            raise UsageError(f"a batch holds 2 to 65536 objects, got --batch {self.batch}")
        if not 0 < self.learning_rate < 1:
            raise UsageError(f"the learning rate is between 0 and 1, got --learning-rate {self.learning_rate}")

    def rate_at(self, step: int) -> float:
        """Share of the peak learning rate at a step from 0 on."""
        warm = max(1, self.steps // 20)
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))


@dataclass(frozen=True)
class Metrics:
    """One row of ``metrics.csv``."""

    step: int
    loss: float
    accuracy: float
    """Share of the batch's pictures whose own caption, or one that fits too, scores highest."""
    scale: float
    """Inverse temperature."""


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, fits: Tensor) -> Tensor:
    """CLIP's symmetric InfoNCE of unit vectors (N, dim), pair i with pair i; a scalar.

    ``fits`` (N, N) bool: where text j describes picture i too, the pair is left out of the negatives both ways.
    """
    logits = masked_logits(images, texts, scale, fits)
    target = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


def masked_logits(images: Tensor, texts: Tensor, scale: Tensor, fits: Tensor) -> Tensor:
    """(N, N): scaled cosines, minus infinity where a pair beside the diagonal fits."""
    own = torch.eye(len(images), dtype=torch.bool, device=images.device)
    return (scale * images @ texts.t()).masked_fill(fits & ~own, float("-inf"))


def train_encoder(
    data: Captioned,
    text: PromptEncoder,
    recipe: ContrastiveRecipe,
    on_metrics: Callable[[Metrics], object] | None = None,
    config: EncoderConfig | None = None,
) -> tuple[Towers, list[Metrics]]:
    """Learn the towers on the CPU; the same data and seed give the same weights on one machine.

    ``config`` (the default with the text encoder's width if None) must fit the pictures of ``data``. Raises
    :class:`TrainingError` when the loss is not finite, :class:`DatasetError` for fewer than two objects.
    """
    config = config or EncoderConfig(text_width=text.width)
    generator = torch.Generator().manual_seed(recipe.seed)
    stream = batches(data, recipe.batch, generator)
    pooled = _Pooled(data, text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # torch's layers draw their first weights from the global generator
        towers = Towers(config)
    log_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    groups = [
        {"params": list(towers.parameters()), "weight_decay": recipe.weight_decay},
        {"params": [log_scale], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    rows = []
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * recipe.rate_at(step)
        metrics = _step(towers, log_scale, optimizer, next(stream), pooled, step)
        if step % recipe.log_every == 0 or step == recipe.steps - 1:
            rows.append(metrics())
            if on_metrics is not None:
                on_metrics(rows[-1])
    return towers.eval(), rows


class _Pooled:
    """Mean text states of every caption, made once: the text encoder is frozen."""

    def __init__(self, data: Captioned, text: PromptEncoder) -> None:
        captions = sorted({caption for record in data.records for caption in record.captions})
        self._row = {caption: row for row, caption in enumerate(captions)}
        self._states = pooled_texts(text, captions, torch.device("cpu"))

    def __call__(self, captions: Sequence[str]) -> Tensor:
        return self._states[[self._row[caption] for caption in captions]]


def _step(
    towers: Towers,
    log_scale: torch.nn.Parameter,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    pooled: _Pooled,
    step: int,
) -> Callable[[], Metrics]:
    images, texts = towers.images(batch.pictures), towers.texts(pooled(batch.captions))
    loss = contrastive_loss(images, texts, log_scale.exp(), batch.fits)
    if not bool(torch.isfinite(loss)):
        raise TrainingError(f"the loss is {loss.item()} at step {step}; lower the learning rate")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(towers.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        log_scale.clamp_(0, MAX_LOG_SCALE)

    def metrics() -> Metrics:
        best = (images.detach() @ texts.detach().t()).argmax(1)
        right = batch.fits[torch.arange(len(best)), best]
        return Metrics(step, float(loss.detach()), float(right.float().mean()), float(log_scale.detach().exp()))

    return metrics


def heldout_recall(encoder: ImageEncoder, data: Captioned) -> dict[str, float]:
    """R@1 and R@5 of the right sentence for held-out pictures, among one sentence of each object.

    An object's sentence is its longest caption; every sentence that may be said of an object is right for it. The
    pictures are undisturbed, on the agreed colour. Also how many pictures and sentences there were.
    """
    owner = {max(record.captions, key=len): record for record in reversed(data.records)}
    captions = sorted(owner)
    colors = color_words(data.records)
    similar, right = [], []
    texts = encoder.embed_texts(captions)
    for record, rgba in zip(data.records, data.rgba, strict=True):
        chosen = torch.linspace(0, len(rgba) - 1, min(VIEWS_JUDGED, len(rgba))).long()
        pictures = over(rgba[chosen].float() / 255, torch.tensor(BACKGROUND))
        similar.append(encoder.embed_images(pictures) @ texts.t())
        fits = {j for j, text in enumerate(captions) if caption_fits(text, owner[text], record, colors)}
        right += [fits] * len(pictures)
    similarity = torch.cat(similar)
    measured = {f"R@{k}": recall_at(similarity, right, k) for k in (1, 5)}
    return {**measured, "pictures": len(similarity), "sentences": len(captions)}


def write_encoder(
    folder: Path,
    towers: Towers,
    text: PromptEncoder,
    recipe: ContrastiveRecipe,
    rows: Sequence[Metrics],
    heldout: Iterator[tuple[str, Captioned]],
) -> dict[str, dict[str, float]]:
    """Write ``folder/image_encoder``, whole or not at all, and return what the written file achieves by split.

    Beside the weights: ``metrics.csv``, and ``heldout.json`` with the recipe and :func:`heldout_recall`. Raises
    :class:`UsageError` if there is one already.
    """
    check_place(folder)
    folder.mkdir(parents=True, exist_ok=True)
    measured: dict[str, dict[str, float]] = {}

    def fill(temporary: Path) -> None:
        save_towers(towers, temporary)
        encoder = ImageEncoder(load_towers(temporary), text)  # as written, in half precision
        measured.update((split, heldout_recall(encoder, data)) for split, data in heldout if data.records)
        facts = json.dumps({"recipe": asdict(recipe), "heldout": measured}, indent=1) + "\n"
        write_atomically(temporary / "heldout.json", lambda path: path.write_text(facts, encoding="utf-8"))
        write_atomically(temporary / "metrics.csv", lambda path: path.write_text(_table(rows), encoding="utf-8"))

    build_folder(folder / FOLDER, fill)
    return measured


def check_place(folder: Path) -> None:
    """Raises :class:`UsageError` if ``folder`` is a file, cannot be written, or has an image encoder already.

    For before the training, which takes long.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; give a folder")
    if (folder / FOLDER).exists():
        raise UsageError(f"{folder / FOLDER} exists; give another --out, or move it away")
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UsageError(f"--out {folder} cannot be written; give a folder inside one that can")


def check_data(data: Captioned, folders: Sequence[Path]) -> None:
    """Raises :class:`DatasetError` if there is nothing to learn from."""
    if len(data.records) < 2:
        where = ", ".join(str(folder) for folder in folders)
        raise DatasetError(
            f"{where}: {len(data.records)} training objects; the encoder needs shards train-*.tar with at least two"
        )


def _table(rows: Sequence[Metrics]) -> str:
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, list(Metrics.__dataclass_fields__), lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows)
    return buffer.getvalue()
