"""Compares forms of the recipe ``mini`` on a few prompts: figures in one table, pictures on one sheet per form.

    python examples/mini/tune.py --out runs/tune                       # every form, about an hour on one thread
    python examples/mini/tune.py --out runs/tune --forms shipped light --prompts "an elk skull"

Each run is one row: the mesh's IoU with the field, floaters, flat caps, how well the mesh fits the prompt (by the
prior's own image encoder), and CPU seconds. Runs that are in the table already are not done again. The sheets show
targets above the field and the mesh.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dream3d.cameras import orbit
from dream3d.finish import extract_mesh, images_of, render_views
from dream3d.generate import optimise
from dream3d.images import Picture, contact_sheet, enlarged, write_png
from dream3d.mesh.shading import shade
from dream3d.mesh.surface import cap_area
from dream3d.names import slug
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.recipe.generation import Recipe, Stage, TargetRecipe
from dream3d.recipe.presets import preset
from dream3d.recipe.scene import Linear
from dream3d.weights.loading import load_prior

PROMPTS = ("an elk skull", "a wooden chair", "a piano", "a horse", "a blue elephant", "a teapot")
COLUMNS = ("form", "prompt", "seed", "iou", "floaters", "caps", "similarity", "rank", "cpu_seconds")
SIDE = 128

Form = Callable[[Recipe], Recipe]


def rounds(**changes: object) -> Form:
    """The recipe with changes of every round's target."""
    return lambda recipe: replace(
        recipe,
        targets=tuple(
            replace(target, **changes) if target.updates is None else target  # type: ignore[arg-type]
            for target in recipe.targets
        ),
    )


def in_latents(recipe: Recipe) -> Recipe:
    """The form before the decoder: renders and targets are compared in latents, with one more level of the grid."""
    guidance, key = replace(recipe.guidance, loss="x0"), recipe.key and replace(recipe.key, weight=4000.0)
    return replace(recipe, guidance=guidance, key=key, field=replace(recipe.field, levels=6))


def tail(recipe: Recipe) -> Recipe:
    """The recipe, and then 160 updates towards targets from little noise."""
    more = (
        TargetRecipe(240, updates=5, denoise_steps=2, noise=0.5),
        TargetRecipe(330, updates=5, denoise_steps=2, noise=0.3),
    )
    field, stages = replace(recipe.field, sharpness=Linear(1.0, 40.0, 322)), (*recipe.stages, Stage(240, 64, 1))
    return replace(recipe, steps=400, field=field, stages=stages, targets=(*recipe.targets, *more))


def one_round(recipe: Recipe) -> Recipe:
    """Twelve views from noise, drawn together; then 64 targets of four views at 70, 50 and 30 % noise."""
    targets = (
        TargetRecipe(0, None, 12, 3, 16, 1.0, (15.0,)),
        TargetRecipe(180, updates=5, denoise_steps=3, noise=0.7),
        TargetRecipe(300, updates=5, denoise_steps=2, noise=0.5),
        TargetRecipe(420, updates=5, denoise_steps=2, noise=0.3),
    )
    stages = (Stage(0, 32, 1), Stage(80, 48, 1), Stage(300, 64, 1))
    guidance = replace(recipe.guidance, rescale=0.7)
    field = replace(recipe.field, levels=5, sharpness=Linear(1.0, 40.0, 322))
    return replace(recipe, steps=500, stages=stages, field=field, guidance=guidance, targets=targets)


def three_rounds(recipe: Recipe) -> Recipe:
    """Twelve views from noise, then twice from the field's own renders; then a short polish."""
    recipe = one_round(recipe)
    targets = (
        TargetRecipe(0, None, 12, 3, 16, 1.0, (15.0,)),
        TargetRecipe(180, None, 12, 3, 6, 0.7, (5.0,)),
        TargetRecipe(330, None, 12, 3, 5, 0.4, (35.0,)),
        TargetRecipe(440, updates=4, denoise_steps=2, noise=0.3),
    )
    return replace(recipe, steps=540, targets=targets, stages=(*recipe.stages[:2], Stage(330, 64, 1)))


def each(setting: str, *values: object) -> Form:
    """The recipe's first rounds alone, as many as there are values of this setting of their targets."""

    def changed(recipe: Recipe) -> Recipe:
        pairs = zip(recipe.targets, values, strict=False)
        targets = tuple(replace(target, **{setting: value}) for target, value in pairs)  # type: ignore[arg-type]
        return replace(recipe, targets=targets)

    return changed


def steps(*counts: int) -> Form:
    """The recipe with other numbers of denoising steps, round by round."""
    return each("denoise_steps", *counts)


def noises(*levels: float) -> Form:
    """The recipe with other starts of denoising, round by round."""
    return each("noise", *levels)


def starts(*from_steps: int) -> Form:
    """The recipe's first rounds alone, from other steps."""
    return each("from_step", *from_steps)


def guidance(**changes: float) -> Form:
    """The recipe with changes of the guidance."""
    return lambda recipe: replace(recipe, guidance=replace(recipe.guidance, **changes))  # type: ignore[arg-type]


def size(pixels: int) -> Form:
    """The recipe with other last renders."""
    return lambda recipe: replace(recipe, stages=(recipe.stages[0], replace(recipe.stages[-1], resolution=pixels)))


def both(*forms: Form) -> Form:
    """One change after the other."""

    def changed(recipe: Recipe) -> Recipe:
        for form in forms:
            recipe = form(recipe)
        return recipe

    return changed


