"""From results to figures with intervals: of each subject, and of its difference to the first one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream3d.evaluation.image_sets import frechet_distance, inception_score
from dream3d.evaluation.intervals import Interval, bootstrap_difference, bootstrap_mean, jackknife
from dream3d.evaluation.protocols.judging import bare
from dream3d.evaluation.retrieval import ranks
from dream3d.evaluation.suite.store import Result

JANUS = 0.5
"""From this score on, an answer counts as one with two fronts."""


@dataclass(frozen=True)
class Figure:
    """A column of the table."""

    title: str
    better: str
    """"more", "less", or "" where neither is."""
    meaning: str
    digits: int = 3


FIGURES = {
    "fid": Figure("FID", "less", "Fréchet distance of the views' features to those of the held-out renders", 1),
    "inception_score": Figure("IS", "more", "inception score: whether the classifier is sure, and of many classes", 2),
    "text_image": Figure("text-image", "more", "mean cosine of views and prompt"),
    "r_at_1": Figure("R@1", "more", "share of views for which the prompt comes first among all prompts"),
    "r_at_5": Figure("R@5", "more", "share of views for which it is among the first five"),
    "image_image": Figure("image-image", "more", "mean cosine of views and pictures of what the prompt names"),
    "image_image_classifier": Figure("image-image (classifier)", "more", "the same, by the classifier's features"),
    "image_image_pictures": Figure("image-image (DINOv2)", "more", "the same, by an encoder of pictures alone"),
    "psnr": Figure("PSNR", "more", "decibels, against the object's own views", 2),
    "ssim": Figure("SSIM", "more", "structural similarity, against the object's own views"),
    "lpips": Figure("LPIPS", "less", "how different the views look from the object's own, by features of a network"),
    "consistency": Figure("consistency", "more", "silhouettes and the solid that fits them, mean IoU"),
    "view_agreement": Figure("view agreement", "", "mean cosine of every two views of one object; 1: one picture"),
    "janus": Figure("Janus", "less", "how much the back repeats the front while the side is another, 0 to 1"),
    "janus_share": Figure("Janus share", "less", f"share of answers whose Janus score is {JANUS} or more"),
}
"""In the order of the table; what no subject has is left out of it."""


@dataclass(frozen=True)
class Summary:
    """All figures of one subject."""

    name: str
    prompts: int
    """With an answer, and at least one that could be used."""
    results: Sequence[Result]
    figures: Mapping[str, Interval]
    differences: Mapping[str, Interval] = field(default_factory=dict)
    """To the first subject, on the prompts that both have; paired."""

    def record(self) -> dict[str, Any]:
        """Plain data. Nothing in it depends on how often the evaluation was stopped."""
        answers = [
            {"prompt": one.prompt, "seed": one.seed, "figures": dict(one.figures), "failure": one.failure or None}
            for one in self.results
        ]
        return {
            "prompts": self.prompts,
            "figures": {name: asdict(value) for name, value in self.figures.items()},
            "differences_to_the_first": {name: asdict(value) for name, value in self.differences.items()},
            "answers": answers,
        }


def summarise(
    name: str, results: Sequence[Result], captions: Mapping[str, Tensor], reference: Tensor | None
) -> Summary:
    """The figures of one subject's results.

    ``captions`` are the vectors (D,) of all prompts among which each is looked for; ``reference`` (M, F) are the
    features of held-out renders, for the Fréchet distance.
    """
    usable = [one for one in results if not one.failure]
    values = _by_prompt(usable, captions)
    figures = {key: bootstrap_mean(list(values[key].values()), _generator(key)) for key in FIGURES if values.get(key)}
    if len(usable) > 1:
        figures |= _of_sets(usable, reference)
    ordered = {key: figures[key] for key in FIGURES if key in figures}
    return Summary(name, len({one.prompt for one in usable}), results, ordered)


def with_differences(summaries: Sequence[Summary], captions: Mapping[str, Tensor]) -> list[Summary]:
    """The summaries with each one's differences to the first, on the prompts that both have."""
    if not summaries:
        return []
    usable = [[one for one in summary.results if not one.failure] for summary in summaries]
    first, *others = [_by_prompt(one, captions) for one in usable]
    found = [summaries[0]]
    for summary, values in zip(summaries[1:], others, strict=True):
        differences = {}
        for key in FIGURES:
            common = [prompt for prompt in values.get(key, {}) if prompt in first.get(key, {})]
            if common:
                own, theirs = ([side[key][prompt] for prompt in common] for side in (values, first))
                differences[key] = bootstrap_difference(own, theirs, _generator(key), paired=True)
        found.append(Summary(summary.name, summary.prompts, summary.results, summary.figures, differences))
    return found


def _by_prompt(results: Sequence[Result], captions: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Each figure of each prompt, the mean over its seeds: answers to one prompt are not independent."""
    gathered: dict[str, dict[str, list[float]]] = {}
    found = _retrieval(results, captions)
    for result, own in zip(results, found, strict=True):
        figures = {**result.figures, **own}
        if "janus" in figures:
            figures["janus_share"] = float(figures["janus"] >= JANUS)
        for key, value in figures.items():
            gathered.setdefault(key, {}).setdefault(result.prompt, []).append(value)
    return {key: {prompt: sum(one) / len(one) for prompt, one in by.items()} for key, by in gathered.items()}


def _retrieval(results: Sequence[Result], captions: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """R@1 and R@5, 0..1, of each result's views among all captions; nothing for a single one, which is always found."""
    names = list(captions)
    if len(names) < 2:
        return [{} for _ in results]
    vectors = torch.stack([captions[name] for name in names])
    found = []
    for one in results:
        right = {column for column, name in enumerate(names) if bare(name) == bare(one.prompt)}
        places = ranks(one.vectors @ vectors.t(), [right] * len(one.vectors))
        found.append({f"r_at_{k}": float((places < k).double().mean()) for k in (1, 5)})
    return found


def _of_sets(results: Sequence[Result], reference: Tensor | None) -> dict[str, Interval]:
    """What is said of all views together; the answers to one prompt are left out together."""
    prompts = list(dict.fromkeys(one.prompt for one in results))
    groups = {prompt: [one for one in results if one.prompt == prompt] for prompt in prompts}
    if len(prompts) < 2:
        return {}

    def stacked(name: str, kept: NDArray[np.int64]) -> NDArray[np.float64]:
        chosen = [getattr(one, name) for index in kept for one in groups[prompts[index]]]
        return torch.cat(chosen).double().numpy()

    figures = {}
    if results[0].probabilities.shape[1]:
        figures["inception_score"] = jackknife(
            lambda kept: inception_score(stacked("probabilities", kept)), len(prompts)
        )
    if reference is not None and len(reference) > 1:
        real = reference.double().numpy()
        figures["fid"] = jackknife(lambda kept: frechet_distance(stacked("features", kept), real), len(prompts))
    return figures


def _generator(key: str) -> np.random.Generator:
    """One stream for each figure: a figure that is added changes no other's interval."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
