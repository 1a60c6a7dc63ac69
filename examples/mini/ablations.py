"""The ablations of MVDream's paper at the scale of a laptop: trains all variants, measures them, writes one report.

    python ablations.py --views build/made --judge build/encoder --out build/ablations
    python ablations.py --views build/made --judge build/encoder --out build/ablations-mini --start mini --steps 200

Every variant goes on from one model and differs from the main one in one thing: the attention over views (Figure 4),
the number of views (Figure 8), the 2D data in training (Table 1). The 2D data show six concepts that the 3D data lack.
As in the paper, the model to go on from is a 2D one, trained first; `--start` takes a trained prior instead. The main
variant, or that trained prior, is then sampled with more views than it was trained on (Figure 11). Stopped, it goes on
where it was. See docs/ablations.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dream3d.dataset.images import ImageOptions, images_from_objects, write_image_shards
from dream3d.dataset.shards import ObjectViews, object_members, shard_name, write_tar
from dream3d.errors import Dream3DError
from dream3d.evaluation.losses import camera_sensitivity
from dream3d.evaluation.protocols.judging import recalls
from dream3d.evaluation.protocols.priors import read_split
from dream3d.evaluation.protocols.views import ManyViews, draw, many_views, mean_consistency, mean_difference
from dream3d.files import write_atomically
from dream3d.images import write_png
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.image_encoder import ImageEncoder, load_image_encoder
from dream3d.report.sheet import labelled_sheet
from dream3d.report.tables import number, table
from dream3d.training.recipe import TrainingRecipe, read_recipe
from dream3d.training.tasks.multiview import train
from dream3d.weights.loading import find_folder, load_prior

IN_3D = ("dog", "duck", "house", "human skull", "mug", "rocket", "train", "airplane")
ONLY_IN_2D = ("elephant", "penguin", "castle", "cactus", "teapot", "fish")
SEEDS = (0, 1)
SHOWN = 3
"""Prompts on a sheet."""


@dataclass(frozen=True)
class Variant:
    """One run and what it changes in the recipe."""

    name: str
    title: str
    changes: tuple[str, ...] = ()


MAIN = Variant("main", "3D attention, 4 views, with 2D data")
VARIANTS = (
    MAIN,
    Variant("attention-2d", "2D attention", ('attention="2d"',)),
    Variant("attention-temporal", "temporal attention", ('attention="temporal"',)),
    Variant("views-1", "1 view", ("batch.views=1", "batch.objects=24")),
    Variant("views-2", "2 views", ("batch.views=2", "batch.objects=12")),
    Variant("no-2d-data", "without 2D data", ("batch.image_mode_fraction=0.0",)),
)
SHEETS = {
    "attention": ("attention-2d", "attention-temporal", "main"),
    "views": ("views-1", "views-2", "main"),
    "2d-data": ("no-2d-data", "main"),
}


@dataclass(frozen=True)
class Figures:
    """What is measured of one variant; means over prompts and seeds."""

    consistency: float
    """How well four outlines fit one solid, 0..1."""
    differ: float
    """Share of neighbouring views that differ."""
    pixels: float
    """x0 error on held-out objects of the 3D concepts."""
    camera: float
    """The same error with every camera turned by 90 degrees, over that with the right ones: 1 ignores cameras."""
    recall_3d: float
    """R@1 of views of concepts in the 3D data."""
    recall_2d: float
    """R@1 of views of concepts that only the 2D data show."""


def write_data(folders: Sequence[Path], out: Path) -> None:
    """Shards of the concepts chosen: views of those in 3D, images of all."""
    if (out / "views" / shard_name("heldout", 0)).exists():
        return
    train_objects = [o for o in read_split(folders, ["train"]) if o.record.name in IN_3D + ONLY_IN_2D]
    heldout = [o for o in read_split(folders, ["heldout"]) if o.record.name in IN_3D]
    (out / "views").mkdir(parents=True, exist_ok=True)
    images = images_from_objects(train_objects, ImageOptions(size=64, per_object=12))
    write_image_shards(images, out / "images", 1000)
    in_3d = [o for o in train_objects if o.record.name in IN_3D]
    for split, chosen in (("train", in_3d), ("heldout", heldout)):
        write_tar(out / "views" / shard_name(split, 0), [member for o in chosen for member in object_members(o)])


def recipe_of(variant: Variant, data: Path, start: Path, steps: int) -> TrainingRecipe:
    """The recipe of a variant that goes on from the model in ``start``."""
    shared = [f'data.views="{data / "views"}"', f'data.images="{data / "images"}"']
    own = [
        f'start="{start}"',
        f"steps={steps}",
        'attention="3d"',
        "batch.image_mode_fraction=0.3",
        "optimizer.rate=5e-4",
    ]
    recipe = read_recipe(Path(__file__).with_name("ablations.toml"), [*shared, *own, *variant.changes])
    return dataclasses.replace(recipe, network={})


def base_recipe(data: Path, steps: int) -> TrainingRecipe:
    """The recipe of the 2D model: single images, no cameras."""
    changes = [f'data.views="{data / "views"}"', f'data.images="{data / "images"}"', f"steps={steps}"]
    return read_recipe(Path(__file__).with_name("ablations.toml"), changes)


def run(name: str, recipe: TrainingRecipe, out: Path) -> Path:
    """Train into ``out/name`` unless it is done; the folder of the prior."""
    done = out / name / "done.json"
    if not done.exists():
        print(f"training {name}: {recipe.steps} steps", flush=True)
        outcome = train(recipe, out / name)
        if outcome.stopped_by is not None:
            raise SystemExit(f"stopped at step {outcome.step}; run it again to go on")
        seconds = json.loads((outcome.result / "prior.json").read_text(encoding="utf-8"))["trained_seconds"]
        write_atomically(done, lambda path: path.write_text(json.dumps({"seconds": seconds}), encoding="utf-8"))
    return out / name / "prior"


def measure(prior: DiffusionPrior, judge: ImageEncoder, heldout: Sequence[ObjectViews]) -> tuple[Figures, list[Tensor]]:
    """All figures of a variant, and the rows of its first seed: those in 3D, then those in 2D alone."""
    prompts = [f"a {name}" if name[0] not in "aeiou" else f"an {name}" for name in IN_3D + ONLY_IN_2D]
    rows = {(prompt, seed): draw(prior, prompt, seed, 4) for seed in SEEDS for prompt in prompts}
    in_3d = [views for (prompt, _), views in rows.items() if prompts.index(prompt) < len(IN_3D)]
    recall = []
    for chosen in (prompts[: len(IN_3D)], prompts[len(IN_3D) :]):
        recall.append(recalls(judge, [(prompt, rows[prompt, seed]) for prompt in chosen for seed in SEEDS], prompts)[0])
    pixels, camera = camera_sensitivity(prior, heldout)
    figures = Figures(mean_consistency(in_3d), mean_difference(in_3d), pixels, camera, *recall)
    return figures, [rows[prompt, SEEDS[0]] for prompt in prompts]


def measure_many_views(prior: DiffusionPrior, out: Path) -> list[ManyViews]:
    """Consistency of 4, 8 and 16 views sampled at once, and a sheet of them."""
    prompts = [f"a {name}" for name in IN_3D]
    found = many_views(prior, prompts, seed=SEEDS[0])
    labels = [(f"{prompts[i]}, {figures.views} views", rows[i]) for figures, rows in found for i in range(SHOWN)]
    write_png(out / "ablation-16-views.png", labelled_sheet(labels, 1))
    return [figures for figures, _ in found]


def write_sheets(rows: dict[str, list[Tensor]], out: Path) -> None:
    """A sheet for each ablation: a column of four views for each variant, the same prompts below each other."""
    titles = {variant.name: variant.title for variant in VARIANTS}
    names = [*IN_3D, *ONLY_IN_2D]
    for sheet, variants in SHEETS.items():
        chosen = (0, 1, 3, 5) if sheet != "2d-data" else (0, 2, len(IN_3D), len(IN_3D) + 1, len(IN_3D) + 2)
        cells = [(f"{titles[v]}: {names[i]}", rows[v][i]) for i in chosen for v in variants]
        write_png(out / f"ablation-{sheet}.png", labelled_sheet(cells, len(variants)))


def markdown(figures: dict[str, Figures], more: Sequence[ManyViews]) -> str:
    """The report."""
    headers = ["variant", "consistency", "neighbours differ", "x0 error", "camera", "R@1 of 3D", "R@1 of 2D only"]
    titles = {variant.name: variant.title for variant in VARIANTS}
    rows = [[titles[name], *(number(v, 4) for v in dataclasses.astuple(f))] for name, f in figures.items()]
    lines = [[str(m.views), number(m.quarters, 3), number(m.all, 3)] for m in more]
    counts = ["views at once", "consistency of four of them", "of all"]
    return "\n".join(["# Ablations\n", table(headers, rows), table(counts, lines)])


def main() -> None:
    """Read the command line, train what is missing, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=Path, action="append", required=True, help="folder of multi-view shards")
    parser.add_argument("--judge", type=Path, required=True, help="folder with image_encoder/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base-steps", type=int, default=1800, help="of the 2D model")
    parser.add_argument("--steps", type=int, default=400, help="of each variant")
    parser.add_argument("--start", help="prior to go on from, instead of a 2D model")
    parser.add_argument("--train-only", action="store_true")
    args = parser.parse_args()
    data = args.out / "data"
    write_data(args.views, data)
    base = find_folder(args.start) if args.start else run("base", base_recipe(data, args.base_steps), args.out)
    folders = {v.name: run(v.name, recipe_of(v, data, base, args.steps), args.out) for v in VARIANTS}
    if args.train_only:
        return
    judge, heldout = load_image_encoder(args.judge, find_folder("mini")), read_split([data / "views"], ["heldout"])
    figures, rows = dict[str, Figures](), dict[str, list[Tensor]]()
    for name, folder in folders.items():
        figures[name], rows[name] = measure(load_prior(str(folder)), judge, heldout)
        print(name, figures[name], flush=True)
    write_sheets(rows, args.out)
    more = measure_many_views(load_prior(str(base if args.start else folders[MAIN.name])), args.out)
    facts = {name: dataclasses.asdict(value) for name, value in figures.items()}
    text = json.dumps({"variants": facts, "more_views": [dataclasses.astuple(m) for m in more]}, indent=1)
    write_atomically(args.out / "ablations.json", lambda path: path.write_text(text, encoding="utf-8"))
    report = markdown(figures, more)
    write_atomically(args.out / "ablations.md", lambda path: path.write_text(report, encoding="utf-8"))
    print(report)


if __name__ == "__main__":
    try:
        main()
    except Dream3DError as error:
        raise SystemExit(f"error: {error}") from None
