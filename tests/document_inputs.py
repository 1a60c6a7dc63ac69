"""What each document needs to be there before its commands are run: small models, pictures, lists of prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from documents import ROOT
from PIL import Image
from tiny_photos import write_photos

import dream3d.dataset.procedural.make as making

RECIPE = 'steps = 2\n[data]\nviews = "data"\n[batch]\nimage_mode_fraction = 0\nprompt_suffix = ""\n'


def assets(*folders: str) -> Callable[[Path], None]:
    """Folders with three models each."""

    def prepare(here: Path) -> None:
        for seed, name in enumerate(folders):
            making.make_assets(here / name, 3, seed, ("chess-pawn", "apple", "chair"))

    return prepare


def prompts(here: Path) -> None:
    """The lists of prompts, each cut to its first prompt; held-out concepts are not prompts."""
    (here / "prompts").mkdir()
    for path in (ROOT / "prompts").glob("*.txt"):
        text = path.read_text("utf-8")
        if "held-out" not in path.name:
            text = next(line for line in text.splitlines() if line and not line.startswith("#")) + "\n"
        (here / "prompts" / path.name).write_text(text, "utf-8")


def photos(here: Path) -> None:
    """Two pictures whose captions are their names."""
    (here / "photos").mkdir()
    for name, color in (("red_chair", (200, 0, 0)), ("blue_vase", (0, 0, 200))):
        pixels = np.full((20, 30, 3), color, np.uint8)
        Image.fromarray(pixels).save(here / "photos" / f"{name}.png")


def dog_photos(here: Path) -> None:
    """Three photos of one thing."""
    write_photos(here / "dog-photos", 3)


def recipe(here: Path) -> None:
    """A training recipe."""
    (here / "recipe.toml").write_text(RECIPE, "utf-8")


def selection(here: Path) -> None:
    """A selection of objects, and concepts to hold out."""
    (here / "select.json").write_text('[{"id": "chair-00000-00000", "name": "stool", "captions": ["a stool"]}]')
    (here / "concepts.txt").write_text("castle\n")


INPUTS: dict[str, tuple[Callable[[Path], None], ...]] = {
    "README.md": (assets("models"), recipe, prompts, dog_photos),
    "CHANGELOG.md": (),
    "CONTRIBUTING.md": (),
    "docs/ablations.md": (),
    "docs/batch.md": (prompts,),
    "docs/corpus.md": (photos,),
    "docs/dataset-captions.md": (prompts, photos),
    "docs/dataset-make.md": (),
    "docs/dataset.md": (assets("furniture", "toys"), selection),
    "docs/design.md": (),
    "docs/doctor.md": (),
    "docs/dreambooth.md": (dog_photos,),
    "docs/evaluate.md": (prompts,),
    "docs/evaluation.md": (prompts,),
    "docs/export.md": (),
    "docs/generate.md": (),
    "docs/index.md": (),
    "docs/method.md": (),
    "docs/mini.md": (),
    "docs/mv-rag.md": (),
    "examples/rare/README.md": (),
    "docs/models.md": (),
    "docs/python.md": (),
    "docs/replay.md": (),
    "docs/report.md": (),
    "docs/resume.md": (),
    "docs/training.md": (recipe,),
    "docs/tutorial.md": (prompts,),
    "docs/variations.md": (),
    "docs/view.md": (),
    "docs/views.md": (),
    "docs/weights.md": (),
    "examples/mini/README.md": (),
}
"""What each document needs to be there. A new document gets a line here."""
NEEDS_DATA = ("docs/dataset-captions.md", "docs/evaluate.md", "docs/evaluation.md", "docs/training.md")
"""Documents that begin with a folder ``data`` of rendered shards."""
