"""Frozen dataclasses of settings from plain data: json, TOML, ``key=value``; strict, with errors for people."""

from __future__ import annotations

import dataclasses
import math
import sys
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from dream3d.errors import UsageError

Settings = TypeVar("Settings")


def parse_settings(kind: type[Settings], data: Mapping[str, Any]) -> Settings:
    """Settings of a dataclass from nested tables; its defaults where a key is missing.

    Numbers, texts, literals, tuples, optional values and dataclasses in dataclasses. UsageError for unknown keys (with
    the known ones), for wrong types, and for whatever the dataclasses refuse themselves.
    """
    return _parse(kind, data, "")


def apply_change(data: dict[str, Any], change: str) -> None:
    """Put a change like ``optimizer.rate=1e-4`` into nested tables: a value of TOML, or words without quotes.

    Raises UsageError for another form, and for a table where there is a value.
    """
    key, equals, text = change.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise UsageError(f"--set {change!r} is not key=value, such as optimizer.rate=1e-4")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except (ValueError, KeyError):
        value = text.strip()  # words need no quotes
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise UsageError(f"--set {change!r}: {table} is a value, not a table")
    data[last] = value


def _parse(kind: type[Settings], data: Mapping[str, Any], prefix: str) -> Settings:
    hints = get_type_hints(kind)
    unknown = [key for key in data if key not in hints]
    if unknown:
        raise UsageError(f"unknown recipe key {prefix + unknown[0]!r}; known here: {', '.join(hints)}")
    for part in dataclasses.fields(kind):  # type: ignore[arg-type]
        bare = part.default is dataclasses.MISSING and part.default_factory is dataclasses.MISSING
        if bare and part.name not in data:
            raise UsageError(f"recipe key {prefix + part.name!r} is missing")
    return kind(**{key: _value(hints[key], value, prefix + key) for key, value in data.items()})


def _value(hint: Any, value: Any, key: str) -> Any:
    if not _fits(hint, value):
        raise UsageError(f"recipe key {key!r} is {value!r}, which should be {_words(hint)}")
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _value(next(one for one in inner if _fits(one, value)), value, key)
    if origin is tuple:
        kinds = [inner[0]] * len(value) if inner[-1] is ... else inner
        return tuple(_value(one, part, f"{key}[{i}]") for i, (one, part) in enumerate(zip(kinds, value, strict=True)))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return _parse(hint, value, f"{key}.")
    return value


def _fits(hint: Any, value: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(one, value) for one in inner)
    if origin is Literal:
        return value in inner if isinstance(value, str) else False
    if origin is tuple:
        if not isinstance(value, list | tuple) or (inner[-1] is not ... and len(value) != len(inner)):
            return False
        return all(_fits(inner[0] if inner[-1] is ... else inner[i], one) for i, one in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _words(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(one) for one in inner)
    if origin is Literal:
        return " or ".join(f'"{one}"' for one in inner)
    if origin is tuple:
        count = "a list" if inner[-1] is ... else f"a list of {len(inner)}"
        return f"{count}, each {_words(inner[0])}"
    if origin is not None or dataclasses.is_dataclass(hint):
        return "a table"
    return {float: "a number", int: "a whole number", str: "text", type(None): "nothing"}.get(hint, str(hint))