def field(**changes: int) -> Form:
    """The recipe with changes of the field."""
    return lambda recipe: replace(recipe, field=replace(recipe.field, **changes))  # type: ignore[arg-type]


def prototype(recipe: Recipe) -> Recipe:
    """Four rounds, four views an update at 64 pixels, six levels, occupancy updated at each step."""
    numbers = ((0, 25, 1.0, 15.0), (160, 10, 0.75, 5.0), (260, 8, 0.55, 25.0), (360, 6, 0.4, 15.0))
    targets = tuple(TargetRecipe(at, None, 12, 4, count, noise, (high,)) for at, count, noise, high in numbers)
    recipe = one_round(recipe)
    render = replace(recipe.render, occupancy_every=1, occupancy_warmup=8)
    stages = (Stage(0, 32, 1), Stage(80, 64, 1))
    return replace(recipe, targets=targets, render=render, stages=stages, field=replace(recipe.field, levels=6))


MEDIUM = both(prototype, rounds(views_per_update=3), size(48), steps(16, 6, 5, 4))
LIGHT = both(MEDIUM, rounds(views=8))

FORMS: dict[str, Form] = {
    "shipped": lambda recipe: recipe,
    "in latents": in_latents,
    "a tail of little noise": tail,
    "one round, then small targets": one_round,
    "three rounds and a polish": three_rounds,
    "three rounds alone": lambda recipe: replace(
        three_rounds(recipe), steps=440, targets=three_rounds(recipe).targets[:3]
    ),
    "6 denoising steps": steps(6),
    "6 levels": field(levels=6),
    "guidance 3": guidance(guidance_scale=3.0),
    "guidance 8": guidance(guidance_scale=8.0),
    "120 updates": lambda recipe: recipe.with_steps(120),
    "one round, less noise": both(one_round, noises(1.0, 0.55, 0.4, 0.2)),
    "one round, more noise": both(one_round, noises(1.0, 0.85, 0.6, 0.4)),
    "300 updates": lambda recipe: recipe.with_steps(300),
    # Of three rounds.
    "one round": both(three_rounds, starts(0)),
    "two rounds": both(three_rounds, starts(0, 230)),
    "8 views": both(three_rounds, rounds(views=8)),
    "16 views": both(three_rounds, rounds(views=16)),
    "four views an update, 64 px": both(three_rounds, rounds(views_per_update=4), size(64)),
    "elevations 0 and 30 in each round": both(three_rounds, rounds(elevations_deg=(0.0, 30.0))),
    # What the prototype had, and what led from there to the shipped one.
    "prototype": prototype,
    "prototype, two rounds": both(prototype, starts(0, 230)),
    "light": LIGHT,
    "light, elevations 0 and 30": both(LIGHT, rounds(elevations_deg=(0.0, 30.0))),
    "light, two rounds": both(LIGHT, starts(0, 230)),
    "light, three rounds": both(LIGHT, starts(0, 180, 320), noises(1.0, 0.7, 0.4)),
    "medium": MEDIUM,
    "medium, 5 levels": both(MEDIUM, field(levels=5)),
    "medium, 5 levels, two rounds": both(MEDIUM, field(levels=5), starts(0, 230)),
    "medium, 5 levels, three rounds": both(MEDIUM, field(levels=5), starts(0, 180, 330), noises(1.0, 0.7, 0.4)),
}


def sheet(images: list[Picture]) -> Picture:
    """Rows of four pictures, all of one size."""
    return contact_sheet([enlarged(row, SIDE) for row in images])


def run(form: str, prompt: str, seed: int, prior: DiffusionPrior, out: Path) -> dict[str, object]:
    """One run: its row of the table; its pictures are written."""
    recipe, started = FORMS[form](preset("mini")), time.process_time()
    state = optimise(prompt, prior, recipe, seed, "cpu")
    seconds = time.process_time() - started
    mesh, floaters = extract_mesh(state.scene, recipe.mesh)
    likeness = prior.likeness(prompt, images_of(mesh, prior))
    cameras = orbit(4, elevation_deg=15)
    shaded = shade(*mesh.skin, cameras, SIDE, SIDE, supersample=2)
    pictures = [images.numpy() for images in state.shown_targets] + [render_views(state.scene, 4, 64), shaded]
    write_png(out / f"{slug(form)}-{slug(prompt)}-{seed}.png", sheet(pictures))
    fit = (likeness.similarity, likeness.rank) if likeness else (0.0, 0)
    figures = [f"{figure:.4f}" for figure in (mesh.iou, floaters, cap_area(mesh.surface), fit[0])]
    values = [form, prompt, seed, *figures, fit[1], f"{seconds:.0f}"]
    return dict(zip(COLUMNS, values, strict=False))


def main() -> None:
    """Add the runs that are missing to the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--prompts", nargs="+", default=PROMPTS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    table, prior = arguments.out / "table.csv", load_prior("mini")
    done = set[tuple[str, ...]]()
    if table.exists():
        with table.open(newline="", encoding="utf-8") as file:
            done = {(row["form"], row["prompt"], row["seed"]) for row in csv.DictReader(file)}
    with table.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not done:
            writer.writeheader()
        for form in arguments.forms:
            for prompt in arguments.prompts:
                if (form, prompt, str(arguments.seed)) not in done:
                    writer.writerow(run(form, prompt, arguments.seed, prior, arguments.out))
                    file.flush()


if __name__ == "__main__":
    main()
