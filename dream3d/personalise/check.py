"""Whether a personalisation worked: the thing is drawn, from all sides, and the class is still the class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.evaluation.consistency import COARSE, cross_view_consistency, differing_pairs
from dream3d.files import write_json
from dream3d.images import write_png
from dream3d.personalise.samples import cameras_of, draw_views, encoder_of, likeness
from dream3d.personalise.words import Subject
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.report.sheet import labelled_sheet
from dream3d.weights.loading import load_prior

SHEET, FIGURES = "check.png", "check.json"
SEEDS = (0, 1)
CHANGED = 0.02
"""Mean difference of colours, of a range of 1 and at 8 x 8 pixels, below which samples from the same noise are one."""
RISE = 0.05
"""Of the identity score, below which the thing was not learnt."""
DRIFT = 0.5
"""Share of the thing's own rise from which the class is said to have risen along."""
AGREEMENT = 0.1
"""Fall of the agreement of views that is more than the difference of two seeds."""
TILE = 128
"""Pixels a side of a picture on the sheet."""


@dataclass(frozen=True)
class Drawn:
    """What one prior draws: (seeds, views, 3, S, S) in [0, 1], on the CPU, of the thing and of its class."""

    thing: Tensor
    kind: Tensor


@dataclass(frozen=True)
class Verdict:
    """Figures of a personalised prior and its base, and what is wrong, a line each."""

    figures: Mapping[str, float]
    problems: tuple[str, ...] = field(default=())

    @property
    def worked(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    @property
    def identity(self) -> tuple[float, float] | None:
        """Likeness of the thing to the photos before and now; None without an image encoder."""
        before, after = (self.figures.get(f"identity_thing_{name}") for name in ("base", "new"))
        return None if before is None or after is None else (before, after)


def draw(prior: DiffusionPrior, subject: Subject) -> Drawn:
    """Views with the token and without it, from the same noise for each prior."""
    thing, kind = (
        torch.stack([draw_views(prior, phrase, seed) for seed in SEEDS])
        for phrase in (subject.phrase, subject.class_phrase)
    )
    return Drawn(thing, kind)


def measure(prior: DiffusionPrior, photos: Tensor, before: Drawn, after: Drawn) -> dict[str, float]:
    """Figures of both: agreement of views, identity scores, and how much the samples changed.

    ``photos`` are (N, 3, S, S) in [0, 1]. Identity scores are left out if the prior has no image encoder.
    """
    cameras, figures = cameras_of(prior), dict[str, float]()
    for name, drawn in (("base", before), ("new", after)):
        for part, pictures in (("thing", drawn.thing), ("class", drawn.kind)):
            agreement = [cross_view_consistency(views, cameras) for views in pictures]
            figures[f"agreement_{part}_{name}"] = sum(agreement) / len(agreement)
    figures["sides_differ"] = sum(differing_pairs(views) for views in after.thing) / len(after.thing)
    figures["sides_differ_class"] = sum(differing_pairs(views) for views in before.kind) / len(before.kind)
    figures["change_thing"] = difference(before.thing, after.thing)
    figures["change_class"] = difference(before.kind, after.kind)
    figures["token_matters"] = difference(after.thing, after.kind)
    encoder = encoder_of(prior)
    if encoder is not None:
        for name, drawn in (("base", before), ("new", after)):
            figures[f"identity_thing_{name}"] = likeness(encoder, drawn.thing.flatten(0, 1), photos)
            figures[f"identity_class_{name}"] = likeness(encoder, drawn.kind.flatten(0, 1), photos)
    return {key: round(value, 4) for key, value in figures.items()}


def difference(one: Tensor, other: Tensor) -> float:
    """Mean absolute difference of (..., 3, S, S) pictures at :data:`COARSE` pixels a side, 0..1."""
    small = [F.adaptive_avg_pool2d(pictures.flatten(0, -4), COARSE) for pictures in (one, other)]
    return float((small[0] - small[1]).abs().mean())


def judge(figures: Mapping[str, float], subject: Subject) -> Verdict:
    """What the figures mean, in words that say what to do."""
    problems, more = [], "train longer (--steps) or faster (--set rate=...)"
    if figures["change_thing"] < CHANGED:
        problems.append(f"'{subject.phrase}' looks as it did before: {more}")
    elif figures["token_matters"] < CHANGED:
        problems.append(
            f"'{subject.phrase}' and '{subject.class_phrase}' look the same: the token was not learnt, or the class "
            "became the thing; use class pictures (--set class_pictures=24), or another token"
        )
    rise = figures.get("identity_thing_new", 0.0) - figures.get("identity_thing_base", 0.0)
    drift = figures.get("identity_class_new", 0.0) - figures.get("identity_class_base", 0.0)
    if "identity_thing_new" in figures:
        if rise < RISE and not problems:
            advice = more if rise > -RISE else "the training went astray; fewer steps, or a lower rate"
            problems.append(f"the samples do not resemble the photos more than before ({rise:+.2f}): {advice}")
        if drift > max(RISE, DRIFT * rise):
            problems.append(
                f"'{subject.class_phrase}' has become like the photos too ({drift:+.2f}, the thing {rise:+.2f}): fewer "
                "steps, a lower rate, or more class pictures (--class-images, --set class_pictures=...)"
            )
    if figures["agreement_thing_new"] < figures["agreement_class_base"] - AGREEMENT:
        problems.append(
            f"the views of '{subject.phrase}' do not fit one solid thing ({figures['agreement_thing_new']:.2f}, the "
            f"base's class {figures['agreement_class_base']:.2f}): fewer steps, a lower rate, or --method lora"
        )
    if figures["sides_differ"] == 0 < figures["sides_differ_class"]:
        problems.append(
            f"'{subject.phrase}' looks the same from all sides: if the photos show one side, add others; fewer steps"
        )
    return Verdict(figures, tuple(problems))


def rows_of(photos: Tensor, before: Drawn, after: Drawn, subject: Subject) -> list[tuple[str, Tensor]]:
    """Labels and pictures of the sheet: photos, then both priors' views of the thing and of the class."""
    rows = [
        ("your photos, as the prior sees them", photos[: len(SEEDS) * before.thing.shape[1]]),
        (f"{subject.phrase}: before", before.thing.flatten(0, 1)),
        (f"{subject.phrase}: now", after.thing.flatten(0, 1)),
        (f"{subject.class_phrase}: before", before.kind.flatten(0, 1)),
        (f"{subject.class_phrase}: now", after.kind.flatten(0, 1)),
    ]
    return [(label, F.interpolate(pictures, TILE, mode="nearest")) for label, pictures in rows]


def check(
    places: tuple[str, str], photos: Tensor, subject: Subject, folder: Path, device: torch.device | str = "cpu"
) -> Verdict:
    """Compare a personalised prior with its base; ``places`` are names or folders of the base and of the new one.

    ``check.png`` and ``check.json`` in ``folder`` show and tell the rest.
    """
    before = draw(load_prior(places[0], device), subject)
    new = load_prior(places[1], device)
    after = draw(new, subject)
    verdict = judge(measure(new, photos, before, after), subject)
    picture = labelled_sheet(rows_of(photos, before, after, subject), columns=1)
    write_png(folder / SHEET, picture, {"subject": asdict(subject), **verdict.figures})
    write_json(folder / FIGURES, {"figures": dict(verdict.figures), "problems": verdict.problems})
    return verdict
