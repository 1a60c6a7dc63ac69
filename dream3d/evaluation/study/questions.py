"""Which pairs people are asked about: random, blind, every pair of systems equally often."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dream3d.errors import Dream3DError, UsageError
from dream3d.evaluation.suite.cases import Case
from dream3d.evaluation.suite.subjects import Subject
from dream3d.images import Picture, contact_sheet, png_bytes, to_uint8

KEY_FORMAT = "dream3d study key 1"
COLUMNS = 2
"""Views beside each other in a picture."""


@dataclass(frozen=True)
class Question:
    """Two pictures beside each other."""

    name: str
    """``q1``, ``q2`` ...: it tells nothing of the systems."""
    prompt: str
    left: int
    right: int
    """Numbers of pictures."""


@dataclass(frozen=True)
class Study:
    """The questions of a page, and what only its key tells."""

    questions: Sequence[Question]
    pictures: Sequence[bytes]
    """PNG files without metadata."""
    systems: Sequence[str]
    owners: Sequence[int]
    """The system of each picture."""
    unusable: Sequence[str] = ()
    """Sentences about models that cannot be shown."""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the questions and pictures: answers say which study they belong to."""
        sha = hashlib.sha256()
        for picture in self.pictures:
            sha.update(hashlib.sha256(picture).digest())
        sha.update(json.dumps([[one.name, one.prompt, one.left, one.right] for one in self.questions]).encode())
        return sha.hexdigest()[:16]

    @property
    def key(self) -> dict[str, Any]:
        """Which systems each question is about, left and right, as plain data. The page does not have it."""
        owners = {one.name: [self.owners[one.left], self.owners[one.right]] for one in self.questions}
        return {"format": KEY_FORMAT, "study": self.digest, "systems": list(self.systems), "questions": owners}


def make_study(systems: Sequence[Subject], cases: Sequence[Case], count: int, generator: np.random.Generator) -> Study:
    """At most ``count`` questions about prompts that two systems or more have an answer to.

    Each pair of systems comes equally often, as far as they have answers; which one is on the left, the prompts and the
    order are drawn from the generator. Raises UsageError if there is no pair.
    """
    pairs = _pairs(systems, cases, generator)[:count]
    pictures: list[bytes] = []
    owners: list[int] = []
    numbers: dict[tuple[int, int], int | None] = {}
    unusable: list[str] = []
    questions: list[Question] = []
    for case, pair in pairs:
        for system in pair:
            if (case, system) not in numbers:
                picture = _picture(systems[system], cases[case], unusable)
                numbers[case, system] = None if picture is None else len(pictures)
                if picture is not None:
                    pictures.append(picture)
                    owners.append(system)
        left, right = (numbers[case, system] for system in pair)
        if left is not None and right is not None:
            questions.append(Question(f"q{len(questions) + 1}", cases[case].prompt, left, right))
    if not questions:
        names = ", ".join(one.name for one in systems)
        why = f": {unusable[0]}" if unusable else ""
        raise UsageError(f"no prompt has usable models of two of {names}{why}; file names, or prompts, must agree")
    order = generator.permutation(len(questions))
    shuffled = [
        Question(f"q{place + 1}", questions[i].prompt, questions[i].left, questions[i].right)
        for place, i in enumerate(order)
    ]
    return Study(shuffled, pictures, [one.name for one in systems], owners, unusable)


def _pairs(
    systems: Sequence[Subject], cases: Sequence[Case], generator: np.random.Generator
) -> list[tuple[int, tuple[int, int]]]:
    """(case, systems from left to right) of all pairs with an answer; no pair of systems comes twice before all."""
    have = [[system.key(case, 0) is not None for system in systems] for case in cases]
    found = []
    for first, second in itertools.combinations(range(len(systems)), 2):
        possible = [case for case in range(len(cases)) if have[case][first] and have[case][second]]
        for turn, index in enumerate(generator.permutation(len(possible))):
            # Left and right take turns in an order that is random, so that neither side gets more of a system.
            swapped = bool((turn + first + second) % 2)
            pair = (second, first) if swapped else (first, second)
            found.append((turn, float(generator.random()), possible[index], pair))
    return [(case, pair) for _, _, case, pair in sorted(found)]


def _picture(system: Subject, case: Case, unusable: list[str]) -> bytes | None:
    """Four views of an answer in a square; None, and a sentence, for a model that cannot be read."""
    try:
        views = to_uint8(system.views(case, 0).movedim(1, -1))
    except Dream3DError as error:
        unusable.append(f"{system.name}, {case.prompt}: {error}")
        return None
    rows: list[Picture] = [views[start : start + COLUMNS] for start in range(0, len(views), COLUMNS)]
    return png_bytes(contact_sheet(rows))
