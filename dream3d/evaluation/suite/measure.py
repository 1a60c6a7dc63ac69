"""From cases and subjects to results: views are drawn or rendered, and looked at by the judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.errors import DatasetError, ExportError
from dream3d.evaluation.consistency import cross_view_consistency, janus_score
from dream3d.evaluation.encoders import ClassifyingEncoder, PerceptualDistance, PictureEncoder, TextImageEncoder
from dream3d.evaluation.pixels import WINDOW, psnr, ssim
from dream3d.evaluation.similarity import image_image_similarity, text_image_similarity, view_agreement
from dream3d.evaluation.suite.cases import Case, Color
from dream3d.evaluation.suite.store import MAX_PICTURED, Result, ResultStore, failed
from dream3d.evaluation.suite.subjects import Subject


@dataclass(frozen=True)
class Judges:
    """The networks that look at views."""

    encoder: TextImageEncoder
    classifier: ClassifyingEncoder | None = None
    """None where it is not installed: there is no inception score then, and features are the encoder's vectors."""
    pictures: PictureEncoder | None = None
    """A second opinion on what is alike, if there is one."""
    distance: PerceptualDistance | None = None
    """Of views and their truth, if there is one."""

    @property
    def digest(self) -> str:
        """Of their weights."""
        others = "".join(f" {one.digest}" for one in (self.pictures, self.distance) if one is not None)
        return f"{self.encoder.digest} {self.classifier.digest if self.classifier else None}{others}"

    @property
    def all(self) -> dict[str, TextImageEncoder | ClassifyingEncoder | PictureEncoder | PerceptualDistance]:
        """Those that there are, by what they judge."""
        found = {
            "encoder": self.encoder,
            "classifier": self.classifier,
            "pictures": self.pictures,
            "distance": self.distance,
        }
        return {role: one for role, one in found.items() if one is not None}

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, F) features of (N, 3, S, S) pictures in [0, 1] for the Fréchet distance, and (N, C) probabilities."""
        if self.classifier is not None:
            return self.classifier.classify(images)
        return self.encoder.embed_images(images), torch.zeros(len(images), 0)


def evaluate(
    subject: Subject,
    cases: Sequence[Case],
    seeds: Sequence[int],
    judges: Judges,
    store: ResultStore,
    on_result: Callable[[Result], object] = lambda result: None,
) -> list[Result]:
    """The results of one subject for every case and seed, in order; those that are in the store are not made again.

    What a subject has no answer to is left out. Views are there for the first :data:`MAX_PICTURED` cases alone. A model
    that cannot be read is a result with a ``failure``.
    """
    results = []
    for number, case in enumerate(cases):
        for seed in seeds:
            key = subject.key(case, seed)
            if key is None:
                continue
            path = store.path([key, case.digest, judges.digest], case.prompt, seed)
            result = store.find(path)
            if result is None:
                result = _answer(subject, case, seed, judges)
                store.keep(path, result)
            if number >= MAX_PICTURED:  # a thousand prompts' views of large assets would fill the memory
                result = replace(result, views=result.views[:0].clone())
            results.append(result)
            on_result(result)
    return results


def _answer(subject: Subject, case: Case, seed: int, judges: Judges) -> Result:
    try:
        views = subject.views(case, seed)
    except (DatasetError, ExportError) as error:
        return failed(case.prompt, seed, str(error))
    return measure(case, seed, views, subject.background, judges)


def measure(case: Case, seed: int, views: Tensor, background: Color, judges: Judges) -> Result:
    """All that can be said of the views (V, 3, S, S) in [0, 1] of one case."""
    # As bytes, since that is what is kept: a result of the store and a new one are the same.
    kept = (views * 255).round().byte()
    views = kept.float() / 255
    vectors = judges.encoder.embed_images(views)
    text = judges.encoder.embed_texts([case.prompt])[0]
    features, probabilities = judges.features(views)
    figures = {
        "text_image": text_image_similarity(vectors, text),
        "view_agreement": view_agreement(vectors),
        "consistency": cross_view_consistency(views, case.cameras),
        "janus": janus_score(views),
    }
    if case.pictures is not None and len(case.pictures):
        figures["image_image"] = image_image_similarity(vectors, judges.encoder.embed_images(case.pictures))
        if judges.classifier is not None:
            references, _ = judges.classifier.classify(case.pictures)
            figures["image_image_classifier"] = image_image_similarity(features, references)
        if judges.pictures is not None:
            pair = (judges.pictures.embed_images(one) for one in (views, case.pictures))
            figures["image_image_pictures"] = image_image_similarity(*pair)
    truth = case.truth_over(background) if case.is_exact else None
    if truth is not None:
        figures |= _against(views, truth, judges.distance)
    return Result(case.prompt, seed, figures, kept, vectors, text, features, probabilities)


def _against(views: Tensor, truth: Tensor, distance: PerceptualDistance | None) -> dict[str, float]:
    """PSNR, SSIM and, if somebody judges it, LPIPS, at the smaller one's size."""
    size = min(views.shape[-1], truth.shape[-1])
    shown, real = (
        one if one.shape[-1] == size else F.interpolate(one, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
        for one in (views, truth)
    )
    figures = {"psnr": float(psnr(shown, real).mean())}
    if size >= WINDOW:
        figures["ssim"] = float(ssim(shown, real).mean())
    if distance is not None:
        figures["lpips"] = float(distance.distances(shown, real).mean())
    return figures
