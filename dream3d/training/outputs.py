"""What the training of a prior leaves behind besides logs: the prior, and sheets of samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from dream3d.cameras import orbit
from dream3d.dataset.licences import licence_names
from dream3d.images import contact_sheet, enlarged, to_uint8, write_png
from dream3d.prior.sampling import sample_views, sampling_for
from dream3d.prior.schema import read_json
from dream3d.training.data import attribution
from dream3d.training.inputs import FrozenInputs
from dream3d.training.recipe import TrainingRecipe
from dream3d.training.start import write_prior
from dream3d.weights.loading import load_prior

SHEET_PROMPTS = 8
"""Rows of a sheet of samples if the recipe names no prompts."""
SHEET_SIDE = 128


def write_trained_prior(
    folder: Path,
    recipe: TrainingRecipe,
    inputs: FrozenInputs,
    unet: UNet2DConditionModel,
    step: int,
    seconds: float,
    more: Callable[[Path], None] = lambda folder: None,
) -> None:
    """A complete prior folder with the given network, which ``dream3d views --prior`` loads; ``more`` as there."""
    path, inherited = inputs.folder / "attribution.csv", ""
    if path.is_file() and not recipe.network:  # what the start learnt from counts too
        inherited = path.read_text(encoding="utf-8")
    text = attribution(inputs.objects, inputs.images, inherited)
    write_prior(folder, inputs.folder, unet, prior_facts(recipe, inputs, step, seconds), text, more)


def prior_facts(recipe: TrainingRecipe, inputs: FrozenInputs, step: int, seconds: float) -> dict[str, Any]:
    """``prior.json``: that of the start, with what the training changes."""
    facts = read_json(inputs.folder / "prior.json")
    background = recipe.data.background
    if recipe.network:
        facts["licence_weights"] = "unknown"
    facts.update(
        name=recipe.name,
        version=1,
        image_size=inputs.image_size,
        latent_size=inputs.latent_size,
        views=recipe.batch.views,
        background=[0.5, 0.5, 0.5] if background == "grey" else list(background),
        prompt_suffix=recipe.batch.prompt_suffix,
        attention=recipe.attention,
        names=names_in(inputs),
        objects=len(inputs.objects),
        pictures=len(inputs.images),
        iterations=step,
        trained_seconds=round(seconds),
        batch_objects=recipe.batch.objects,
        warm_start="none" if recipe.network else Path(recipe.start).name,
        licence_data=licences_in(inputs),
        training=recipe.to_dict(),
    )
    return facts


def licences_in(inputs: FrozenInputs) -> str:
    """Licences of the objects, in a line."""
    return ", ".join([*licence_names(one.record.licence for one in inputs.objects), "see attribution.csv"])


def names_in(inputs: FrozenInputs) -> list[str]:
    """What the objects are called, each name once."""
    return sorted({o.record.name for o in inputs.objects})


def write_sheet(
    out: Path, prior: Path, recipe: TrainingRecipe, inputs: FrozenInputs, step: int, device: torch.device
) -> None:
    """A sheet of the prior in a folder, in ``samples`` of the run's folder, if the recipe asks for sheets."""
    if recipe.every.samples:
        prompts = recipe.sample_prompts or tuple(names_in(inputs)[:SHEET_PROMPTS])
        write_samples(out / "samples" / f"step-{step:08d}.png", prior, prompts, step, device)


def write_samples(path: Path, folder: Path, prompts: tuple[str, ...], step: int, device: torch.device) -> None:
    """A sheet of views sampled from the prior in a folder, a row for each prompt."""
    prior = load_prior(str(folder), device)
    rows = []
    for prompt in prompts:
        text = prior.encode_prompt(prior.with_suffix(prompt), "")
        views = sample_views(prior, text, orbit(prior.views), sampling_for(prior.recommended_preset), seed=0)
        rows.append(enlarged(to_uint8(views.movedim(1, -1)), SHEET_SIDE))
    path.parent.mkdir(exist_ok=True)
    write_png(path, contact_sheet(rows), {"step": step, "prompts": list(prompts)})
