"""Measure priors on held-out objects and prompts, and write one report of all (see docs/evaluation.md).

    python evaluate.py --prior mini --prior OTHER --views SHARDS --judge ENCODER --prompts prompts.txt --out report/

`--views` are folders of multi-view shards; losses are taken on their split `heldout` (or `unseen`), the names and the
pairs of colour and object from their split `train`. `--judge` is a folder that `dream3d train-encoder` wrote.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.dataset.records import ObjectRecord
from dream3d.dataset.shards import ObjectViews, read_objects, shards
from dream3d.evaluation.compositional import COLORS, Composition, Pair, composition, rivals, unseen_pairs
from dream3d.evaluation.consistency import cross_view_consistency, differing_pairs
from dream3d.evaluation.losses import Denoising, denoising_losses, view_set
from dream3d.evaluation.retrieval import recall_at
from dream3d.files import write_atomically
from dream3d.images import side_by_side, to_uint8, write_png
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.image_encoder import ImageEncoder, load_image_encoder
from dream3d.prior.sampling import sample_views, sampling_for
from dream3d.report.tables import number, table, with_bar
from dream3d.weights.loading import find_folder, load_prior

ARTICLES = ("a ", "an ", "the ")


@dataclass(frozen=True)
class Task:
    """What every prior is measured on."""

    objects: list[ObjectViews]
    """Held-out ones, for the losses and as the judges' own ceiling."""
    names: list[str]
    prompts: list[str]
    pairs: list[Pair]
    judges: dict[str, ImageEncoder]
    seeds: int
    steps: int | None
    background: tuple[float, float, float] | None

    @property
    def captions(self) -> list[str]:
        """Among which the right one is looked for: the prompts, and a sentence for each known name."""
        return list(dict.fromkeys([*self.prompts, *(f"a {name}" for name in self.names)]))


@dataclass(frozen=True)
class Judged:
    """One judge's opinion of one prior."""

    recall_1: float
    recall_5: float
    composition: Composition | None


@dataclass(frozen=True)
class Measured:
    """All figures of one prior."""

    denoising: Denoising
    consistency: float
    front_side: float
    """Share of neighbouring views that differ."""
    judged: dict[str, Judged]


def bare(caption: str) -> str:
    """A caption in small letters without its article: "A chair" and "chair" are one answer."""
    text = caption.lower().strip()
    return next((text[len(article) :] for article in ARTICLES if text.startswith(article)), text)


def sample_all(prior: DiffusionPrior, prompts: Sequence[str], task: Task) -> list[Tensor]:
    """For each prompt and seed (prompts first) four views (V, 3, S, S)."""
    recipe = sampling_for(prior.recommended_preset)
    if task.steps is not None:
        recipe = dataclasses.replace(recipe, steps=task.steps)
    cameras = orbit(prior.views, elevation_deg=15)
    rows = []
    for prompt in prompts:
        text = prior.encode_prompt(prior.with_suffix(prompt), "")
        rows += [sample_views(prior, text, cameras, recipe, seed).float().cpu() for seed in range(task.seeds)]
        print(f"  {prompt}", flush=True)
    return rows


def recalls(judge: ImageEncoder, pictures: Tensor, prompts: Sequence[str], captions: Sequence[str]) -> list[float]:
    """R@1 and R@5 of single pictures (N, 3, S, S), each drawn for its prompt, among captions."""
    right = [{j for j, caption in enumerate(captions) if bare(caption) == bare(prompt)} for prompt in prompts]
    similarity = judge.embed_images(pictures) @ judge.embed_texts(list(captions)).t()
    return [recall_at(similarity, right, k) for k in (1, 5)]


def composed(
    judge: ImageEncoder, pairs: Sequence[Pair], rows: Sequence[Tensor], names: Sequence[str]
) -> Composition | None:
    """How often all views of a pair, as their mean vector, are nearest to it; None without pairs."""
    if not pairs:
        return None
    similarities = []
    for pair, views in zip(pairs, rows, strict=True):
        texts = judge.embed_texts([rival.prompt for rival in rivals(pair, names)])
        similarities.append(texts @ judge.embed_images(views).mean(0))
    return composition(similarities, len(COLORS) - 1)


def _each(values: Sequence[Any], times: int) -> list[Any]:
    return list(itertools.chain.from_iterable([value] * times for value in values))


def measure(prior: DiffusionPrior, task: Task, sheet: Path) -> Measured:
    """All figures of one prior; writes its contact sheet."""
    cameras = orbit(prior.views, elevation_deg=15)
    rows = sample_all(prior, task.prompts, task)
    pair_rows = sample_all(prior, [pair.prompt for pair in task.pairs], task)
    prompts = _each(task.prompts, task.seeds)
    labels = [*prompts, *(f"* {pair.prompt}" for pair in _each(task.pairs, task.seeds))]
    write_sheet(sheet, labels, [*rows, *pair_rows])
    judged = {}
    for name, judge in task.judges.items():
        first, fifth = recalls(judge, torch.cat(rows), _each(prompts, prior.views), task.captions)
        judged[name] = Judged(first, fifth, composed(judge, _each(task.pairs, task.seeds), pair_rows, task.names))
    return Measured(
        denoising_losses(prior, task.objects, background=task.background),
        sum(cross_view_consistency(views, cameras) for views in rows) / len(rows),
        sum(differing_pairs(views) for views in rows) / len(rows),
        judged,
    )


