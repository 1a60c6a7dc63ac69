"""What a run leaves behind besides checkpoints: logs, sheets of samples, and the prior."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from dream3d.files import write_atomically
from dream3d.prior.unet import call_unet
from dream3d.training.data import attribution
from dream3d.training.inputs import Stock
from dream3d.training.objective import diffuse, weighted_loss
from dream3d.training.recipe import TrainingRecipe
from dream3d.training.start import write_prior

if TYPE_CHECKING:
    from dream3d.training.loop import StepEvent

METRICS = ("step", "mode", "loss", "rate", "norm", "seconds")
HELDOUT = ("step", "timestep", "loss")
LEVELS = (100, 300, 500, 700, 850, 950, 999)
"""Timesteps at which held-out losses are measured, of 1000."""
HELDOUT_OBJECTS = 36
"""Objects that they are measured on, evenly chosen."""
SHEET_PROMPTS = 8
"""Rows of a sheet of samples if the recipe names no prompts."""
SHEET_SIDE = 128


class Outputs:
    """The files of a run in its folder."""

    def __init__(self, recipe: TrainingRecipe, out: Path, stock: Stock) -> None:
        self.recipe, self.out, self.stock = recipe, out, stock
        self.prior = out / "prior"

    def truncate(self, step: int) -> None:
        """Forget rows after a step: they will be made again."""
        for name, header in (("metrics.csv", METRICS), ("heldout.csv", HELDOUT)):
            path = self.out / name
            rows = path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []
            kept = [row for row in rows if row.count(",") == len(header) - 1 and int(row.split(",")[0]) <= step]
            text = "\n".join([",".join(header), *kept]) + "\n"
            write_atomically(path, lambda temporary, text=text: temporary.write_text(text, encoding="utf-8"))  # type: ignore[misc]

    def note(self, event: StepEvent) -> None:
        """A row of ``metrics.csv``."""
        self._add(
            "metrics.csv",
            event.step,
            event.mode,
            f"{event.loss:.6g}",
            f"{event.rate:.6g}",
            f"{event.norm:.6g}",
            f"{event.seconds:.4f}",
        )

    def _add(self, name: str, *values: object) -> None:
        with (self.out / name).open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(values)

    @torch.no_grad()
    def note_heldout(self, step: int, unet: UNet2DConditionModel, channels: Tensor) -> None:
        """Rows of ``heldout.csv``: the loss on held-out objects by noise level, with the same noise each time."""
        stock = self.stock
        if not stock.heldout:
            return
        count = min(HELDOUT_OBJECTS, len(stock.heldout))
        chosen = [stock.heldout[i] for i in np.linspace(0, len(stock.heldout) - 1, count).astype(int)]
        generator, device = torch.Generator().manual_seed(1234), unet.device
        sums = dict.fromkeys((level * len(stock.alphas_cumprod) // 1000 for level in LEVELS), 0.0)
        for first in range(0, count, 8):
            part = chosen[first : first + 8]
            batch = stock.sampler.fixed(part)
            assert batch.cameras is not None  # objects have cameras
            x0 = stock.codec.encode(batch.images.to(device), generator)
            text = stock.captions.of(batch.captions, batch.views).to(device)
            for level in sums:
                noise = torch.randn(x0.shape, generator=generator).to(device)
                alpha_bar = stock.alphas_cumprod[level].expand(len(x0)).to(device)
                noisy, target = diffuse(x0, noise, alpha_bar, stock.prediction_type)
                steps = torch.full((len(x0),), level, device=device)
                predicted = call_unet(unet, noisy, steps, text, batch.cameras.flatten(0, 1).to(device), batch.views)
                loss = weighted_loss(predicted, target, torch.ones_like(alpha_bar), channels)
                sums[level] += loss.item() * len(part)
        for level, total in sums.items():
            self._add("heldout.csv", step, level, f"{total / count:.6g}")

    def note_samples(self, step: int, seconds: float, unet: UNet2DConditionModel) -> None:
        """Write the prior as it is now, and a sheet of views sampled from it."""
        from dream3d.cameras import orbit
        from dream3d.images import contact_sheet, enlarged, to_uint8, write_png
        from dream3d.prior.sampling import sample_views, sampling_for
        from dream3d.weights.loading import load_prior

        self.write_prior(step, seconds, unet)
        prior = load_prior(str(self.prior), unet.device)
        prompts = self.recipe.sample_prompts or self._names()[:SHEET_PROMPTS]
        rows = []
        for prompt in prompts:
            text = prior.encode_prompt(prior.with_suffix(prompt), "")
            views = sample_views(prior, text, orbit(prior.views), sampling_for(prior.recommended_preset), seed=0)
            rows.append(enlarged(to_uint8(views.movedim(1, -1)), SHEET_SIDE))
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        write_png(folder / f"step-{step:08d}.png", contact_sheet(rows), {"step": step, "prompts": list(prompts)})

    def finish(self, step: int, seconds: float, unet: UNet2DConditionModel) -> None:
        """The prior of the last step, with its sheet if the recipe asks for sheets."""
        if self.recipe.every.samples:
            self.note_samples(step, seconds, unet)
        else:
            self.write_prior(step, seconds, unet)

    def write_prior(self, step: int, seconds: float, unet: UNet2DConditionModel) -> None:
        """A complete prior folder with the given network, which ``dream3d views --prior`` loads."""
        path, inherited = self.stock.frozen / "attribution.csv", ""
        if path.is_file() and not self.recipe.network:  # what the start learnt from counts too
            inherited = path.read_text(encoding="utf-8")
        text = attribution(self.stock.objects, self.stock.images, inherited)
        write_prior(self.prior, self.stock.frozen, unet, self.facts(step, seconds), text)

    def facts(self, step: int, seconds: float) -> dict[str, Any]:
        """``prior.json``: that of the start, with what the training changes."""
        recipe, stock = self.recipe, self.stock
        facts: dict[str, Any] = json.loads((stock.frozen / "prior.json").read_text(encoding="utf-8"))
        background = recipe.data.background
        data = sorted({o.record.licence for o in stock.objects if o.record.licence})
        if recipe.network:
            facts["licence_weights"] = "unknown"
        facts.update(
            name=recipe.name,
            version=1,
            image_size=stock.image_size,
            latent_size=stock.latent_size,
            views=recipe.batch.views,
            background=[0.5, 0.5, 0.5] if background == "grey" else list(background),
            prompt_suffix=recipe.batch.prompt_suffix,
            attention=recipe.attention,
            names=self._names(),
            objects=len(stock.objects),
            pictures=len(stock.images),
            iterations=step,
            trained_seconds=round(seconds),
            batch_objects=recipe.batch.objects,
            warm_start="none" if recipe.network else Path(recipe.start).name,
            licence_data=", ".join([*data, "see attribution.csv"]),
            training=recipe.to_dict(),
        )
        return facts

    def _names(self) -> list[str]:
        return sorted({o.record.name for o in self.stock.objects})
