from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from dream3d.errors import UsageError
from dream3d.recipe.generation import Recipe, TargetRecipe
from dream3d.recipe.presets import PRESETS, preset
from dream3d.recipe.scene import ShadingRecipe
from dream3d.recipe.settings import apply_change, parse_settings


@dataclass(frozen=True)
class Inner:
    size: int
    pair: tuple[int, str] = (1, "a")


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner(1)
    many: tuple[Inner, ...] = ()
    maybe: Inner | None = None
    kind: Literal["x", "y"] = "x"
    number: float | None = None


def test_nested_tables_become_dataclasses() -> None:
    data = {"inner": {"size": 2}, "many": [{"size": 3, "pair": [4, "b"]}], "maybe": {"size": 5}, "number": 1}
    assert parse_settings(Outer, data) == Outer(Inner(2), (Inner(3, (4, "b")),), Inner(5), "x", 1)
    assert parse_settings(Outer, {"maybe": None}) == Outer()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inner": {}}, r"'inner\.size' is missing"),
        ({"many": [{"size": 1}, {"size": "2"}]}, r"'many\[1\]\.size' is '2', which should be a whole number"),
        ({"many": {"size": 1}}, "should be a list, each a table"),
        ({"inner": {"size": 1, "pair": ["a", "b"]}}, r"'inner\.pair\[0\]' is 'a', which should be a whole number"),
        ({"inner": {"size": 1, "pair": [1]}}, "should be a list of 2"),
        ({"maybe": {"sise": 1}}, r"unknown recipe key 'maybe\.sise'; known here: size, pair"),
        ({"maybe": 3}, "should be a table or nothing"),
        ({"kind": "z"}, '"x" or "y"'),
        ({"number": float("nan")}, "'number' is nan, which should be a number"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_settings(Outer, data)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_recipe_survives_json(name: str) -> None:
    recipe = preset(name).with_steps(70)
    for changed in (recipe, replace(recipe, shading=ShadingRecipe(), targets=(TargetRecipe(),), key=None)):
        assert Recipe.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed


def test_a_change_goes_into_its_table() -> None:
    data: dict[str, Any] = {"inner": {"size": 1}, "kind": "x"}
    apply_change(data, "inner.size=2")
    apply_change(data, "maybe.size = 7")
    apply_change(data, "kind=y")
    assert data == {"inner": {"size": 2}, "maybe": {"size": 7}, "kind": "y"}
    with pytest.raises(UsageError, match="kind is a value, not a table"):
        apply_change(data, "kind.x=2")
