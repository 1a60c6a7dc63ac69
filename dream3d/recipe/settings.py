"""Frozen dataclasses of settings from plain data: json, TOML, ``key=value``; strict, with errors for people."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import types
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from dream3d.bounds import check_setting, field_hints
from dream3d.errors import UsageError, shown

Settings = TypeVar("Settings")


def parse_settings(kind: type[Settings], data: Mapping[str, Any]) -> Settings:
    """Settings of a dataclass from nested tables; its defaults where a key is missing.

    UsageError for unknown keys (with the known ones), for what :func:`dream3d.bounds.check_setting` refuses, and for
    whatever the dataclasses refuse themselves.
    """
    if not isinstance(data, Mapping):
        raise UsageError(f"settings should be a table, got {shown(data)}")
    return _parse(kind, data, "")


def apply_change(data: dict[str, Any], change: str) -> None:
    """Put a change like ``optimizer.rate=1e-4`` into nested tables: a value of TOML, or words without quotes.

    Raises UsageError for another form, and for a table where there is a value.
    """
    key, equals, text = change.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise UsageError(f"--set {shown(change)} is not key=value, such as optimizer.rate=1e-4")
    value: Any = text.strip()  # words need no quotes
    with contextlib.suppress(ValueError, RecursionError):
        parsed = tomllib.loads(f"v = {text}")
        value = parsed["v"] if list(parsed) == ["v"] else value  # not the lines that could follow it
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise UsageError(f"--set {shown(change)}: {table} is a value, not a table")
    data[last] = value


def _parse(kind: type[Settings], data: Mapping[str, Any], prefix: str) -> Settings:
    hints = field_hints(kind)  # type: ignore[arg-type]
    unknown = [key for key in data if key not in hints]
    if unknown:
        raise UsageError(f"unknown recipe key {shown(f'{prefix}{unknown[0]}')}; known here: {', '.join(hints)}")
    for part in dataclasses.fields(kind):  # type: ignore[arg-type]
        bare = part.default is dataclasses.MISSING and part.default_factory is dataclasses.MISSING
        if bare and part.name not in data:
            raise UsageError(f"recipe key {prefix + part.name!r} is missing")
    values = {}
    for key, value in data.items():
        values[key] = _converted(value, hints[key], prefix + key)
        check_setting(values[key], hints[key], prefix + key)
    return kind(**values)


def _converted(value: Any, hint: Any, key: str) -> Any:
    """Lists as tuples and tables as dataclasses where a setting has these; all else as it is."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Annotated, Union, types.UnionType):
        for one in inner[:1] if origin is Annotated else inner:
            value = _converted(value, one, key)
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = inner if len(inner) == len(value) and inner[-1] is not ... else inner[:1] * len(value)
        pairs = zip(value, kinds, strict=True)
        return tuple(_converted(part, kind, f"{key}[{i}]") for i, (part, kind) in enumerate(pairs))
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return _parse(hint, value, f"{key}.")
    return value
