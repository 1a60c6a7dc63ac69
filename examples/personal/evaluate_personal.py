"""Whether a prior learns eight things that it has never seen, by each method: a table, and a picture of all.

    python evaluate_personal.py --out OUT --judge ENCODER                  # everything
    python evaluate_personal.py --out OUT --thing cup --method lora-1      # a part of it

Each of 8 things (pictures.py) is learnt by ``full`` and ``lora``, with the preservation weight lambda 0 and 1. What the
prior then draws is compared with pictures of the thing that nothing has learnt from, by each ``--judge`` (a folder that
``dream3d train-encoder`` wrote; give another one than the prior's own) and by EfficientNet-Lite2 (the extra
``evaluate``); so is what the base draws of the same words from the same noise.

A line of ``results.jsonl`` is written for each thing and method. Started again, the script computes what is missing;
with another judge it measures the views that were drawn. ``table.md``, ``sheet.png`` and ``quiz-METHOD.png`` (which
views belong to which photos? ``quiz-METHOD.json`` has the answers) are made of all lines there are.
"""

from __future__ import annotations

import argparse
import json
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from cells import METHODS, Encode, Method, Model, Plan, draw, figures_of, forget, read_model
from pictures import HERE, read_things
from summary import markdown, quiz, sheet

from dream3d.errors import Dream3DError, UsageError
from dream3d.evaluation.encoders import EfficientNetLite2, is_installed
from dream3d.files import hash_file, write_json, write_text
from dream3d.images import write_png
from dream3d.personalise.samples import cameras_of, encoder_of
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.image_encoder import FOLDER, ImageEncoder, load_towers
from dream3d.weights.loading import load_prior

VERSION = 1
"""Of what is drawn and measured: raise it when that changes."""
PROMPTS = ("a wooden chair", "a penguin", "a castle with blue roofs", "a green cactus")
"""Unrelated to the things; out of prompts/gallery.txt."""


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """What is measured, and where the results go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--prior", default="mini", help="name or folder of the prior that learns")
    parser.add_argument("--judge", type=Path, action="append", default=[], help="folder with image_encoder/")
    parser.add_argument("--pictures", type=Path, default=HERE / "pictures", help="as pictures.py writes them")
    parser.add_argument("--thing", action="append", help="only this one; may be given again")
    parser.add_argument("--method", action="append", choices=[m.label for m in METHODS], help="only this one; again")
    parser.add_argument("--set", action="append", default=[], help="change a setting of the training: steps=50")
    parser.add_argument("--keep", action="store_true", help="keep the personalised priors (56 MB each by full)")
    return parser.parse_args(arguments)


def encoders_of(prior: DiffusionPrior, judges: list[Path]) -> dict[str, Encode]:
    """Who compares, by name: the prior's own encoder, the judges, and EfficientNet-Lite2 if it is installed."""
    found: dict[str, Encode] = {}
    own = encoder_of(prior)
    if own is not None:
        found["own encoder"] = own.embed_images
    for folder in judges:
        found[folder.name] = ImageEncoder(load_towers(folder / FOLDER), prior.text, prior.device).embed_images
    if is_installed():
        network = EfficientNetLite2()
        found["EfficientNet-Lite2"] = lambda pictures: network.classify(pictures)[0]
    if len(found) != (own is not None) + len(judges) + is_installed():
        raise UsageError("the folders of the judges need different names: the table calls them by those")
    return found


def claim(folder: Path, made_with: dict[str, Any]) -> None:
    """Make a folder for results of some settings; UsageError if it has views of others."""
    (folder / "views").mkdir(parents=True, exist_ok=True)
    path, wanted = folder / "made.json", json.loads(json.dumps(made_with))
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else wanted
    changed = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    if changed:
        raise UsageError(f"{folder} has results with another {', '.join(changed)}; give another --out")
    write_json(path, wanted)


def read_results(path: Path, measured_by: list[str]) -> dict[tuple[str, str], dict[str, float]]:
    """Figures of the cells that these encoders have measured, by thing and method; a torn last line is no result."""
    done = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            cell = json.loads(line)
        except ValueError:
            continue
        if cell["measured_by"] == measured_by:
            done[cell["thing"], cell["method"]] = cell["figures"]
    return done


def run_cell(
    plan: Plan, base: DiffusionPrior, models: list[Model], model: Model, method: Method, measured_by: list[str]
) -> dict[str, float]:
    """Learn, draw, measure, and add a line to the results."""
    began, cpu = time.monotonic(), time.process_time()
    before = draw(plan, base, model, METHODS[0])
    figures = figures_of(plan, cameras_of(base), models, model, draw(plan, base, model, method), before)
    spent = {"seconds": round(time.monotonic() - began), "cpu_seconds": round(time.process_time() - cpu)}
    line = {"thing": model.name, "method": method.label, **spent, "figures": figures, "measured_by": measured_by}
    path = plan.out / "results.jsonl"
    torn = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * torn + json.dumps(line) + "\n")
    forget(plan, model, method)
    print(f"{model.name}, {method.label}: {spent['cpu_seconds']} s of CPU time", flush=True)
    return figures


def write_report(plan: Plan, models: list[Model], done: dict[tuple[str, str], dict[str, float]]) -> None:
    """The table and the pictures, of what there is."""
    write_text(plan.out / "table.md", markdown(done, [model.name for model in models], list(plan.encoders)))
    write_png(plan.out / "sheet.png", sheet(plan.out / "views", models, done))
    for method in METHODS[1:]:
        if all((model.name, method.label) in done for model in models):
            picture, answers = quiz(plan.out / "views", models, method.label)
            write_png(plan.out / f"quiz-{method.label}.png", picture)
            write_json(plan.out / f"quiz-{method.label}.json", answers)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, compute what is missing, write the report."""
    args = read_arguments(arguments)
    things = read_things()
    unknown = set(args.thing or ()) - {thing.name for thing in things}
    if unknown:
        raise UsageError(f"unknown thing {', '.join(sorted(unknown))}; known: {', '.join(t.name for t in things)}")
    base = load_prior(args.prior)
    plan = Plan(args.prior, encoders_of(base, args.judge), PROMPTS, tuple(args.set), args.out, args.keep)
    side, background = base.image_size, base.settings.background
    models = [read_model(args.pictures / one.name, one.kind, side, background) for one in things]
    made_with = {
        "version": VERSION,
        "prior": base.digest,
        "prompts": PROMPTS,
        "pictures": [sha256(model.true.numpy().tobytes()).hexdigest() for model in models],
        "photos": [model.photos.digest for model in models],
        "recipes": [plan.recipe(base.settings.recipe, method).to_dict() for method in METHODS[1:]],
    }
    claim(args.out, made_with)
    measured_by = [*plan.encoders, *(hash_file(folder / FOLDER / "model.safetensors") for folder in args.judge)]
    done = read_results(args.out / "results.jsonl", measured_by)
    for model in models:
        for method in METHODS:
            wanted = model.name in (args.thing or [model.name]) and method.label in (args.method or [method.label])
            if wanted and (model.name, method.label) not in done:
                done[model.name, method.label] = run_cell(plan, base, models, model, method, measured_by)
    write_report(plan, models, done)
    print((args.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    try:
        main()
    except Dream3DError as error:
        raise SystemExit(f"error: {error}") from None
