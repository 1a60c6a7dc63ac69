"""The names that tables and sidecar files use for caption, source, author and licence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dream3d.errors import DatasetError
from dream3d.files import json_table

CAPTION = ("caption", "text", "title", "description")
SOURCE = ("source", "url", "original_url", "webpage")
AUTHOR = ("author", "artist", "creator", "credit")
LICENCE = ("licence", "license")
MAX_SIDECAR = 64 * 1024
"""Bytes of a text or JSON file beside a picture."""


def first_of(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first text among these fields that is not empty, else ""; names are compared in small letters."""
    lower = {str(name).strip().lower(): value for name, value in row.items()}
    texts = (lower.get(name) for name in names)
    return next((" ".join(text.split()) for text in texts if isinstance(text, str) and text.strip()), "")


def provenance(row: Mapping[str, Any]) -> dict[str, str]:
    """``source``, ``author`` and ``licence`` of a row."""
    return {"source": first_of(row, SOURCE), "author": first_of(row, AUTHOR), "licence": first_of(row, LICENCE)}


def decode_text(content: bytes, name: str) -> str:
    """A text file's words on one line; :class:`DatasetError` if it is no UTF-8 or too long."""
    if len(content) > MAX_SIDECAR:
        raise DatasetError(f"{name} has {len(content)} bytes, over the limit of {MAX_SIDECAR}")
    try:
        return " ".join(content.decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise DatasetError(f"{name} is not UTF-8 text") from error


def decode_json(content: bytes, name: str) -> dict[str, Any]:
    """A JSON object; :class:`DatasetError` for anything else."""
    if len(content) > MAX_SIDECAR:
        raise DatasetError(f"{name} has {len(content)} bytes, over the limit of {MAX_SIDECAR}")
    return json_table(content, name, DatasetError)
