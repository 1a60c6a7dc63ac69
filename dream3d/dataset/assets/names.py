"""Keys and everyday words from file names and catalogue ids."""

from __future__ import annotations

import re
import unicodedata


def slug(text: str) -> str:
    """A key made from any text: small ASCII letters, digits and dashes; "asset" if nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:72].strip("-") or "asset"


def words(stem: str) -> str:
    """A file's stem in words: "oakChair_02" is "oak chair"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem)
    return " ".join(re.findall(r"[^\W\d_]+", spaced)).lower() or stem.lower()
