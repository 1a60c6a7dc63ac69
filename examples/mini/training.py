"""The training loop of `finetune.py`, its snapshots and its log."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dataset import VIEWS, Objects, diffuse
from diffusers import UNet2DConditionModel
from judge import fast_denoiser, losses, sample, save_sheet
from torch import Tensor

from dream3d.files import write_atomically
from dream3d.prior import load_prior

SHEET = (
    "wooden chair",
    "table",
    "piano",
    "christmas tree",
    "snowman",
    "car",
    "teddy bear",
    "truck",
    "armchair",
    "teapot",
    "washing machine",
    "horse",
)
"""Prompts of the sheet of samples that goes with each snapshot."""


@dataclass(frozen=True)
class Options:
    """The options of `finetune.py train`, explained there."""

    start: Path
    data: Path
    evaluation: Path
    out: Path
    minutes: float
    reserve: float
    every: float
    batch: int
    only: list[str]
    rate: float
    warmup: int
    ema: float
    tilt: float
    weight_power: float
    background: Sequence[float]
    resume: bool
    seed: int

    def trains(self, item: dict[str, Any]) -> bool:
        """Whether an object of the data is trained."""
        return not self.only or item["name"] in self.only


@dataclass(frozen=True)
class Batch:
    """What one training step shows the network."""

    noisy: Tensor
    """(objects * 4, C, h, w)."""
    target: Tensor
    """The v that the network should predict, same shape."""
    timesteps: Tensor
    """(objects * 4,)."""
    text: Tensor
    """(objects * 4, tokens, width)."""
    cameras: Tensor
    """(objects * 4, 16)."""


class Captions:
    """Token states of all captions, and the random choice among those of an object."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.all = [caption for item in items for caption in item["captions"]]
        self.own = [[self.all.index(caption) for caption in item["captions"]] for item in items]

    def choose(self, objects: list[int], rng: np.random.Generator) -> list[int]:
        """A caption for each object, or in a tenth of the cases the empty one, which follows the last.

        The bare name and "a name", which are the first two, come more often than the rarer synonyms and colours.
        """
        return [
            len(self.all)
            if rng.random() < 0.1
            else int(rng.choice(self.own[o][:2] if rng.random() < 0.3 else self.own[o]))
            for o in objects
        ]


