"""Whether a prompt is about something that a prior was taught, and which of its names come nearest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

import torch
import torch.nn.functional as F

from dream3d.prior.image_encoder import pooled_texts
from dream3d.prior.text import PromptEncoder

FAMILIAR = 0.68
"""Cosine of mean MiniLM states from which two phrases mean one thing: "couch" and "sofa" have 0.85, "sedan" and "car"
0.69, "shark" and "fish" 0.62. Chosen on the development lists in prompts/ (docs/mini.md)."""
NEAREST = 3
LONGEST = 6
"""Words of a phrase, counted from its end, that are compared: its noun is the last one."""

_DETAILS = re.compile(r",|\b(?:with|without|in|at|by|for|from|to|made|that|which|who)\b")
_OTHERS = re.compile(r"\b(?:on|onto|over|under|beside|behind|near|riding|holding|wearing|and(?= an? ))\b")
_WORDS = re.compile(r"[\w'-]+")


@dataclass(frozen=True)
class Unfamiliar:
    """A part of a prompt that is far from all names, and the nearest names, nearest first."""

    phrase: str
    nearest: tuple[str, ...]

    def warning(self, prior: str) -> str:
        """One line for people about the prior called ``prior``."""
        nearest = ", ".join(self.nearest)
        phrase = shorten(self.phrase, 80, placeholder=" ...")
        return f"{prior} has never seen anything like '{phrase}'; the nearest names it knows: {nearest}"


def objects_in(prompt: str) -> list[str]:
    """The phrases of a prompt that name an object: "a red cube on a bed with legs" has "a red cube" and "a bed".

    What a preposition adds to an object ("with legs") says how it looks, and is left out.
    """
    subject = _DETAILS.split(prompt.replace("next to", "near"), maxsplit=1)[0]
    return [part.strip() for part in _OTHERS.split(subject) if part.strip()] or [prompt]


def unfamiliar(
    names: Sequence[str], text: PromptEncoder, prompts: Sequence[str], device: torch.device
) -> list[Unfamiliar | None]:
    """For each prompt, its object that is farthest from all ``names``; None if all are near, or if there are no names.

    An object is as near to a name as its last words are, however many of them: "a golden retriever dog" is a dog. Of
    "a slice of cake" either noun counts. The nearness of phrases is the cosine of their mean token states.
    """
    known = {name.lower() for name in names}
    parts = [(i, part, _endings(part)) for i, prompt in enumerate(prompts) for part in objects_in(prompt) if names]
    parts = [(i, part, endings) for i, part, endings in parts if not known.intersection(endings)]
    found: list[Unfamiliar | None] = [None] * len(prompts)
    if not parts:
        return found
    phrases = list(dict.fromkeys([*names, *(phrase for _, _, endings in parts for phrase in endings)]))
    vectors = F.normalize(pooled_texts(text, phrases, device), dim=-1)
    similarity = vectors @ vectors[: len(names)].t()
    place = {phrase: index for index, phrase in enumerate(phrases)}
    lowest = [FAMILIAR] * len(prompts)
    for i, part, endings in parts:
        nearness = similarity[[place[phrase] for phrase in endings]].amax(0)
        if float(nearness.max()) < lowest[i]:
            lowest[i] = float(nearness.max())
            order = nearness.topk(min(NEAREST, len(names))).indices.tolist()
            found[i] = Unfamiliar(part, tuple(names[j] for j in order))
    return found


def _endings(part: str) -> list[str]:
    """The last word of a phrase, the last two, and so on, on either side of "of"."""
    sides = [_WORDS.findall(side.lower())[-LONGEST:] for side in part.split(" of ")]
    return [" ".join(words[i:]) for words in sides for i in range(len(words))] or [part]