def write_sheet(path: Path, labels: Sequence[str], rows: Sequence[Tensor], columns: int = 3) -> None:
    """A PNG of rows of views, each under its prompt."""
    strips = [Image.fromarray(side_by_side(to_uint8(views.movedim(1, -1)))) for views in rows]
    width, height = max(strip.width for strip in strips) + 4, strips[0].height + 14
    page = Image.new("RGB", (columns * width, -(-len(strips) // columns) * height), "white")
    for index, (label, strip) in enumerate(zip(labels, strips, strict=True)):
        x, y = index % columns * width, index // columns * height
        ImageDraw.Draw(page).text((x + 2, y + 1), label, fill=0)
        page.paste(strip, (x, y + 13))
    pixels = torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8).view(page.height, page.width, 3).numpy()
    write_png(path, pixels)


def ceiling(task: Task, prior: DiffusionPrior) -> dict[str, Judged]:
    """Every judge on real held-out views over the prior's background: no drawing can be expected to do better.

    Views are looked for by their names, among the names alone. The pairs are not unseen ones, which nobody has pictures
    of, but those of objects of a single colour: they tell whether the judge knows colours.
    """
    rows = [view_set(views, 0, prior, prior.background)[0] for views in task.objects]
    prompts = _each([f"a {views.record.name.lower()}" for views in task.objects], prior.views)
    captions = list(dict.fromkeys([*(f"a {name}" for name in task.names), *prompts]))
    colored = []
    for views, row in zip(task.objects, rows, strict=True):
        known = [color for color in views.record.colors if color in COLORS]
        if len(known) == 1:
            colored.append((Pair(known[0], views.record.name.lower()), row))
    opinions = {}
    for name, judge in task.judges.items():
        first, fifth = recalls(judge, torch.cat(rows), prompts, captions)
        shares = composed(judge, [pair for pair, _ in colored], [row for _, row in colored], task.names)
        opinions[name] = Judged(first, fifth, shares)
    return opinions


def markdown(task: Task, results: dict[str, Measured], real: dict[str, Judged]) -> str:
    """The report."""
    top = max(result.denoising.mean_pixels for result in results.values())
    first = [
        [
            name,
            with_bar(m.denoising.mean_pixels, top, 5),
            number(m.denoising.codec, 5),
            with_bar(m.consistency),
            with_bar(m.front_side),
        ]
        for name, m in results.items()
    ]
    headers = ["prior", "x0 error, pixels (less is better)", "of which codec", "consistency", "front and side differ"]
    parts = ["# Evaluation\n\n", table(headers, first), "\n## Errors by noise level\n\n"]
    levels = [level.level for level in next(iter(results.values())).denoising.levels]
    by_level = [
        [name, kind, *(number(getattr(level, kind), 5) for level in m.denoising.levels)]
        for name, m in results.items()
        for kind in ("pixels", "eps")
    ]
    parts += [table(["prior", "error", *(f"{level:g}" for level in levels)], by_level)]
    parts += [f"\n## Judges: R@1 and R@5 among {len(task.captions)} captions, unseen pairs\n\n"]
    opinions = [("real views", real), *((name, measured.judged) for name, measured in results.items())]
    rows = []
    for name, judged in opinions:
        for judge, j in judged.items():
            pairs = [with_bar(share) for share in dataclasses.astuple(j.composition)] if j.composition else [""] * 3
            rows.append([name, judge, with_bar(j.recall_1), with_bar(j.recall_5), *pairs])
    headers = ["pictures", "judge", "R@1", "R@5", "pair right", "colour right", "object right"]
    count = f"{len(task.objects)} held-out objects, {len(task.prompts)} prompts, {len(task.pairs)} unseen pairs"
    return "".join([*parts, table(headers, rows), f"\n{count}, {task.seeds} seeds.\n"])


def read_split(folders: Sequence[Path], splits: Sequence[str], limit: int | None = None) -> list[ObjectViews]:
    """Objects of the first split that has any, evenly chosen if there are more than ``limit``."""
    for split in splits:
        found = [o for folder in folders for path in shards(folder, split) for o in read_objects(path)]
        if found:
            return found[:: -(-len(found) // limit)] if limit else found
    raise SystemExit(f"{', '.join(map(str, folders))}: no shards of {' or '.join(splits)}")


def main() -> None:
    """Read the command line, measure, write."""
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
    text = find_folder(args.text)
    records: list[ObjectRecord] = [views.record for views in read_split(args.views, ["train"])]
    task = Task(
        objects=read_split(args.views, ["heldout", "unseen"], args.objects),
        names=sorted({record.name.lower() for record in records}),
        prompts=[line.strip() for line in args.prompts.read_text(encoding="utf-8").splitlines() if line.strip()],
        pairs=unseen_pairs(records, args.pairs),
        judges={path.name: load_image_encoder(path, text) for path in args.judge},
        seeds=args.seeds,
        steps=args.steps,
        background=tuple(args.background) if args.background else None,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Measured] = {}
    real: dict[str, Judged] = {}
    for place in args.prior:
        print(place, flush=True)
        prior = load_prior(place)
        name = f"{prior.name}-v{prior.settings.version}"
        name = name if name not in results else f"{name}-{len(results)}"
        real = real or ceiling(task, prior)
        results[name] = measure(prior, task, args.out / f"{name}.png")
    facts = {name: dataclasses.asdict(result) for name, result in results.items()}
    ceilings = {name: dataclasses.asdict(judged) for name, judged in real.items()}
    data = json.dumps({"priors": facts, "real": ceilings, "prompts": task.prompts}, indent=1)
    write_atomically(args.out / "evaluation.json", lambda path: path.write_text(data, encoding="utf-8"))
    report = markdown(task, results, real)
    write_atomically(args.out / "evaluation.md", lambda path: path.write_text(report, encoding="utf-8"))
    print(report)


if __name__ == "__main__":
    main()