def write_prior(
    folder: Path,
    start: Path,
    unet: UNet2DConditionModel,
    state: dict[str, Tensor],
    facts: dict[str, Any],
    attribution: Path,
) -> None:
    """A complete prior folder with the given weights, written beside and then renamed."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name in ("codec", "text_encoder", "tokenizer", "scheduler"):
        shutil.copytree(start / name, temporary / name, copy_function=shutil.copyfile)
        os.chmod(temporary / name, 0o755)  # the start may be read-only
    copy = UNet2DConditionModel.from_config(unet.config)
    copy.load_state_dict(state)
    copy.half().save_pretrained(temporary / "unet")
    (temporary / "prior.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    if attribution.exists():
        shutil.copyfile(attribution, temporary / "attribution.csv")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


class Training:
    """Network, its moving average, optimiser and data of one run; :meth:`run` trains until the deadline."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.deadline = time.time() + 60 * options.minutes
        options.out.mkdir(parents=True, exist_ok=True)
        self.step, self.trained = 0, 0.0
        self._seed(options.seed)
        self.data, self.evaluation = (Objects(f, options.background) for f in (options.data, options.evaluation))
        prior = load_prior(str(options.start))
        self.start = prior.folder
        self.captions = Captions(self.data.items)
        self.text = prior.text.encode([*self.captions.all, ""], prior.device)
        self.empty = self.text[-1:]
        self.named = self.text[[own[0] for own in self.captions.own]]
        self.sheet_text = prior.text.encode(list(SHEET), prior.device)
        self.shadow = fast_denoiser(load_prior(str(options.start)))
        """The network with the moving average of the weights, which is what is kept."""
        self.unet = fast_denoiser(prior).unet.requires_grad_(True)
        self.weights = self.shadow.channel_weights(options.weight_power)
        self.parameters = list(self.unet.parameters())
        self.averages = list(self.shadow.unet.parameters())
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=options.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.state_file = options.out / "state.pt"
        if options.resume and self.state_file.exists():
            self._resume()
        self.facts = self._facts()
        self.order: list[int] = []
        """Objects still to come before the next shuffle."""

    def _seed(self, seed: int) -> None:
        self.rng, self.generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)

    def _resume(self) -> None:
        state = torch.load(self.state_file, weights_only=True)
        self.unet.load_state_dict(state["unet"])
        self.shadow.unet.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.trained = state["step"], state["trained"]
        self._seed(self.options.seed + self.step)

    def _facts(self) -> dict[str, Any]:
        """`prior.json` of the snapshots: that of the start, with what the training changes."""
        options = self.options
        synonyms = {
            caption
            for item in self.data.items
            if options.trains(item)
            for caption in item["captions"]
            if caption in item.get("names", [item["name"]])
        }
        facts: dict[str, Any] = json.loads((self.start / "prior.json").read_text(encoding="utf-8"))
        facts.update(
            version=1,
            background=list(options.background),
            names=sorted(synonyms),
            warm_start="mini version 0",
            batch_objects=options.batch,
            objects=len(options.only or self.data.items),
        )
        return facts

    def note(self, **values: object) -> None:
        """Add a line to the log."""
        with (self.options.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"time": time.strftime("%H:%M:%S"), "step": self.step, **values}) + "\n")

    def note_losses(self) -> None:
        """Measure the moving average on the evaluation set."""
        self.note(losses=losses(self.shadow, self.evaluation, self.named, self.weights))

    def snapshot(self, name: str) -> None:
        """Write the moving average as a prior folder, the state to resume from, losses and a sheet of samples."""
        began = time.time()
        out, unet = self.options.out, self.shadow.unet
        self.facts.update(iterations=self.step, trained_seconds=round(self.trained))
        attribution = self.options.data / "attribution.csv"
        write_prior(out / name, self.start, unet, unet.state_dict(), self.facts, attribution)
        state = {
            "unet": self.unet.state_dict(),
            "ema": unet.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "trained": self.trained,
        }
        write_atomically(self.state_file, lambda path: torch.save(state, path))
        self.note_losses()
        save_sheet(sample(self.shadow, self.sheet_text, self.empty), out / f"sheet-{self.step:05d}.png")
        self.note(snapshot_seconds=time.time() - began)

    def draw(self) -> Batch:
        """The next random batch: every trained object once before any comes again."""
        options, count = self.options, self.options.batch
        while len(self.order) < count:
            trained = [index for index, item in enumerate(self.data.items) if options.trains(item)]
            self.order += self.rng.permutation(trained).tolist()
        objects, self.order = self.order[:count], self.order[count:]
        quadruples = self.rng.integers(self.data.images.shape[1], size=count).tolist()
        images, cameras = self.data.get(objects, quadruples)
        x0 = self.shadow.codec.encode(images)
        text = self.text[self.captions.choose(objects, self.rng)].repeat_interleave(VIEWS, 0)
        u = torch.rand(count, generator=self.generator)
        t = (u**options.tilt * 1000).long().clamp(max=999).repeat_interleave(VIEWS)
        noise = torch.randn(x0.shape, generator=self.generator)
        noisy, target = diffuse(x0, t, noise, self.shadow.alphas_cumprod)
        return Batch(noisy, target, t, text, cameras)

    def progress(self) -> float:
        """Share of the training time that is over, in [0, 1)."""
        left = self.deadline - self.options.reserve - time.time()
        return self.trained / (self.trained + max(left, 1e-3))

    def rate(self, progress: float) -> float:
        """Learning rate: a linear warm-up, then half a cosine over the training time."""
        warm = min(1.0, (self.step + 1) / self.options.warmup)
        return self.options.rate * warm * (0.5 + 0.5 * math.cos(math.pi * progress))

    def update(self, batch: Batch, rate: float) -> tuple[float, float]:
        """One step of the optimiser and, every other time, of the average; loss and gradient norm."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        predicted = self.unet(batch.noisy, batch.timesteps, batch.text, class_labels=batch.cameras, return_dict=False)[
            0
        ]
        loss = ((predicted.float() - batch.target).square().mean((0, 2, 3)) * self.weights).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        if self.step % 2 == 0:
            decay = min(self.options.ema, (1 + self.step) / (10 + self.step)) ** 2
            torch._foreach_lerp_(self.averages, [p.detach() for p in self.parameters], 1 - decay)
        return loss.item(), float(norm)

    def run(self) -> None:
        """Train until the deadline less the reserve, then write the last snapshots."""
        options = self.options
        if self.step == 0:
            self.note_losses()
        recent: list[float] = []
        durations: list[float] = []
        last_snapshot = began = time.time()
        while time.time() < self.deadline - options.reserve:
            batch = self.draw()
            progress = self.progress()
            rate = self.rate(progress)
            loss, norm = self.update(batch, rate)
            recent.append(loss)
            duration = time.time() - began
            durations = [*durations, duration][-50:]
            usual = float(np.median(durations))
            self.trained += min(duration, 3 * usual)  # a pause is no training time
            if self.step % 50 == 0:
                mean = sum(recent) / len(recent)
                self.note(loss=mean, rate=rate, norm=norm, seconds=usual, progress=progress)
                recent = []
            if time.time() - last_snapshot > 60 * options.every:
                self.snapshot("prior-latest")
                last_snapshot = time.time()
            began = time.time()
        self.snapshot("prior-latest")
        self.snapshot("prior-v1")
        self.note(finished=True, trained=self.trained)
