"""MV-DreamBooth: a prior's UNet learns one thing from photos of it (Shi et al. 2023, section 3.4)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dream3d.errors import UsageError
from dream3d.images import Picture, enlarged, side_by_side, to_uint8, write_png
from dream3d.personalise.lora import add_lora, lora_changes, lora_parameters
from dream3d.personalise.photos import PhotoSet
from dream3d.personalise.recipe import CLASS_PLACE, TOKEN_PLACE, DreamBoothRecipe
from dream3d.personalise.samples import as_tensor, draw_views, encoder_of, likeness, rose
from dream3d.personalise.words import Subject
from dream3d.prior.codec import PatchPCA
from dream3d.prior.unet import call_unet
from dream3d.run import checkpoints
from dream3d.training.events import StepEvent
from dream3d.training.logs import StepLog
from dream3d.training.loop import Trainer, make_accelerator
from dream3d.training.objective import channel_weights, diffuse, draw_timesteps, mean_change, weighted_loss
from dream3d.training.personalised import RUN_FOLDER, Base, write_adapter, write_full
from dream3d.training.task import Loss, Task, Trained

if TYPE_CHECKING:
    from accelerate import Accelerator

CAMERA_NETWORK = "class_embedding."
"""Of the UNet's parameters: photos have no camera, so only the decay of weights would change it."""
SHEET_SIDE = 128


@dataclass(frozen=True)
class Pictures:
    """What is learnt from."""

    photos: PhotoSet
    of_class: Picture | None = None
    """(N, S, S, 3) pictures of the class; None for none."""


@dataclass(frozen=True)
class Batch:
    """What one step shows the network: photos, and after them pictures of the class."""

    images: Tensor
    """(N, 3, S, S) in [-1, 1]."""
    captions: list[str]
    photos: int
    """How many of them are photos."""
    noise_seed: int


