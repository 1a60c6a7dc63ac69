"""What finds a field without an effect, on recipes of two fields."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from recipe_effects import Flip, Runs, assert_complete, becomes, changed, changes, falls, places, rises


@dataclass(frozen=True)
class Part:
    size: int = 1
    pair: tuple[float, float] = (1.0, 2.0)


@dataclass(frozen=True)
class Whole:
    part: Part = Part()
    many: tuple[Part, ...] = (Part(), Part())
    maybe: Part | None = None
    words: tuple[str, ...] = ()
    number: float | None = None
    idle: int = 0


PLACES = [f"{name}.{rest}" for name in ("part", "many", "maybe") for rest in ("size", "pair[0]", "pair[1]")]


def test_every_field_is_found_and_an_optional_part_is_one_too() -> None:
    assert sorted(places(Whole)) == sorted([*PLACES, "maybe", "words", "number", "idle"])


def test_a_field_is_changed_at_its_place_alone() -> None:
    assert changed(Whole(), {"part.pair[1]": 3.0}) == Whole(part=Part(pair=(1.0, 3.0)))
    assert changed(Whole(), {"many.size": 3}) == Whole(many=(Part(), Part(3)))
    assert changed(Whole(), {"maybe": Part(), "maybe.size": 4}) == Whole(maybe=Part(4))


def test_a_table_must_have_every_field_and_no_other() -> None:
    table = dict.fromkeys(places(Part))
    assert_complete(table, Part)
    with pytest.raises(AssertionError, match=r"without an entry: \{'pair\[1\]'\}"):
        assert_complete({"size": None, "pair[0]": None}, Part)
    with pytest.raises(AssertionError, match=r"unknown: \{'colour'\}"):
        assert_complete({**table, "colour": None}, Part)
    assert_complete({"size": None, "pair[0]": None}, Part, {"pair[1]": "a reason"})


def test_a_field_without_its_effect_is_told() -> None:
    seen = list[Whole]()

    def run(recipe: Whole) -> Whole:
        seen.append(recipe)
        return recipe

    runs, whole = Runs(run), Whole()
    runs.check(whole, "part.size", rises(lambda one: one.part.size, 2))
    runs.check(whole, "part.size", falls(lambda one: -one.part.size, 2))
    runs.check(whole, "words", becomes(lambda one: len(one.words), ("a", "b"), 2))
    assert len(seen) == 3  # what is the same is carried out once
    flips: list[Flip[Whole]] = [
        changes(lambda one: one.part, 1),
        rises(lambda one: -one.idle, 1),
        falls(lambda one: one.idle, 1),
    ]
    for flip in flips:
        with pytest.raises(AssertionError, match=r"idle: .* -> "):
            runs.check(whole, "idle", flip)
    with pytest.raises(AssertionError):
        runs.check(whole, "idle", changes(lambda one: one.idle, 0))  # no other value
