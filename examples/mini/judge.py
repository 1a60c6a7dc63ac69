"""What an independent classifier sees in a prior's views and in the meshes made from them.

    pip install 'dream3d[evaluate]'
    cut -f 1 prompts/judge.tsv > judge.txt
    dream3d batch judge.txt --out-dir runs/judge
    python examples/mini/judge.py prompts/judge.tsv --batch runs/judge --out judge.json

The classifier is EfficientNet-Lite2 on ImageNet (Apache-2.0): it reads no text, and nothing here was trained or tuned
on it. The list of classes that count for a prompt was written before any picture was judged. A prompt is a hit if one
of them is among the first five by mean probability over four views. All pictures stand on the prior's own background.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dream3d.batch.jobs import plan
from dream3d.batch.places import LocalPlace
from dream3d.batch.prompts import Entry
from dream3d.cameras import orbit
from dream3d.evaluation.encoders import SIDE, EfficientNetLite2
from dream3d.mesh.reading import read_asset
from dream3d.mesh.shading import shade
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.sampling import sample_views, sampling_for
from dream3d.weights.loading import load_prior

VIEWS = 4
TOP = 5


@dataclass(frozen=True)
class Question:
    """A prompt and the numbers of the classes that count as right."""

    prompt: str
    classes: frozenset[int]


def read_questions(path: Path) -> list[Question]:
    """Lines of prompt, numbers or ranges of classes, and their names for people, by tabs."""
    questions = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            prompt, numbers, _ = line.split("\t")
            ends = [[int(end) for end in part.split("-")] for part in numbers.split()]
            classes = frozenset(number for part in ends for number in range(part[0], part[-1] + 1))
            questions.append(Question(prompt, classes))
    return questions


class Classifier:
    """EfficientNet-Lite2."""

    def __init__(self) -> None:
        self.network = EfficientNetLite2()

    def best(self, images: Tensor) -> list[int]:
        """The first five classes of images (N, 3, S, S) in [0, 1] of one object, by mean probability."""
        _, probabilities = self.network.classify(images)
        return probabilities.mean(0).topk(TOP).indices.tolist()


def mesh_images(path: Path, prior: DiffusionPrior) -> Tensor:
    """(VIEWS, 3, SIDE, SIDE) images in [0, 1] of a mesh as an orbit around it sees it."""
    asset = read_asset(path)
    vertices = asset.vertices / np.linalg.norm(asset.vertices, axis=1).max()
    faces = np.asarray(asset.faces, np.int64)
    cameras = orbit(VIEWS, elevation_deg=15)
    shaded = shade(vertices, faces, asset.appearance, cameras, SIDE, SIDE, background=prior.background, supersample=2)
    return torch.from_numpy(shaded).movedim(-1, 1) / 255


def judge(question: Question, prior: DiffusionPrior, classifier: Classifier, mesh: Path | None) -> dict[str, Any]:
    """What the classifier says of the prior's views of a prompt, and of its mesh if there is one."""
    text = prior.encode_prompt(prior.with_suffix(question.prompt), "")
    cameras = orbit(VIEWS, elevation_deg=15)
    views = sample_views(prior, text, cameras, sampling_for(prior.recommended_preset), seed=0)
    best = {"views": classifier.best(views)}
    if mesh is not None:
        best["mesh"] = classifier.best(mesh_images(mesh, prior))
    return {name: {"best": found, "hit": not question.classes.isdisjoint(found)} for name, found in best.items()}


def main() -> None:
    """Judge the prompts of a list; a line for each, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--batch", type=Path, help="folder that dream3d batch wrote; without it, views alone")
    parser.add_argument("--prior", default="mini")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    prior, classifier = load_prior(arguments.prior), Classifier()
    questions, meshes = read_questions(arguments.questions), dict[str, Path]()
    if arguments.batch is not None:
        entries = [Entry(one.prompt, {}, str(arguments.questions)) for one in questions]
        jobs, _ = plan(entries, [0], {}, prior.digest)
        done = [job for job in jobs if job.result(LocalPlace(arguments.batch)) is not None]
        meshes = {job.prompt: arguments.batch / job.mesh for job in done}
    found = {one.prompt: judge(one, prior, classifier, meshes.get(one.prompt)) for one in questions}
    hits = {name: [one[name]["hit"] for one in found.values() if name in one] for name in ("views", "mesh")}
    sums = {name: f"{sum(those)} of {len(those)}" for name, those in hits.items()}
    arguments.out.write_text(json.dumps({"hits": sums, "prompts": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
