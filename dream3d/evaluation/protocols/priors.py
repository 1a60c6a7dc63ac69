"""Priors compared on held-out objects, prompts and unseen pairs of colour and object (docs/evaluation.md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dream3d.dataset.records import Split
from dream3d.dataset.shards import ObjectViews, read_objects, shards
from dream3d.errors import DatasetError
from dream3d.evaluation.compositional import COLORS, Pair
from dream3d.evaluation.losses import Color, Denoising, denoising_losses, view_set
from dream3d.evaluation.protocols.judging import Judged, judge
from dream3d.evaluation.protocols.views import draw, mean_consistency, mean_difference
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.image_encoder import ImageEncoder
from dream3d.report.tables import number, table, with_bar


@dataclass(frozen=True)
class Comparison:
    """What every prior is measured on."""

    objects: Sequence[ObjectViews]
    """Held-out ones, for the losses and as the judges' own ceiling."""
    names: Sequence[str]
    """Of all objects in training."""
    prompts: Sequence[str]
    pairs: Sequence[Pair]
    judges: Mapping[str, ImageEncoder]
    seeds: int = 1
    """Of each prompt and pair: 0, 1 and so on."""
    steps: int | None = None
    """Of sampling; the prior's own by default."""
    background: Color | None = None
    """sRGB in [0, 1] behind the held-out objects; the prior's own by default."""

    @property
    def captions(self) -> list[str]:
        """Among which the right one is looked for: the prompts, and a sentence for each known name."""
        return list(dict.fromkeys([*self.prompts, *(f"a {name}" for name in self.names)]))


@dataclass(frozen=True)
class Measured:
    """All figures of one prior."""

    denoising: Denoising
    consistency: float
    """Mean over prompts, 0..1."""
    front_side: float
    """Share of neighbouring views that differ."""
    judged: Mapping[str, Judged]


def measure(
    prior: DiffusionPrior, task: Comparison, on_prompt: Callable[[str], object] = lambda prompt: None
) -> tuple[Measured, list[tuple[str, Tensor]]]:
    """All figures of one prior, and the views (V, 3, S, S) behind them under their prompts, ``*`` before pairs.

    ``on_prompt`` hears of every prompt that has been drawn.
    """

    def drawn(prompt: str) -> list[Tensor]:
        rows = [draw(prior, prompt, seed, steps=task.steps) for seed in range(task.seeds)]
        on_prompt(prompt)
        return rows

    of_prompts = [(prompt, views) for prompt in task.prompts for views in drawn(prompt)]
    of_pairs = [(pair, views) for pair in task.pairs for views in drawn(pair.prompt)]
    rows = [views for _, views in of_prompts]
    figures = Measured(
        denoising_losses(prior, task.objects, background=task.background),
        mean_consistency(rows),
        mean_difference(rows),
        judge(task.judges, of_prompts, task.captions, of_pairs, task.names),
    )
    return figures, [*of_prompts, *((f"* {pair.prompt}", views) for pair, views in of_pairs)]


def ceiling(task: Comparison, prior: DiffusionPrior) -> dict[str, Judged]:
    """Every judge on real held-out views over the prior's background: no drawing can be expected to do better.

    Views are looked for by their names, among the names alone. The pairs are not unseen ones, which nobody has images
    of, but those of objects of a single colour: they tell whether the judge knows colours.
    """
    prompts, pairs = list[tuple[str, Tensor]](), list[tuple[Pair, Tensor]]()
    for item in task.objects:
        name, views = item.record.name.lower(), view_set(item, 0, prior, prior.background)[0]
        prompts.append((f"a {name}", views))
        known = [color for color in item.record.colors if color in COLORS]
        pairs += [(Pair(known[0], name), views)] if len(known) == 1 else []
    captions = list(dict.fromkeys([*(f"a {name}" for name in task.names), *(prompt for prompt, _ in prompts)]))
    return judge(task.judges, prompts, captions, pairs, task.names)


def read_split(folders: Sequence[Path], splits: Sequence[Split], limit: int | None = None) -> list[ObjectViews]:
    """Objects of the first split that has any, evenly chosen if there are more than ``limit``; DatasetError if none."""
    for split in splits:
        found = [item for folder in folders for path in shards(folder, split) for item in read_objects(path)]
        if found:
            return found[:: -(-len(found) // limit)] if limit else found
    raise DatasetError(
        f"{', '.join(map(str, folders))}: no shards of {' or '.join(splits)}; 'dataset render' makes them"
    )


def markdown(task: Comparison, results: Mapping[str, Measured], real: Mapping[str, Judged]) -> str:
    """The figures of priors by name, and those of the :func:`ceiling`, in three tables."""
    count = f"{len(task.objects)} held-out objects, {len(task.prompts)} prompts, {len(task.pairs)} unseen pairs"
    return (
        f"# Evaluation\n\n{_summary(results)}\n## Errors by noise level\n\n{_by_level(results)}"
        f"\n## Judges: R@1 and R@5 among {len(task.captions)} captions, unseen pairs\n\n"
        f"{_by_judge({'real views': real, **{name: m.judged for name, m in results.items()}})}"
        f"\n{count}, {task.seeds} seeds.\n"
    )


def _summary(results: Mapping[str, Measured]) -> str:
    headers = ["prior", "x0 error, pixels (less is better)", "of which codec", "consistency", "front and side differ"]
    top = max(m.denoising.mean_pixels for m in results.values())
    rows = []
    for name, m in results.items():
        error = [with_bar(m.denoising.mean_pixels, top, 5), number(m.denoising.codec, 5)]
        rows.append([name, *error, with_bar(m.consistency), with_bar(m.front_side)])
    return table(headers, rows)


def _by_level(results: Mapping[str, Measured]) -> str:
    levels = [f"{level.level:g}" for level in next(iter(results.values())).denoising.levels]
    rows = [
        [name, kind, *(number(getattr(level, kind), 5) for level in m.denoising.levels)]
        for name, m in results.items()
        for kind in ("pixels", "eps")
    ]
    return table(["prior", "error", *levels], rows)


def _by_judge(opinions: Mapping[str, Mapping[str, Judged]]) -> str:
    headers = ["pictures", "judge", "R@1", "R@5", "pair right", "colour right", "object right"]
    rows = []
    for name, judged in opinions.items():
        for judge_name, j in judged.items():
            pairs = [with_bar(share) for share in dataclasses.astuple(j.composition)] if j.composition else [""] * 3
            rows.append([name, judge_name, with_bar(j.recall_1), with_bar(j.recall_5), *pairs])
    return table(headers, rows)
