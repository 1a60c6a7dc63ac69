"""What all cells say together: a table with paired bootstrap intervals, a sheet of all views, and a quiz for people."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import METHODS, SEEDS, Model
from torch import Tensor

from dream3d.dataset.decoding import read_rgba
from dream3d.evaluation.intervals import bootstrap_difference
from dream3d.files import read_regular
from dream3d.images import Picture
from dream3d.personalise.samples import as_tensor
from dream3d.report.sheet import labelled_sheet
from dream3d.report.tables import number, table
from dream3d.retrieval.pictures import MAX_BYTES, MAX_PIXELS

Figures = Mapping[str, float]
Cells = Mapping[tuple[str, str], Figures]
"""Figures by thing and method."""
Tell = Callable[[Cells, Sequence[str], str, str], str]
"""What a method's column says of a figure, of some things: :func:`mean` or :func:`against_base`."""
BOOTSTRAP_SEED = 0
LABELS = {"base": "base", **{m.label: f"{m.name}, lambda {m.preservation:g}" for m in METHODS[1:]}}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def markdown(cells: Cells, things: Sequence[str], encoders: Sequence[str]) -> str:
    """A column for each method: means over things, and what is more than the base's with its 95 % interval.

    A thing counts for a method if it was measured for the base too.
    """
    of = {label: [one for one in things if {(one, label), (one, "base")} <= cells.keys()] for label in LABELS}
    of = {label: those for label, those in of.items() if those}
    rows = [["things", *(str(len(those)) for those in of.values())]]
    for name in encoders:
        counts = (right(cells, those, label, name, things) for label, those in of.items())
        rows.append([f"nearest is right, {name}", *map(str, counts)])
    lines: list[tuple[str, str, Tell]] = [
        *((f"similarity, {name}", f"similarity/{name}/{{}}", against_base) for name in encoders),
        ("consistency", "consistency_thing", against_base),
        ("sides differ", "sides_differ", against_base),
        ("others: consistency", "consistency_others", against_base),
        ("others: change", "others_change", mean),
        *((f"others: cosine, {name}", f"others/{name}", mean) for name in encoders),
        ("class: change", "class_change", mean),
        *((f"class: similarity, {name}", f"class_similarity/{name}", against_base) for name in encoders),
    ]
    rows += [[words, *(tell(cells, of[label], label, key) for label in of)] for words, key, tell in lines]
    seeds = [cells[one, "base"]["two_seeds"] for one in of.get("base", ())]
    note = f"\nFor scale: the base's views of one thing by two seeds differ by {number(float(np.mean(seeds)))}.\n"
    head = table(["", *(LABELS[label] for label in of)], rows) + (note if seeds else "")
    return head + "\n" + by_thing(cells, things, encoders)


def by_thing(cells: Cells, things: Sequence[str], encoders: Sequence[str]) -> str:
    """Similarity of each thing by each method and encoder, so that means hide nothing."""
    rows = []
    for one in things:
        for name in encoders:
            found = [cells.get((one, label), {}).get(f"similarity/{name}/{one}", float("nan")) for label in LABELS]
            rows.append([one, name, *(number(value) for value in found)])
    return table(["thing", "similarity by", *LABELS.values()], rows)


def mean(cells: Cells, things: Sequence[str], label: str, key: str) -> str:
    """Of a figure over things; ``{}`` in the key is the thing."""
    return number(float(np.mean([cells[one, label][key.format(one)] for one in things])))


def against_base(cells: Cells, things: Sequence[str], label: str, key: str) -> str:
    """The mean, and by how much it is above the base's: paired over things (:func:`bootstrap_difference`)."""
    told = mean(cells, things, label, key)
    if label == "base":
        return told
    ours, base = ([cells[one, which][key.format(one)] for one in things] for which in (label, "base"))
    if len(things) == 1:
        return f"{told} ({ours[0] - base[0]:+.3f})"  # one thing has no interval
    more = bootstrap_difference(ours, base, np.random.default_rng(BOOTSTRAP_SEED), paired=True)
    return f"{told} ({more.value:+.3f}, {more.low:+.3f} to {more.high:+.3f})"


def right(cells: Cells, measured: Sequence[str], label: str, encoder: str, things: Sequence[str]) -> int:
    """How many things' views are more like the held-out pictures of that thing than like those of all others."""
    return sum(max(things, key=lambda t: cells[o, label][f"similarity/{encoder}/{t}"]) == o for o in measured)


def strip(views: Path, name: str, side: int) -> Tensor:
    """(N, 3, side, side): pictures that :func:`cells.sets_of` kept."""
    rgba = read_rgba(read_regular(views / f"{name}.png", MAX_BYTES), MAX_PIXELS, ("PNG",))
    return as_tensor(np.stack(np.split(rgba[..., :3], rgba.shape[1] // side, axis=1)))


def sheet(views: Path, models: Sequence[Model], cells: Cells) -> Picture:
    """A row for each thing: photos, held-out pictures, and the views of the first seed by each method."""
    rows = []
    for model in models:
        side = model.true.shape[-1]
        photos = as_tensor(model.photos.pictures)
        count = len(photos)
        rows += [(f"{model.name}: photos", photos), ("held out", _to_length(model.true, count))]
        for label, words in LABELS.items():
            drawn = torch.ones(0, 3, side, side)
            if (model.name, label) in cells:
                both = strip(views, f"{model.name}-{label}", side)
                drawn = both[: len(both) // len(SEEDS)]
            rows.append((words, _to_length(drawn, count)))
    return labelled_sheet(rows, 2 + len(LABELS))


def quiz(views: Path, models: Sequence[Model], label: str) -> tuple[Picture, dict[str, Any]]:
    """Views with letters beside photos with numbers, both shuffled, and which number belongs to each letter."""
    rng, side = random.Random(label), models[0].true.shape[-1]
    lettered, numbered = (rng.sample(list(models), len(models)) for _ in range(2))
    rows = []
    for index, (one, other) in enumerate(zip(lettered, numbered, strict=True)):
        drawn = strip(views, f"{one.name}-{label}", side)
        photos = as_tensor(other.photos.pictures)
        count = max(len(photos), len(drawn) // len(SEEDS))
        rows += [
            (f"views {LETTERS[index]}", _to_length(drawn[: len(drawn) // len(SEEDS)], count)),
            (f"photos {index + 1}", _to_length(photos, count)),
        ]
    answers = {LETTERS[i]: numbered.index(one) + 1 for i, one in enumerate(lettered)}
    return labelled_sheet(rows, 2), {"method": label, "answers": answers}


def _to_length(pictures: Tensor, count: int) -> Tensor:
    """The first so many, with white ones for those that lack."""
    white = torch.ones(max(0, count - len(pictures)), *pictures.shape[1:])
    return torch.cat([pictures[:count], white])