class DreamBoothTask(Task[Batch]):
    """A UNet, or small matrices beside it, on photos of one thing in image mode."""

    advice = "lower the rate (--set rate=...)"
    free = ("checkpoint_every",)

    def __init__(
        self,
        recipe: DreamBoothRecipe,
        subject: Subject,
        pictures: Pictures,
        base: Base,
        out: Path,
        accelerator: Accelerator,
    ) -> None:
        """``base`` is in float32, and its UNet is what trains. ``out`` gets the prior, and a folder of the run."""
        if accelerator.num_processes > 1:
            raise UsageError("dreambooth trains in one process; start it without a launcher")
        self.recipe, self.subject, self.pictures, self.base = recipe, subject, pictures, base
        self.steps, self.checkpoint_every = recipe.steps, recipe.checkpoint_every
        self.result, self.folder = out, out / RUN_FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prior, self.encoder, self.scores = base.prior, encoder_of(base.prior), list[float]()
        self.unet, self.count = base.prior.unet, sum(p.numel() for p in base.prior.unet.parameters())
        self.lora = add_lora(self.unet, recipe.rank, recipe.seed) if recipe.method == "lora" else None
        self.trained = self._trained()
        self.start = {} if self.lora else {n: p.detach().clone() for n, p in self.trained.parameters.items()}
        """The weights before the first step, theta0."""
        self.photos = as_tensor(pictures.photos.pictures)
        self.shown = (
            self.photos if pictures.of_class is None else torch.cat([self.photos, as_tensor(pictures.of_class)])
        )
        self.captions = self._captions()
        codec, device = base.prior.codec, base.prior.device
        scale = codec.scale if isinstance(codec, PatchPCA) else torch.ones(codec.channels, device=device)
        self.channels = channel_weights(scale, recipe.channel_power)
        self.metrics = StepLog(
            self.folder / "metrics.csv", ("step", "loss", "photos", "class", "preservation", "seconds")
        )
        self.identity = StepLog(self.folder / "identity.csv", ("step", "identity"))

    def _trained(self) -> Trained:
        parameters: dict[str, nn.Parameter] = lora_parameters(self.unet)
        if self.lora is None:
            named = self.unet.named_parameters()
            parameters = {name: value for name, value in named if not name.startswith(CAMERA_NETWORK)}
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(
            list(parameters.values()), lr=self.recipe.rate, weight_decay=self.recipe.weight_decay
        )
        return Trained("unet", parameters, optimizer, list(parameters.values()), self.recipe.clip)

    def _captions(self) -> dict[str, Tensor]:
        """Token states (tokens, width) of every sentence that is shown."""
        sentences = [of(one, self.subject) for one in self.recipe.captions for of in (photo_caption, class_caption)]
        states = self.prior.text.encode(sentences, self.prior.device)
        return dict(zip(sentences, states, strict=True))

    def settings(self) -> dict[str, Any]:
        """The recipe, and what tells whether all else is the same."""
        of_class = self.pictures.of_class
        inputs = {
            "subject": asdict(self.subject),
            "photos": self.pictures.photos.digest,
            "class": "" if of_class is None else hashlib.sha256(of_class.tobytes()).hexdigest(),
            "base": self.base.digest,
        }
        return {**self.recipe.to_dict(), **inputs}

    def rate(self, step: int) -> float:
        """The same in every step."""
        return self.recipe.rate

    def draw(self, step: int) -> Batch:
        """Some photos and some pictures of the class, each as seldom twice as possible."""
        recipe, rng = self.recipe, np.random.default_rng([self.recipe.seed, step])
        photos = _some(len(self.photos), recipe.batch, rng)
        of_class = _some(len(self.shown) - len(self.photos), recipe.class_batch, rng)
        templates = [
            recipe.captions[int(i)] for i in rng.integers(len(recipe.captions), size=len(photos) + len(of_class))
        ]
        captions = [photo_caption(one, self.subject) for one in templates[: len(photos)]]
        captions += [class_caption(one, self.subject) for one in templates[len(photos) :]]
        rows = [*photos, *(len(self.photos) + i for i in of_class)]
        return Batch(self.shown[rows] * 2 - 1, captions, len(photos), int(rng.integers(2**63)))

    def loss(self, batch: Batch) -> Loss:
        """LDM's loss of the photos and of the class, and how far the weights have moved."""
        recipe, prior, device = self.recipe, self.prior, self.prior.device
        generator = torch.Generator().manual_seed(batch.noise_seed)
        with torch.no_grad():
            x0 = prior.codec.encode(batch.images.to(device), generator)
        total = len(prior.alphas_cumprod)
        timesteps = draw_timesteps(torch.rand(len(x0), generator=generator), recipe.tilt, total)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        alpha_bar = prior.alphas_cumprod[timesteps].float().to(device)
        noisy, target = diffuse(x0, noise, alpha_bar, prior.prediction_type)
        text = torch.stack([self.captions[caption] for caption in batch.captions])
        predicted = call_unet(self.unet, noisy, timesteps.to(device), text, None)
        equal = torch.ones_like(alpha_bar)
        terms = {}
        for name, part, weight in (
            ("photos", slice(None, batch.photos), 1.0),
            ("class", slice(batch.photos, None), recipe.class_weight),
        ):
            if len(equal[part]) and weight:
                terms[name] = weight * weighted_loss(predicted[part], target[part], equal[part], self.channels)
        if recipe.preservation:
            terms["preservation"] = recipe.preservation * mean_change(self._changes(), self.count)
        return Loss("image", len(x0), terms)

    def _changes(self) -> list[Tensor]:
        """Theta - theta0 of all weights that can change."""
        if self.lora is not None:
            return list(lora_changes(self.unet))
        return [value - self.start[name] for name, value in self.trained.parameters.items()]

    def log(self, event: StepEvent) -> None:
        """A row of ``metrics.csv``; terms that there are not are empty."""
        terms = {"photos": event.loss} if not event.figures else event.figures
        numbers = (f"{terms[name]:.6g}" if name in terms else "" for name in ("photos", "class", "preservation"))
        self.metrics.add(event.step, f"{event.loss:.6g}", *numbers, f"{event.seconds:.3f}")

    def rewind(self, step: int) -> None:
        """Forget rows of later steps."""
        self.metrics.rewind(step)
        self.identity.rewind(step)

    def write(self, step: int, seconds: float) -> None:
        """Views of the thing and their identity score now and then; the run ends when the score stops rising."""
        if not self.recipe.sample_every or step % self.recipe.sample_every:
            return
        views = draw_views(self.prior, f"a photo of {self.subject.name}", self.recipe.seed)
        sheet = enlarged(to_uint8(views.movedim(1, -1)), SHEET_SIDE)
        (self.folder / "samples").mkdir(exist_ok=True)
        write_png(self.folder / "samples" / f"step-{step:06d}.png", side_by_side(sheet), {"step": step})
        if self.encoder is not None:
            self.scores.append(likeness(self.encoder, views, self.photos))
            self.identity.add(step, f"{self.scores[-1]:.4f}")
            self._stop_if_done()

    def _stop_if_done(self) -> None:
        if not rose(self.scores, self.recipe.patience, self.recipe.rise):
            self.steps = len(self.scores) * self.recipe.sample_every

    def random_state(self) -> Mapping[str, Tensor]:
        """The scores: they decide when the run ends."""
        return {"scores": torch.tensor(self.scores, dtype=torch.float64)}

    def set_random_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the scores of before."""
        self.scores = state["scores"].tolist()
        self._stop_if_done()

    def finish(self, step: int, seconds: float) -> None:
        """The prior or the adapter, whole or not at all; then the checkpoints go."""
        record = {
            **asdict(self.subject),
            "steps": step,
            "seconds": round(seconds),
            "photos": [photo.name for photo in self.pictures.photos.photos],
            "identity": self.scores,
            "recipe": self.recipe.to_dict(),
        }
        facts = self.base.facts(self.result, self.subject, record)
        if self.lora is None:
            write_full(self.result, self.base, facts)
        else:
            write_adapter(self.result, self.base, facts, self.lora)
        for path in checkpoints.all_in(self.folder / "checkpoints"):
            path.unlink(missing_ok=True)


def photo_caption(template: str, subject: Subject) -> str:
    """A sentence about a photo."""
    return template.replace(TOKEN_PLACE, subject.token).replace(CLASS_PLACE, subject.kind)


def class_caption(template: str, subject: Subject) -> str:
    """The sentence about a picture of the class: the same without the token."""
    return template.replace(f"{TOKEN_PLACE} ", "").replace(TOKEN_PLACE, "").replace(CLASS_PLACE, subject.kind)


def _some(count: int, wanted: int, rng: np.random.Generator) -> Sequence[int]:
    """``wanted`` of ``count`` numbers, none twice before all were there; empty if there are none."""
    rounds = -(-wanted // count) if count else 0
    order: list[int] = [int(i) for _ in range(rounds) for i in rng.permutation(count)]
    return order[:wanted]


def make_trainer(
    recipe: DreamBoothRecipe, subject: Subject, pictures: Pictures, base: Base, out: Path
) -> Trainer[DreamBoothTask]:
    """The trainer of a personalisation, which resumes what is in ``out``; see :class:`DreamBoothTask`."""
    accelerator = make_accelerator(base.prior.device.type)
    task = DreamBoothTask(recipe, subject, pictures, base, out, accelerator)
    return Trainer(task, accelerator, task.folder)
