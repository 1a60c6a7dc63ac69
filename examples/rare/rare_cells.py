"""One answer of a prior, drawn and judged: a cell of the evaluation, and the file that keeps what was measured."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rare_cases import Case
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.evaluation.encoders import ClassifyingEncoder
from dream3d.evaluation.similarity import image_image_similarity
from dream3d.files import parse_json, write_atomically
from dream3d.generate import generate, resume
from dream3d.images import side_by_side, to_uint8, write_png
from dream3d.mesh.reading import read_asset
from dream3d.mesh.shading import shade_asset
from dream3d.names import slug
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.image_encoder import ImageEncoder
from dream3d.prior.sampling import SamplingRecipe, sample_views
from dream3d.recipe.generation import Recipe
from dream3d.retrieval.guided import with_references
from dream3d.retrieval.references import Reference
from dream3d.retrieval.run_pictures import Guides, weights
from dream3d.run.folder import read_run

ELEVATION_DEG = 15.0
"""Of the drawn views, and of the truth."""
MESH_SIDE = 128
JUDGES = ("encoder", "classifier")


@dataclass(frozen=True)
class Arm:
    """A way to ask for a thing."""

    name: str
    pictures: int = 4
    """0: by text alone."""
    wrong: int = 0
    """Of the pictures, the last ones, that show another thing."""
    alpha: float | None = None
    """Weight of the text; None: measured (``--fusion auto``)."""
    encoder: Path | None = None
    """Folder of DINOv2 that measures it; None: the adapter's own image encoder does."""


TEXT, AUTO = Arm("text only", 0), Arm("MV-RAG")
MAIN = (TEXT, AUTO, Arm("fusion 0.3", alpha=0.3), Arm("fusion 1.0", alpha=1.0))
SWEEPS = (
    *(Arm(f"{count} picture{'s' * (count > 1)}", count) for count in (1, 2, 3, 5, 6)),
    *(Arm(f"{count} of 4 wrong", wrong=count) for count in (1, 2, 3, 4)),
)


@dataclass(frozen=True)
class Place:
    """Which cell: what is asked for, of whom, and how."""

    domain: str
    """``rare`` or ``in-domain``."""
    kind: str
    """``views``, as the prior draws them, or ``mesh``: views of the 3D asset."""
    prior: str
    arm: str
    case: str
    seed: int


@dataclass(frozen=True)
class Cell:
    """What was measured."""

    place: Place
    key: str
    """Of all that the figures depend on."""
    similarity: dict[str, float]
    """To the truth, by :data:`JUDGES`: the mean cosine of every pair of a view and a true one."""
    seconds: dict[str, float]
    alpha: float | None = None
    """Weight of the text; None without pictures."""


@dataclass(frozen=True)
class Judges:
    """Who compares."""

    encoder: ImageEncoder
    classifier: ClassifyingEncoder
    digest: str
    """Of both."""

    def similarity(self, views: Tensor, truth: Tensor) -> dict[str, float]:
        """Of (V, 3, S, S) with (N, 3, T, T) in [0, 1]: the classifier by its penultimate features."""
        pairs = (
            (self.encoder.embed_images(views), self.encoder.embed_images(truth)),
            (self.classifier.classify(views)[0], self.classifier.classify(truth)[0]),
        )
        return {name: image_image_similarity(*pair) for name, pair in zip(JUDGES, pairs, strict=True)}


@dataclass
class Drawn:
    """An answer."""

    views: Tensor
    """(V, 3, S, S) in [0, 1]."""
    alpha: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def shown_pictures(case: Case, others: Sequence[Case], arm: Arm, seed: int) -> tuple[Reference, ...]:
    """The pictures of an arm; which wrong ones there are depends on case and seed alone."""
    right = case.pictures[: arm.pictures]
    if not arm.wrong:
        return right
    strangers = [picture for other in others if other.name != case.name for picture in other.pictures]
    digest = hashlib.sha256(f"{case.name} {seed}".encode()).digest()
    order = np.random.default_rng(np.frombuffer(digest, np.uint32)).permutation(len(strangers))
    wrong = [strangers[int(index)] for index in order[: arm.wrong]]
    return (*right[: len(right) - arm.wrong], *wrong)


