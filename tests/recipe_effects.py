"""Every field of a recipe is flipped, one at a time, and something measurable must change with it.

A table names for each field another value and what it changes. It is checked against the dataclasses: a new field
without an entry fails, and so does an entry for a field that is gone.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import torch

Recipe = TypeVar("Recipe")
Trace = TypeVar("Trace")


@dataclass(frozen=True)
class Flip(Generic[Trace]):
    """Another value of a field, and what must be seen of it."""

    to: Any
    seen: Callable[[Trace], Any]
    """Measures what a recipe led to."""
    follows: Callable[[Any, Any], object]
    """Whether the measurement after the flip differs as it should from the one before: (after, before)."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Other fields, as they must be before and after for this one to count."""


Table = Mapping[str, Flip[Trace]]


def changes(seen: Callable[[Trace], Any], to: Any, given: Mapping[str, Any] | None = None) -> Flip[Trace]:
    """The measurement is another one, in no direction that is known beforehand."""
    return Flip(to, seen, _differ, given or {})


def rises(seen: Callable[[Trace], Any], to: Any, given: Mapping[str, Any] | None = None) -> Flip[Trace]:
    """The measurement is larger after the flip."""
    return Flip(to, seen, operator.gt, given or {})


def falls(seen: Callable[[Trace], Any], to: Any, given: Mapping[str, Any] | None = None) -> Flip[Trace]:
    """The measurement is smaller after the flip."""
    return Flip(to, seen, operator.lt, given or {})


def becomes(seen: Callable[[Trace], Any], to: Any, value: Any, given: Mapping[str, Any] | None = None) -> Flip[Trace]:
    """The measurement is ``value`` after the flip, and was not before."""
    return Flip(to, seen, lambda after, before: after == value != before, given or {})


def _differ(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return not torch.equal(one, other)
    return bool(one != other)


def places(kind: type, prefix: str = "") -> list[str]:
    """Every field of a dataclass and of those in it, dotted; positions of a pair in brackets.

    An optional dataclass is a field, which can be switched on, and has fields. Of a list of dataclasses each field
    counts once.
    """
    found = []
    for name, hint in get_type_hints(kind).items():
        place, inner = prefix + name, get_args(hint)
        optional = get_origin(hint) in (Union, UnionType) and type(None) in inner
        core = next(part for part in inner if part is not type(None)) if optional else hint
        if get_origin(core) is tuple and dataclasses.is_dataclass(get_args(core)[0]):
            core = get_args(core)[0]
        if dataclasses.is_dataclass(core) and isinstance(core, type):
            found += [place] * optional + places(core, f"{place}.")
        elif get_origin(core) is tuple and ... not in get_args(core) and len(set(get_args(core))) == 1:
            found += [f"{place}[{i}]" for i in range(len(get_args(core)))]
        else:
            found.append(place)
    return found


def changed(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values at dotted places; of a list of dataclasses the last one is changed."""
    for place, value in values.items():
        recipe = _changed(recipe, place, value)
    return recipe


def _changed(recipe: Any, place: str, value: Any) -> Any:
    name, _, rest = place.partition(".")
    pair = re.fullmatch(r"(\w+)\[(\d)\]", name)
    if pair:
        name, index = pair[1], int(pair[2])
        old = getattr(recipe, name)
        value = (*old[:index], value, *old[index + 1 :])
    elif rest:
        inner = getattr(recipe, name)
        value = (
            (*inner[:-1], _changed(inner[-1], rest, value))
            if isinstance(inner, tuple)
            else _changed(inner, rest, value)
        )
    return dataclasses.replace(recipe, **{name: value})


def assert_complete(table: Mapping[str, object], kind: type, besides: Mapping[str, str] | None = None) -> None:
    """The table has an entry for each field of a recipe and no other; ``besides`` says why some have none."""
    expected = set(places(kind)) - set(besides or ())
    assert set(table) == expected, f"without an entry: {expected - set(table)}; unknown: {set(table) - expected}"


class Runs(Generic[Recipe, Trace]):
    """What recipes lead to, each carried out once."""

    def __init__(self, run: Callable[[Recipe], Trace]) -> None:
        self._run, self._done = run, dict[str, Trace]()

    def __call__(self, recipe: Recipe) -> Trace:
        """The trace of a recipe; the same one for the same recipe."""
        key = repr(recipe)
        if key not in self._done:
            self._done[key] = self._run(recipe)
        return self._done[key]

    def check(self, base: Recipe, place: str, flip: Flip[Trace]) -> None:
        """The flip of one field of ``base`` shows."""
        before = changed(base, flip.given)
        after = changed(before, {place: flip.to})
        assert after != before
        seen_after, seen_before = flip.seen(self(after)), flip.seen(self(before))
        assert flip.follows(seen_after, seen_before), f"{place}: {seen_before} -> {seen_after}"
