"""Answers of people and the key of a study, read as files of anybody; and what they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream3d.errors import UsageError, shown
from dream3d.evaluation.preference import Answer
from dream3d.evaluation.study.questions import KEY_FORMAT
from dream3d.files import json_table, read_regular

FORMAT = "dream3d study answers 1"
MAX_BYTES = 2**24
MAX_SYSTEMS = 100
SHARES = {"left": 1.0, "right": 0.0, "same": 0.5}
"""Of the win that goes to the left one, by what was chosen."""


@dataclass(frozen=True)
class Key:
    """Which systems a study's questions are about."""

    study: str
    systems: Sequence[str]
    questions: Mapping[str, tuple[int, int]]
    """Left and right."""


@dataclass(frozen=True)
class Collected:
    """The answers of all people."""

    answers: Sequence[Answer]
    people: int
    left: int
    """Answers for the left one: far from half of those that chose, people did not look."""
    chose: int
    """Answers that were not "about the same"."""


def read_key(path: Path) -> Key:
    """The key that was written with a page. Raises UsageError for a file that is none."""
    facts = _read(path, KEY_FORMAT, "the key of a study")
    systems, questions = facts.get("systems"), facts.get("questions")
    if not isinstance(systems, list) or not isinstance(questions, dict) or not 2 <= len(systems) <= MAX_SYSTEMS:
        raise UsageError(f"{path} does not say which systems it is about; give the file that was written with the page")
    pairs = {}
    for name, pair in questions.items():
        is_pair = isinstance(pair, list) and len(pair) == 2 and all(type(one) is int for one in pair)
        if not is_pair or not all(0 <= one < len(systems) for one in pair) or pair[0] == pair[1]:
            raise UsageError(f"{path}: question {shown(name)} is about {shown(pair)}, which are no two of its systems")
        pairs[name] = (pair[0], pair[1])
    return Key(str(facts.get("study")), [str(name) for name in systems], pairs)


def read_answers(paths: Sequence[Path], key: Key) -> Collected:
    """The answers in files that the page saved, one of each person.

    Raises UsageError for a file that is none, that belongs to another study, that answers a question twice, and for two
    of one person.
    """
    answers: list[Answer] = []
    people: dict[str, Path] = {}
    left = chose = 0
    for path in paths:
        facts = _read(path, FORMAT, "the answers of a study")
        if facts.get("study") != key.study:
            raise UsageError(f"{path} answers another study ({shown(facts.get('study'))}) than the key's ({key.study})")
        person = str(facts.get("person"))[:100]
        if person in people:
            raise UsageError(f"{people[person]} and {path} are of one person; give the later one alone")
        people[person] = path
        for name, choice in _choices(path, facts).items():
            if name not in key.questions:
                raise UsageError(f"{path} answers {shown(name)}, which the key does not have")
            first, second = key.questions[name]
            answers.append(Answer(first, second, SHARES[choice], person))
            left += choice == "left"
            chose += choice != "same"
    return Collected(answers, len(people), left, chose)


def _choices(path: Path, facts: Mapping[str, Any]) -> dict[str, str]:
    """What was chosen in each question of one file."""
    given, choices = facts.get("answers"), dict[str, str]()
    for one in given if isinstance(given, list) else [None]:
        name, choice = (one.get("question"), one.get("choice")) if isinstance(one, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(choice, str) or choice not in SHARES:
            raise UsageError(f"{path}: {shown(one)} is no answer; the choices are {', '.join(SHARES)}")
        if name in choices:
            raise UsageError(f"{path} answers {shown(name)} twice")
        choices[name] = choice
    return choices


def _read(path: Path, kind: str, what: str) -> dict[str, Any]:
    try:
        facts = json_table(read_regular(path, MAX_BYTES), path, UsageError)
    except OSError as error:
        raise UsageError(f"{path}, {what}, cannot be read ({error.strerror or error})") from error
    if facts.get("format") != kind:
        raise UsageError(f"{path} is not {what}; its format is {shown(facts.get('format'))}, not {kind!r}")
    return facts
