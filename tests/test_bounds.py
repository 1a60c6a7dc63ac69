"""Settings of any values are valid or refused in one line; every number has bounds, which hold wherever it is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dream3d.bounds import Between, Options, Settings, field_hints
from dream3d.cameras import CameraRange
from dream3d.cli.views import OrbitOptions
from dream3d.dataset.images import ImageOptions
from dream3d.dataset.rendering.dataset import DatasetPlan
from dream3d.dataset.rendering.views import ViewsRecipe
from dream3d.errors import UsageError
from dream3d.prior.sampling import SamplingRecipe
from dream3d.recipe.generation import OptimizerRecipe, Recipe, TargetRecipe
from dream3d.recipe.overrides import Overrides, changed_recipe
from dream3d.recipe.presets import PRESETS, preset
from dream3d.recipe.scene import Linear
from dream3d.recipe.settings import parse_settings
from dream3d.training.recipe import TrainingRecipe
from dream3d.training.tasks.contrastive import ContrastiveRecipe

WHOLE = (Recipe, TrainingRecipe, ContrastiveRecipe, ViewsRecipe, SamplingRecipe, ImageOptions, DatasetPlan, Overrides)
NEEDED: dict[type, dict[str, Any]] = {
    Recipe: {"name": "x"},
    TrainingRecipe: {"data": {"views": "v"}, "batch": {"image_mode_fraction": 0.0}},
    OrbitOptions: {"views": 4, "elevation": 15.0, "azimuth": 0.0, "span": 360.0},
}
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([-1, 0, 1, 2, 5000, 10**6, 10**7, 10**9, 2**63, 10**400, -(10**400), 1e308, 1e-308, True]),
)
TEXTS = st.one_of(st.text(max_size=20), st.sampled_from(["\0", "\ud800", "\x1b]0;t\x07", "x0", "mini", "y" * 20_000]))
JSON = st.recursive(
    st.one_of(st.none(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


def leaves(kind: type, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every field of settings and of those in them, with its type."""
    for name, hint in field_hints(kind).items():
        yield (*place, name), hint
        for one in (hint, *get_args(hint), *(deep for part in get_args(hint) for deep in get_args(part))):
            if isinstance(one, type) and issubclass(one, Settings):
                yield from leaves(one, (*place, name))


def unbounded(hint: Any) -> bool:
    """Whether a type has a number without bounds."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return not isinstance(inner[1], Between)
    if origin in (Union, UnionType, tuple):
        return any(map(unbounded, inner))
    return hint in (int, float) or hint is Linear


def put(data: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The nested tables with another value at a place; of a list, in its last table."""
    name, *rest = place
    if not rest:
        return {**data, name: value}
    inner = data.get(name)
    if isinstance(inner, list | tuple) and inner:
        last = inner[-1] if isinstance(inner[-1], dict) else {}
        return {**data, name: [*inner[:-1], put(last, tuple(rest), value)]}
    return {**data, name: put(inner if isinstance(inner, dict) else {}, tuple(rest), value)}


def is_fit(kind: type, data: Mapping[str, Any]) -> bool:
    """Whether settings are valid; a refusal must be one line of ours."""
    try:
        parse_settings(kind, data)
    except UsageError as error:
        said = str(error)
    else:
        return True
    assert len(said.splitlines()) == 1
    assert len(said) <= 1000
    return False


@pytest.mark.parametrize("kind", [*WHOLE, OrbitOptions])
def test_every_number_of_settings_has_bounds(kind: type) -> None:
    schedule = {"start", "end"}  # of a Linear, bounded where it is used
    missing = [place for place, hint in leaves(kind) if unbounded(hint) and place[-1] not in schedule]
    assert missing == []


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_settings_of_any_values_are_valid_or_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(WHOLE))
    base = preset(data.draw(st.sampled_from(sorted(PRESETS)))).to_dict() if kind is Recipe else NEEDED.get(kind, {})
    places = [place for place, _ in leaves(kind)]
    for _ in range(data.draw(st.integers(1, 3))):
        base = put(base, data.draw(st.sampled_from(places)), data.draw(JSON))
    is_fit(kind, base)


