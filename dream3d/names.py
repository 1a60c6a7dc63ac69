"""Names of files and keys, made from any text."""

from __future__ import annotations

import re
import unicodedata


def slug(text: str, limit: int = 48) -> str:
    """A name made of any text: lower-case ASCII letters, digits and dashes; never empty ("asset")."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    cleaned = re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")
    return cleaned[:limit].rstrip("-") or "asset"