def draw_views(
    prior: DiffusionPrior, prompt: str, pictures: Sequence[Reference], arm: Arm, seed: int, recipe: SamplingRecipe
) -> Drawn:
    """The views that a prior draws, as ``dream3d views`` does, with the seconds of each part."""
    drawn, cameras = Drawn(torch.zeros(0)), orbit(prior.views, elevation_deg=ELEVATION_DEG)
    with _timed(drawn, "text"):
        told = prior.encode_prompt(prior.with_suffix(prompt), "")
    if pictures:
        with _timed(drawn, "alpha"):
            fusion = weights(prior, told, Guides(tuple(pictures), arm.alpha, arm.encoder), seed, cameras, recipe)
        with _timed(drawn, "pictures"):
            told = with_references(prior, told, pictures, fusion)
        drawn.alpha = fusion.alpha
    with _timed(drawn, "views"):
        drawn.views = sample_views(prior, told, cameras, recipe, seed).cpu()
    return drawn


def draw_mesh(
    prior: DiffusionPrior,
    prompt: str,
    pictures: Sequence[Reference],
    arm: Arm,
    seed: int,
    recipe: Recipe,
    folder: Path,
) -> Drawn:
    """The 3D asset of a prompt in a folder of its own, re-rendered; a run that was stopped there goes on."""
    out, run = folder / "mesh.glb", folder / "run"
    if (run / "run.json").is_file():
        resume(run, prior=prior, out=out)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        guides = Guides(tuple(pictures), arm.alpha, arm.encoder) if pictures else None
        generate(
            prompt, prior=prior, recipe=recipe, seed=seed, device=str(prior.device), out=out, run_dir=run, guides=guides
        )
    cameras = orbit(prior.views, elevation_deg=ELEVATION_DEG)
    views = torch.from_numpy(shade_asset(read_asset(out), cameras, MESH_SIDE, prior.background)).movedim(-1, 1) / 255
    facts = read_run(run)
    alpha = facts["images"]["fusion"]["alpha"] if pictures else None
    return Drawn(views, alpha, {"asset": float(facts["result"]["seconds"])})


@contextlib.contextmanager
def _timed(drawn: Drawn, part: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    drawn.seconds[part] = time.perf_counter() - started


def key_of(place: Place, *depends: object) -> str:
    """24 hexadecimal digits of a place and of what else the figures there depend on."""
    text = json.dumps([dataclasses.asdict(place), *map(str, depends)])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Results:
    """Cells in a folder, a line of JSON for each, so that a stopped evaluation goes on; their views lie beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "cells.jsonl"
        (folder / "views").mkdir(parents=True, exist_ok=True)
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []
        cells = [cell for cell in map(_parsed, lines) if cell is not None]
        self.cells = {cell.key: cell for cell in cells}
        if len(cells) < len(lines):  # a line that was cut off, which the next one would be added to
            whole = "".join(_line(cell) for cell in cells)
            write_atomically(self.file, lambda path: path.write_text(whole, encoding="utf-8"))

    def has(self, key: str) -> bool:
        """Whether a cell is finished."""
        return key in self.cells and self._picture(key).is_file()

    def keep(self, cell: Cell, views: Tensor) -> None:
        """Write a cell and its views (V, 3, S, S)."""
        write_png(self._picture(cell.key), side_by_side(to_uint8(views.movedim(1, -1))))
        with self.file.open("a", encoding="utf-8") as file:
            file.write(_line(cell))
        self.cells[cell.key] = cell

    def views(self, key: str) -> Image.Image:
        """The views of a cell side by side."""
        return Image.open(self._picture(key)).convert("RGB")

    def _picture(self, key: str) -> Path:
        return self.folder / "views" / f"{slug(key)}.png"


def _line(cell: Cell) -> str:
    return json.dumps(dataclasses.asdict(cell)) + "\n"


def _parsed(line: str) -> Cell | None:
    """The cell of a line; None for one that is cut off or of another version."""
    try:
        data: Any = parse_json(line)
        place = Place(**data.pop("place"))
        cell = Cell(place, **data)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return cell if set(cell.similarity) == set(JUDGES) else None
