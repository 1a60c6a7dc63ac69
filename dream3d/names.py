"""Names of files and keys, made from any text."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path


def slug(text: str, limit: int = 48, *, ascii_only: bool = False) -> str:
    """A name made of any text: lower-case letters, digits and dashes; never empty ("asset").

    At most ``limit`` bytes in UTF-8. ``ascii_only`` takes accents off and leaves other alphabets out.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    if ascii_only:
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    kinds = "".join(unicodedata.category(letter)[0] for letter in plain)
    words = (plain[found.start() : found.end()] for found in re.finditer("[LN][LMN]*", kinds))
    cleaned = "-".join(words).encode()[:limit].decode(errors="ignore")
    return cleaned.rstrip("-") or "asset"


def own_slug(text: str) -> str:
    """A slug that no other text has: followed by an underscore and a digest unless it says all of the text."""
    words = slug(text)
    is_all = words.replace("-", " ") == text
    return words if is_all else f"{words}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def free_name(name: str, is_taken: Callable[[str], bool]) -> str:
    """``name``, or with -2, -3 ... before its file extension: the first that is not taken."""
    stem, extension = os.path.splitext(name)
    numbered = (f"{stem}-{number}{extension}" for number in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if not is_taken(one))


def free_path(path: Path) -> Path:
    """``path``, or beside it the :func:`free_name` of what is there, dangling links included."""
    return path.with_name(free_name(path.name, lambda name: os.path.lexists(path.with_name(name))))
