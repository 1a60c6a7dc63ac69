"""MV-DreamBooth: a prior's UNet learns one thing from photos of it (Shi et al. 2023, section 3.4)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dream3d.errors import UsageError
from dream3d.guidance import diffuse
from dream3d.images import Picture, enlarged, side_by_side, to_uint8, write_png
from dream3d.personalise.keep import Asked, answers, ask, captions_of
from dream3d.personalise.lora import add_lora, lora_changes, lora_parameters
from dream3d.personalise.photos import PhotoSet
from dream3d.personalise.recipe import CLASS_PLACE, TOKEN_PLACE, DreamBoothRecipe
from dream3d.personalise.samples import as_tensor, cameras_of, draw_views, encoder_of, likeness, rose
from dream3d.personalise.words import Subject
from dream3d.prior.unet import call_unet
from dream3d.run import checkpoints
from dream3d.training.denoising import weights_of_latents
from dream3d.training.events import StepEvent
from dream3d.training.logs import StepLog
from dream3d.training.loop import Trainer, make_accelerator
from dream3d.training.objective import draw_timesteps, mean_change, mean_change_from, weighted_loss
from dream3d.training.optimizers import make_adamw
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
    """(N, S, S, 3) single pictures of the class; None for none."""
    class_views: Picture | None = None
    """(sets, views, S, S, 3) of the class as the frozen prior draws it; None for none."""

    def digest(self) -> str:
        """SHA-256 of all pictures."""
        parts = (self.photos.pictures, self.of_class, self.class_views)
        whole = b"|".join(b"" if part is None else part.tobytes() for part in parts)
        return hashlib.sha256(whole).hexdigest()


@dataclass(frozen=True)
class Batch:
    """What one step shows the network: photos, and after them pictures of the class."""

    images: Tensor
    """(N, 3, S, S) in [-1, 1]."""
    captions: list[str]
    photos: int
    """How many of them are photos."""
    asked: Asked | None
    """Of views of the class, beside these pictures."""
    noise_seed: int


class DreamBoothTask(Task[Batch]):
    """A UNet, or small matrices beside it, on photos of one thing in image mode."""

    advice = "lower the rate (--set rate=...)"
    free = ("checkpoint_every",)
    defaults: ClassVar[Mapping[str, Any]] = {"optimizer_bits": 32}

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
        needed = recipe.method == "full" or pictures.class_views is not None
        self.frozen = copy.deepcopy(self.unet) if needed else None
        """The network before the first step; its weights are theta0."""
        self.lora = add_lora(self.unet, recipe.rank, recipe.seed) if recipe.method == "lora" else None
        self.trained = self._trained()
        self.start = dict(self.frozen.named_parameters()) if self.frozen is not None else {}
        self.photos = as_tensor(pictures.photos.pictures)
        of_class, views = pictures.of_class, pictures.class_views
        self.shown = self.photos if of_class is None else torch.cat([self.photos, as_tensor(of_class)])
        self.views = None if views is None else torch.stack([as_tensor(one) for one in views])
        self.names = captions_of(subject, self.prior.settings.names, self.prior.settings.prompt_suffix)
        self.captions = self._captions()
        self.channels = weights_of_latents(self.prior.codec, recipe.channel_power, self.prior.device)
        columns = ("step", "loss", "photos", "class", "keep", "preservation", "seconds")
        self.metrics = StepLog(self.folder / "metrics.csv", columns)
        self.identity = StepLog(self.folder / "identity.csv", ("step", "identity"))

    def _trained(self) -> Trained:
        parameters: dict[str, nn.Parameter] = lora_parameters(self.unet)
        if self.lora is None:
            named = self.unet.named_parameters()
            parameters = {name: value for name, value in named if not name.startswith(CAMERA_NETWORK)}
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        recipe = self.recipe
        optimizer = make_adamw(parameters.values(), recipe.rate, recipe.weight_decay, recipe.optimizer_bits)
        return Trained("unet", parameters, optimizer, list(parameters.values()), self.recipe.clip)

    def _captions(self) -> dict[str, Tensor]:
        """Token states (tokens, width) of every sentence that is shown."""
        sentences = [of(one, self.subject) for one in self.recipe.captions for of in (photo_caption, class_caption)]
        sentences += self.names if self.views is not None else []
        states = self.prior.text.encode(sentences, self.prior.device)
        return dict(zip(sentences, states, strict=True))

    def settings(self) -> dict[str, Any]:
        """The recipe, and what tells whether all else is the same."""
        inputs = {"subject": asdict(self.subject), "pictures": self.pictures.digest(), "base": self.base.digest}
        return {**self.recipe.to_dict(), **inputs}

    def rate(self, step: int) -> float:
        """A linear rise, then the same in every step."""
        return self.recipe.rate * min(1.0, (step + 1) / max(1, self.recipe.warmup))

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
        asked = None if self.views is None else ask(len(self.views), self.names, rng)
        return Batch(self.shown[rows] * 2 - 1, captions, len(photos), asked, int(rng.integers(2**63)))

    def loss(self, batch: Batch) -> Loss:
        """LDM's loss of photos and class pictures, the difference to frozen answers, and how far the weights moved."""
        recipe, generator = self.recipe, torch.Generator().manual_seed(batch.noise_seed)
        text = torch.stack([self.captions[caption] for caption in batch.captions])
        noisy, target, timesteps = self._noised(batch.images, len(batch.images), generator)
        predicted = call_unet(self.unet, noisy, timesteps, text, None)
        photos, of_class = slice(None, batch.photos), slice(batch.photos, None)
        terms = {"photos": self._error(predicted[photos], target[photos])}
        if len(predicted[of_class]) and recipe.class_weight:
            terms["class"] = recipe.class_weight * self._error(predicted[of_class], target[of_class])
        count = len(batch.images)
        if batch.asked is not None and self.views is not None and recipe.keep_weight:
            views = self.views[batch.asked.index] * 2 - 1
            noisy, _, timesteps = self._noised(views, 1, generator)
            words, cameras = self.captions[batch.asked.caption], cameras_of(self.prior)
            pair = answers(self.unet, self.frozen, noisy, timesteps, words, cameras)
            terms["keep"], count = recipe.keep_weight * self._error(*pair), count + len(views)
        if recipe.preservation:
            terms["preservation"] = recipe.preservation * self._mean_change()
        return Loss("image", count, terms)

    def _noised(self, images: Tensor, levels: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents (N, C, h, w) of images in [-1, 1], what the network should say to them, and timesteps (N,).

        There are ``levels`` timesteps: one for each image, or one for all.
        """
        recipe, prior, device = self.recipe, self.prior, self.prior.device
        with torch.no_grad():
            x0 = prior.codec.encode(images.to(device), generator)
        uniform = torch.rand(levels, generator=generator).expand(len(x0))
        timesteps = draw_timesteps(uniform, recipe.tilt, len(prior.alphas_cumprod))
        noise = torch.randn(x0.shape, generator=generator).to(device)
        alpha_bar = prior.alphas_cumprod[timesteps].float().to(device)
        noisy, target = diffuse(x0, noise, alpha_bar, prior.prediction_type)
        return noisy, target, timesteps.to(device)

    def _error(self, predicted: Tensor, target: Tensor) -> Tensor:
        """All levels count alike."""
        return weighted_loss(predicted, target, torch.ones(len(target), device=target.device), self.channels)

    def _mean_change(self) -> Tensor:
        """Of theta - theta0, over all weights."""
        if self.lora is not None:
            return mean_change(lora_changes(self.unet), self.count)
        pairs = ((value, self.start[name]) for name, value in self.trained.parameters.items())
        return mean_change_from(pairs, self.count)

    def log(self, event: StepEvent) -> None:
        """A row of ``metrics.csv``; terms that there are not are empty."""
        terms = {"photos": event.loss} if not event.figures else event.figures
        numbers = (
            f"{terms[name]:.6g}" if name in terms else "" for name in ("photos", "class", "keep", "preservation")
        )
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
