"""Measure priors on held-out objects and prompts, and write one report of all (see docs/evaluation.md).

    python evaluate.py --prior mini --prior OTHER --views SHARDS --judge ENCODER --prompts prompts.txt --out report/

`--views` are folders of multi-view shards; losses are taken on their split `heldout` (or `unseen`), the names and the
pairs of colour and object from their split `train`. `--judge` is a folder that `dream3d train-encoder` wrote.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from dream3d.errors import Dream3DError
from dream3d.evaluation.compositional import unseen_pairs
from dream3d.evaluation.protocols.judging import Judged
from dream3d.evaluation.protocols.priors import Comparison, Measured, ceiling, markdown, measure, read_split
from dream3d.files import write_atomically
from dream3d.images import write_png
from dream3d.prior.image_encoder import load_image_encoder
from dream3d.report.sheet import labelled_sheet
from dream3d.weights.loading import find_folder, load_prior


def read_arguments() -> argparse.Namespace:
    """What is measured, and on what."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", action="append", required=True, help="name or folder; may be given again")
    parser.add_argument("--views", type=Path, action="append", required=True, help="folder of multi-view shards")
    parser.add_argument("--judge", type=Path, action="append", required=True, help="folder with image_encoder/")
    parser.add_argument("--text", default="mini", help="prior whose text encoder the judges were trained with")
    parser.add_argument("--prompts", type=Path, required=True, help="one a line")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--objects", type=int, default=32, help="held-out objects for the losses, at most")
    parser.add_argument("--pairs", type=int, default=16, help="unseen pairs of a colour and an object, at most")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of sampling; the prior's own by default")
    parser.add_argument("--background", type=float, nargs=3, help="sRGB for the losses; each prior's own by default")
    args = parser.parse_args()
    if len({path.name for path in args.judge}) < len(args.judge):
        parser.error("the folders of the judges need different names: the report calls them by those")
    return args


def read_task(args: argparse.Namespace) -> Comparison:
    """What every prior is measured on."""
    text = find_folder(args.text)
    records = [views.record for views in read_split(args.views, ["train"])]
    return Comparison(
        objects=read_split(args.views, ["heldout", "unseen"], args.objects),
        names=sorted({record.name.lower() for record in records}),
        prompts=[line.strip() for line in args.prompts.read_text(encoding="utf-8").splitlines() if line.strip()],
        pairs=unseen_pairs(records, args.pairs),
        judges={path.name: load_image_encoder(path, text) for path in args.judge},
        seeds=args.seeds,
        steps=args.steps,
        background=tuple(args.background) if args.background else None,
    )


def main() -> None:
    """Read the command line, measure, write."""
    args = read_arguments()
    task = read_task(args)
    args.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Measured] = {}
    real: dict[str, Judged] = {}
    for place in args.prior:
        print(place, flush=True)
        prior = load_prior(place)
        name = f"{prior.name}-v{prior.settings.version}"
        name = name if name not in results else f"{name}-{len(results)}"
        real = real or ceiling(task, prior)
        results[name], drawn = measure(prior, task, lambda prompt: print(f"  {prompt}", flush=True))
        write_png(args.out / f"{name}.png", labelled_sheet(drawn))
    figures, ceilings = ({name: asdict(value) for name, value in every.items()} for every in (results, real))
    data = json.dumps({"priors": figures, "real": ceilings, "prompts": task.prompts}, indent=1)
    write_atomically(args.out / "evaluation.json", lambda path: path.write_text(data, encoding="utf-8"))
    report = markdown(task, results, real)
    write_atomically(args.out / "evaluation.md", lambda path: path.write_text(report, encoding="utf-8"))
    print(report)


if __name__ == "__main__":
    try:
        main()
    except Dream3DError as error:
        raise SystemExit(f"error: {error}") from None
