"""Who is preferred, and how surely: the Bradley-Terry model of answers to questions about pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dream3d.evaluation.intervals import RESAMPLES, Interval, percentiles

PRIOR = 0.5
"""Wins and defeats against an average opponent that are added to each system: who never lost stays comparable."""
MIN_PEOPLE = 5
"""From so many on, people are resampled, not answers."""
TOLERANCE = 1e-10
ROUNDS = 10_000


@dataclass(frozen=True)
class Answer:
    """One answer about two systems, named by their numbers."""

    first: int
    second: int
    share: float
    """Of the win that goes to the first: 1, 0, or 0.5 for "about the same"."""
    person: str


@dataclass(frozen=True)
class Preference:
    """One system's place."""

    strength: Interval
    """Probability, 0..1, to be preferred to an average system: ``1 / (1 + exp(-log strength))``."""
    won: float
    """Answers, 0 or more, in its favour; half of each "about the same"."""
    asked: int
    """Answers about it."""


def wins_of(answers: Sequence[Answer], systems: int) -> NDArray[np.float64]:
    """(K, K): how often the row's system was preferred to the column's. Raises ValueError for an impossible answer."""
    wins = np.zeros((systems, systems))
    for one in answers:
        if not (0 <= one.first < systems and 0 <= one.second < systems) or one.first == one.second:
            raise ValueError(f"an answer about {one.first} and {one.second} of {systems} systems")
        if not 0 <= one.share <= 1:
            raise ValueError(f"a share of {one.share}, which should be 0 to 1")
        wins[one.first, one.second] += one.share
        wins[one.second, one.first] += 1 - one.share
    return wins


def bradley_terry(wins: NDArray[np.floating] | NDArray[np.integer], prior: float = 0.0) -> NDArray[np.float64]:
    """(K,) log strengths with mean 0: i is preferred to j with probability 1 / (1 + exp(s_j - s_i)).

    ``wins`` (K, K): how often the row's system was preferred. Maximum likelihood (Bradley and Terry 1952) by the
    minorisation of Hunter (2004, equation 3). ``prior`` wins and as many defeats against one more system, of strength
    0, are added to each; with 0 there is no answer where one part of the systems never lost to the rest: ValueError.
    """
    table = np.asarray(wins, dtype=np.float64)
    count = len(table)
    if table.shape != (count, count) or count < 2 or not (table >= 0).all() or not np.isfinite(table).all():
        raise ValueError(f"wins of shape {table.shape}: a square table of counts, of two systems at least")
    if prior == 0 and not _is_connected(table):
        raise ValueError("some systems never lost to the others, so that their strength has no bound; use a prior")
    return _log_strengths(table[None], prior)[0]


def _log_strengths(wins: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """(R, K) of R tables (R, K, K) at once, see :func:`bradley_terry`."""
    wins = wins * (1 - np.eye(wins.shape[-1]))
    games, won = wins + wins.transpose(0, 2, 1), wins.sum(2) + prior
    strength = np.ones(won.shape)
    for _ in range(ROUNDS):
        expected = (games / (strength[:, :, None] + strength[:, None, :])).sum(2) + 2 * prior / (strength + 1)
        new = won / expected
        if prior == 0:  # only ratios are known
            new /= np.exp(np.log(new).mean(1, keepdims=True))
        moved = np.abs(np.log(new / strength)).max()
        strength = new
        if moved < TOLERANCE:
            break
    log_strength = np.log(strength)
    return log_strength - log_strength.mean(1, keepdims=True)


def _is_connected(wins: NDArray[np.float64]) -> bool:
    """Whether every system beat every other one, if only by way of others (Ford 1957)."""
    reach = (wins > 0) | np.eye(len(wins), dtype=bool)
    for _ in range(len(wins)):
        reach = (reach.astype(np.int64) @ reach.astype(np.int64)) > 0
    return bool(reach.all())


def preferences(
    answers: Sequence[Answer], systems: int, generator: np.random.Generator, resamples: int = RESAMPLES
) -> list[Preference]:
    """The place of each system, with percentile bootstrap intervals.

    With :data:`MIN_PEOPLE` people or more, people are drawn with all their answers, since one person's answers are not
    independent; with fewer, single answers are, and the interval tells nothing of other people. ValueError for no
    answers.
    """
    if not answers:
        raise ValueError("there are no answers")
    people = sorted({one.person for one in answers})
    groups = [[one for one in answers if one.person == person] for person in people]
    if len(people) < MIN_PEOPLE:
        groups = [[one] for one in answers]
    tables = np.stack([wins_of(group, systems) for group in groups])
    total = tables.sum(0)
    strength = _chance(bradley_terry(total, PRIOR))
    picked = generator.integers(0, len(tables), (resamples, len(tables)))
    counts = np.stack([np.bincount(row, minlength=len(tables)) for row in picked])
    drawn = _chance(_log_strengths(np.tensordot(counts, tables, 1), PRIOR))
    asked = np.rint((total + total.T).sum(1)).astype(int)
    return [
        Preference(percentiles(float(strength[i]), drawn[:, i]), float(total[i].sum()), int(asked[i]))
        for i in range(systems)
    ]


def _chance(log_strength: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-log_strength))
