"""Bounds of settings: every field of a dataclass declares its type and range, and one check reads them.

They hold for whoever makes such settings: the command line, a line of a list, a TOML file, a run.json, a program.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import unicodedata
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from dream3d.errors import UsageError, shown

MAX_SEED = 2**63 - 1
"""The largest seed that a torch generator takes on every platform."""

MAX_TEXT_CHARACTERS = 10_000
"""Of a text in settings."""

_REFUSED_CATEGORIES = {"Cc": "a control character", "Cs": "a byte that is not text", "Zl": "a line separator"}
_REFUSED_CATEGORIES["Zp"] = _REFUSED_CATEGORIES["Zl"]


def check_text(text: str, what: str) -> str:
    """``text`` without surrounding blanks; raises UsageError for control characters and undecodable bytes.

    ``what`` names the text in the message, for example "prompt".
    """
    text = text.strip(" \t\r\n")
    for index, character in enumerate(text):
        kind = _REFUSED_CATEGORIES.get(unicodedata.category(character))
        if kind:
            raise UsageError(
                f"the {what} contains {kind} (U+{ord(character):04X}) at character {index + 1}; "
                f"write the {what} as one line of plain text"
            )
    return text


@dataclasses.dataclass(frozen=True)
class Between:
    """Bounds of a number, of all numbers of a tuple, or of both ends of a schedule; belongs into ``Annotated``."""

    low: float
    high: float
    above: bool = False
    """``low`` itself is refused."""
    below: bool = False
    """``high`` itself is refused."""
    rising: bool = False
    """The numbers of a tuple may not fall."""

    def __contains__(self, value: Any) -> bool:
        """Exact for integers of any size; NaN is in no range."""
        low = self.low < value if self.above else self.low <= value
        return bool(low and (value < self.high if self.below else value <= self.high))

    def __str__(self) -> str:
        """Completes "a number"."""
        to = "and below" if self.below else "and up to" if self.above else "to"
        return f"{'above' if self.above else 'from'} {self.low} {to} {self.high}"


Share = Annotated[float, Between(0, 1)]
Seed = Annotated[int, Between(0, MAX_SEED)]


class Settings:
    """Base of frozen dataclasses of settings: making one checks the type and the bounds of every field.

    Where a float is meant, a whole number becomes one, since not every library takes both. Raises UsageError.
    A subclass with rules of its own calls this ``__post_init__`` first.
    """

    spoken = "recipe key {!r}"
    """How messages call a field."""

    def __post_init__(self) -> None:
        """See the class."""
        for name, hint in field_hints(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, name)
            check_setting(value, hint, name, self.spoken)
            object.__setattr__(self, name, with_floats(value, hint))


class Options(Settings):
    """Settings that are the options of a command."""

    spoken = "--{}"


@cache
def field_hints(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields, with their bounds."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def check_setting(
    value: object, hint: Any, name: str, spoken: str = Settings.spoken, bounds: Between | None = None
) -> None:
    """Raises UsageError unless a value has the type ``hint`` and lies within its bounds.

    Types are numbers, texts, literals, tuples, unions, mappings, dataclasses, and these ``Annotated`` with
    :class:`Between`. Numbers must be finite, texts plain and no longer than :data:`MAX_TEXT_CHARACTERS`.
    """
    origin, inner = get_origin(hint), get_args(hint)
    called = spoken.format(name if spoken == Settings.spoken else name.replace("_", "-"))
    if origin is Annotated:
        return check_setting(value, inner[0], name, spoken, inner[1])
    if origin in (Union, types.UnionType):
        chosen = next((one for one in inner if fits(value, one)), None)
        if chosen is not None:
            return check_setting(value, chosen, name, spoken, bounds)
    if not fits(value, hint) or (type(value) in (int, float) and value not in (bounds or _FINITE)):
        raise UsageError(f"{called} is {shown(value)}, which should be {words(hint)} {bounds or ''}".rstrip())
    if isinstance(value, tuple):
        kinds = inner if inner[-1] is not ... else inner[:1] * len(value)
        for index, (part, kind) in enumerate(zip(value, kinds, strict=True)):
            check_setting(part, kind, f"{name}[{index}]", spoken, bounds)
        if bounds and bounds.rising and list(value) != sorted(value):
            raise UsageError(f"{called} is {shown(value)}, which should be rising")
    elif bounds and dataclasses.is_dataclass(value):
        for end in ("start", "end"):
            check_setting(getattr(value, end), float, f"{name}.{end}", spoken, bounds)
    elif isinstance(value, str):
        check_text(value, called)
        if len(value) > MAX_TEXT_CHARACTERS:
            raise UsageError(f"{called} has {len(value)} characters; the limit is {MAX_TEXT_CHARACTERS}")
    return None


def with_floats(value: Any, hint: Any) -> Any:
    """A value that :func:`check_setting` accepted, with floats for whole numbers where the type says float."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return with_floats(value, inner[0])
    if origin in (Union, types.UnionType):
        return value if int in inner else with_floats(value, next(one for one in inner if fits(value, one)))
    if origin is tuple:
        kinds = inner if inner[-1] is not ... else inner[:1] * len(value)
        return tuple(with_floats(part, kind) for part, kind in zip(value, kinds, strict=True))
    return float(value) if hint is float else value


_FINITE = Between(-sys.float_info.max, sys.float_info.max)


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type, by its outermost part alone; a bool is no number, and every int is a float."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fits(value, inner[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and (inner[-1] is ... or len(value) == len(inner))
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def words(hint: Any) -> str:
    """A type in words, for "should be"."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return words(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(words(one) for one in inner)
    if origin is Literal:
        return " or ".join(f'"{one}"' if isinstance(one, str) else str(one) for one in inner)
    if origin is tuple:
        count = "a list" if inner[-1] is ... else f"a list of {len(inner)}"
        return f"{count}, each {words(inner[0])}"
    if origin is not None or dataclasses.is_dataclass(hint):
        return "a table"
    known = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "nothing"}
    return known.get(hint, str(hint))