@pytest.mark.parametrize(
    ("made", "meant"),
    [
        (OptimizerRecipe(betas=(0, 0.99)).betas, (0.0, 0.99)),  # torch refuses pairs of one float and one int
        (Linear(1, 0.5, 10), Linear(1.0, 0.5, 10)),
        (TargetRecipe(noise=1).noise, 1.0),
        (TargetRecipe(noise=None).noise, None),
        (CameraRange(elevation_deg=(0, 35)).elevation_deg, (0.0, 35.0)),
        (TargetRecipe(elevations_deg=(5, 10)).elevations_deg, (5.0, 10.0)),
        (TargetRecipe(views=4).views, 4),
    ],
)
def test_whole_numbers_become_floats_where_floats_are_meant(made: object, meant: object) -> None:
    assert repr(made) == repr(meant)


@given(JSON)
@settings(max_examples=40, deadline=None)
def test_any_data_is_a_recipe_or_refused(data: Any) -> None:
    with pytest.raises(UsageError):  # none has a name
        Recipe.from_dict(data)


@given(data=st.dictionaries(st.one_of(st.sampled_from(list(field_hints(Recipe))), st.text(max_size=9)), JSON))
@settings(max_examples=60, deadline=None)
def test_any_table_is_a_recipe_or_refused(data: dict[str, Any]) -> None:
    is_fit(Recipe, {"name": "x", **data})
    with pytest.raises(UsageError):
        Recipe.from_dict({**data, "stages": []})


def numbers(kind: type) -> list[tuple[tuple[str, ...], Between, bool]]:
    """Every bounded single number: where, its bounds, and whether it is whole."""
    found = []
    for place, hint in leaves(kind):
        if get_origin(hint) is Annotated and get_args(hint)[0] in (int, float):
            found.append((place, get_args(hint)[1], get_args(hint)[0] is int))
    return found


@pytest.mark.parametrize("kind", [Recipe, TrainingRecipe, ContrastiveRecipe, ViewsRecipe, SamplingRecipe, ImageOptions])
def test_a_number_out_of_its_bounds_is_refused(kind: type) -> None:
    for place, bounds, whole in numbers(kind):
        base = preset("mvdream-shading").to_dict() if kind is Recipe else NEEDED.get(kind, {})
        below, above = bounds.low - (0 if bounds.above else 1), bounds.high + (0 if bounds.below else 1)
        below, above = (int(below), int(above)) if whole else (below, math.nextafter(bounds.high + 0.001, math.inf))
        wrong: Any
        for wrong in (below, above, math.nan, math.inf, -math.inf, 10**400, "1", None, [1], {}, True):
            if get_origin(field_hints(kind).get(place[0])) in (Union, UnionType) and wrong is None:
                continue
            assert not is_fit(kind, put(base, place, wrong)), (place, wrong)


def test_bounds_hold_in_programs_and_on_lines_of_lists_too() -> None:
    with pytest.raises(UsageError, match="'levels' is 10000000, which should be a whole number from 1 to 32"):
        dataclasses.replace(preset("mini").field, levels=10**7)
    with pytest.raises(UsageError, match=r"'fovy_deg\[0\]' is 0, which should be a number from 1 to 170"):
        CameraRange(fovy_deg=(0, 40))
    with pytest.raises(UsageError, match=r"'field\.levels' is 10000000"):
        changed_recipe({"field.levels": "10000000"}, "mini")
    with pytest.raises(UsageError, match="'steps' is <int too long to show>"):
        preset("mini").with_steps(10**5000)
    with pytest.raises(UsageError, match=r"'steps' is '3\\nname = 4'"):
        changed_recipe({"steps": "3\nname = 4"}, "mini")
    with pytest.raises(UsageError, match="--views is 65, which should be a whole number from 1 to 64"):
        OrbitOptions(65, 0.0, 0.0, 360.0)
    assert issubclass(OrbitOptions, Options)
