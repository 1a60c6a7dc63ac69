"""Prompt lists: ``.txt``, ``.csv`` and ``.jsonl`` files of anybody, read line by line as untrusted text."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

from dream3d.checks import check_prompt, check_prompt_length
from dream3d.errors import UsageError
from dream3d.files import parse_json

MAX_LINE_BYTES = 64 * 1024
MAX_ENTRIES = 100_000
"""In all files of one call: more is a mistake, or wants several calls."""
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True)
class Entry:
    """One line of a list."""

    prompt: str
    changes: Mapping[str, str]
    """Settings for this prompt alone, by name: ``seed``, ``name``, ``steps``, ``guidance.rescale`` ..."""
    where: str
    """File and line, for messages."""


def read_lists(paths: Iterable[Path]) -> list[Entry]:
    """The entries of all files, in order.

    Raises UsageError, which names file and line, for a file that cannot be read or is not text, for a prompt that is
    none, for overrides that are not ``key=value``, and for more than :data:`MAX_ENTRIES` entries.
    """
    entries: list[Entry] = []
    for entry in chain.from_iterable(_read(path) for path in paths):
        entries.append(entry)
        if len(entries) > MAX_ENTRIES:
            raise UsageError(f"{entry.where}: more than {MAX_ENTRIES} prompts; make several batches of them")
    if not entries:
        raise UsageError("the lists hold no prompt; write one a line")
    return entries


def _read(path: Path) -> Iterator[Entry]:
    readers: dict[str, Callable[[Iterator[tuple[str, str]]], Iterator[Entry]]]
    readers = {".txt": _text, ".csv": _csv, ".jsonl": _jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: a list of prompts is a .txt, .csv or .jsonl file")
    if not path.is_file():
        raise UsageError(f"the list {path} is not a file; name one that exists")
    try:
        with path.open("rb") as file:
            start = file.read(3)
            encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
        with path.open(encoding=encoding, newline=None) as text:
            yield from reader(_lines(text, path))
    except UnicodeError as error:
        raise UsageError(f"{path} is not text in UTF-8 or UTF-16 ({str(error)[:60]}); save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"the list {path} cannot be read ({error.strerror})") from error


def _lines(text: IO[str], path: Path) -> Iterator[tuple[str, str]]:
    """(where, line) of a file, never more than a line of it in memory."""
    number = 0
    while line := text.readline(MAX_LINE_BYTES):
        number += 1
        where = f"{path}:{number}"
        if len(line) == MAX_LINE_BYTES and not line.endswith("\n"):
            raise UsageError(f"{where}: a line of more than {MAX_LINE_BYTES} characters; is this a list of prompts?")
        yield where, line.rstrip("\n")


def _text(lines: Iterator[tuple[str, str]]) -> Iterator[Entry]:
    for where, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        prompt, *rest = line.split("|")
        yield _entry(prompt, _pairs(" ".join(rest), where), where)


def _pairs(text: str, where: str) -> dict[str, str]:
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{where}: {text.strip()[:80]!r} has a quote without its partner") from error
    pairs = [part.partition("=") for part in parts]
    for key, equals, _ in pairs:
        if not equals or not key:
            raise UsageError(f"{where}: {key[:40]!r} behind the bar is not key=value, such as steps=100")
    return {key: value for key, _, value in pairs}


def _csv(lines: Iterator[tuple[str, str]]) -> Iterator[Entry]:
    place = ["the list"]

    def plain() -> Iterator[str]:
        for where, line in lines:
            place[0] = where
            yield line

    rows = csv.DictReader(plain(), strict=True)
    try:
        if "prompt" not in (rows.fieldnames or ()):
            raise UsageError(f"{place[0]}: the first line of a .csv names its columns, and one of them is 'prompt'")
        for row in rows:
            if None in row:
                raise UsageError(f"{place[0]}: more cells than columns")
            changes = {key: value for key, value in row.items() if key != "prompt" and value}
            yield _entry(row["prompt"] or "", changes, place[0])
    except csv.Error as error:
        raise UsageError(f"{place[0]}: {error}") from error


def _jsonl(lines: Iterator[tuple[str, str]]) -> Iterator[Entry]:
    for where, line in lines:
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UsageError(f"{where} is not a JSON object ({type(error).__name__})") from error
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
            raise UsageError(f'{where} is not a JSON object with a "prompt", such as {{"prompt": "a chair"}}')
        values = {key: value for key, value in row.items() if key != "prompt" and value is not None}
        for key, value in values.items():
            if isinstance(value, dict | list):
                raise UsageError(f"{where}: {key[:40]!r} is a {type(value).__name__}; write a number or a text")
        yield _entry(row["prompt"], {key: str(value) for key, value in values.items()}, where)


def _entry(prompt: str, changes: Mapping[str, str], where: str) -> Entry:
    try:
        text = check_prompt(prompt)
        check_prompt_length(text, None)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    return Entry(text, dict(changes), where)
