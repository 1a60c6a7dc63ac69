"""Does a prior draw rare things better by pictures? Measured on things that it never saw, whose truth is known.

    python examples/rare/evaluate_rare.py --prior ADAPTED --judge ENCODER --out runs/rare

ADAPTED is a prior with an image adapter, ENCODER a folder that "dream3d train-encoder" wrote for a judge that the prior
does not know (build/judge/encoder after examples/mini/build.sh). Further priors, such as ablations, are measured as
MV-RAG alone. Every cell, a thing asked for in one way with one seed, is a line in cells.jsonl: stopped, the same
command goes on. evaluation.md has the table, sheet.png the pictures, blind.png the same for a reader who is to choose.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rare_cases import Case, read_cases
from rare_cells import (
    AUTO,
    MAIN,
    SWEEPS,
    TEXT,
    Arm,
    Cell,
    Judges,
    Place,
    Results,
    draw_mesh,
    draw_views,
    key_of,
    shown_pictures,
)
from rare_report import table, table_of_things, write_sheets

from dream3d.errors import Dream3DError, UsageError
from dream3d.evaluation.encoders import EfficientNetLite2
from dream3d.files import hash_file, write_text
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.image_adapter.dinov2 import dinov2_digest
from dream3d.prior.image_adapter.folder import check_adapter
from dream3d.prior.image_encoder import load_image_encoder
from dream3d.prior.sampling import sampling_for
from dream3d.recipe.presets import preset
from dream3d.weights.loading import find_folder, load_prior

HERE = Path(__file__).parent
NAMES = {"encoder": "second encoder", "classifier": "EfficientNet-Lite2"}


@dataclass(frozen=True)
class Asked:
    """A cell that is wanted."""

    place: Place
    prior: DiffusionPrior
    case: Case
    arm: Arm


def read_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", action="append", required=True, help="with an image adapter; may be given again")
    parser.add_argument("--judge", type=Path, required=True, help="folder with image_encoder/")
    parser.add_argument("--text", default="mini", help="prior whose text encoder the judge was trained with")
    parser.add_argument("--cases", type=Path, default=HERE, help="folder of render_pictures.py; this one by default")
    parser.add_argument("--in-domain", type=Path, help="another such folder, of things that the prior learnt")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--fusion-encoder", type=Path, help="DINOv2's folder: alpha by it too")
    parser.add_argument("--steps", type=int, help="of sampling; the prior's own by default")
    parser.add_argument(
        "--sweeps", action=argparse.BooleanOptionalAction, default=True, help="over pictures, and wrong ones"
    )
    parser.add_argument("--meshes", action="store_true", help="also from 3D assets, by text and by pictures")
    parser.add_argument("--mesh-steps", type=int, help="updates of each asset; the recipe's own by default")
    return parser.parse_args()


def cells_wanted(args: argparse.Namespace, priors: dict[str, DiffusionPrior], cases: list[Case]) -> Iterator[Asked]:
    """All cells, in the order of the table."""
    known = read_cases(args.in_domain) if args.in_domain else []
    first, *others = priors
    plan = [("rare", "views", first, arm, cases) for arm in MAIN]
    if args.fusion_encoder:
        plan += [("rare", "views", first, Arm("alpha by DINOv2", encoder=args.fusion_encoder), cases)]
    plan += [("rare", "views", other, AUTO, cases) for other in others]
    plan += [("rare", "views", first, arm, cases) for arm in SWEEPS if args.sweeps]
    plan += [("in-domain", "views", first, arm, known) for arm in (TEXT, AUTO)]
    plan += [("rare", "mesh", first, arm, cases) for arm in (TEXT, AUTO) if args.meshes]
    for domain, kind, name, arm, things in plan:
        for case in things:
            for seed in range(args.seeds if kind == "views" else 1):
                yield Asked(Place(domain, kind, name, arm.name, case.name, seed), priors[name], case, arm)


def main() -> None:
    """Measure what is missing, then write table and sheets."""
    args = read_arguments()
    classifier = EfficientNetLite2()
    digest = f"{hash_file(args.judge / 'image_encoder' / 'model.safetensors')} {classifier.digest}"
    judges = Judges(load_image_encoder(args.judge, find_folder(args.text)), classifier, digest)
    priors, cases = load_priors(args.prior), read_cases(args.cases)
    results, cells = Results(args.out), list[Cell]()
    for asked in cells_wanted(args, priors, cases):
        key = key_of_cell(asked, args, cases, judges)
        if not results.has(key):
            measure(asked, args, cases, judges, key, results)
        cells.append(results.cells[key])
    write_text(args.out / "evaluation.md", f"{table(cells, NAMES)}\n{table_of_things(cells, NAMES)}")
    write_sheets(args.out, cases, results, cells, next(iter(priors.values())).background)
    print((args.out / "evaluation.md").read_text(encoding="utf-8"))


def key_of_cell(asked: Asked, args: argparse.Namespace, cases: list[Case], judges: Judges) -> str:
    """Of the weights, the pictures, the settings and the judges: what is measured with others is another cell."""
    steps = (args.steps, args.mesh_steps if asked.place.kind == "mesh" else None)
    shown = cases if asked.arm.wrong else [asked.case]
    weights = [asked.prior.digest, asked.prior.image_adapter.digest]
    weights += [dinov2_digest(asked.arm.encoder)] if asked.arm.encoder else []
    return key_of(asked.place, *steps, *weights, judges.digest, *(case.digest for case in (asked.case, *shown)))


def load_priors(places: list[str]) -> dict[str, DiffusionPrior]:
    """By the names that they were given by, which the table has too."""
    priors: dict[str, DiffusionPrior] = {}
    for place in places:
        prior = load_prior(place)
        check_adapter(prior.folder, prior.name)
        if place in priors:
            raise UsageError(f"--prior {place} was given twice")
        priors[place] = prior
    return priors


def measure(
    asked: Asked, args: argparse.Namespace, cases: list[Case], judges: Judges, key: str, results: Results
) -> None:
    """Draw a cell, judge it, keep it."""
    place, prior, case, arm = asked.place, asked.prior, asked.case, asked.arm
    pictures = shown_pictures(case, cases, arm, place.seed)
    if len(pictures) < arm.pictures:
        raise UsageError(f"{case.name!r} has {len(case.pictures)} pictures, {arm.name!r} needs {arm.pictures}")
    if place.kind == "mesh":
        recipe = preset(prior.recommended_preset)
        recipe = recipe.with_steps(args.mesh_steps) if args.mesh_steps else recipe
        drawn = draw_mesh(prior, case.prompt, pictures, arm, place.seed, recipe, args.out / "meshes" / key)
    else:
        sampling = sampling_for(prior.recommended_preset)
        sampling = dataclasses.replace(sampling, steps=args.steps) if args.steps else sampling
        drawn = draw_views(prior, case.prompt, pictures, arm, place.seed, sampling)
    similarity = judges.similarity(drawn.views, case.truth_over(prior.background))
    results.keep(Cell(place, key, similarity, drawn.seconds, drawn.alpha), drawn.views)
    said = ", ".join(f"{NAMES[judge]} {value:.3f}" for judge, value in similarity.items())
    print(f"{place.domain} {place.kind}, {place.arm}, {place.case}, seed {place.seed}: {said}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except Dream3DError as error:
        raise SystemExit(f"error: {error}") from None
