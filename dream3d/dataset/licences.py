"""Licences as people write them, in one spelling each."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CREATIVE_COMMONS = re.compile(r"creative commons attribution (\d\.\d)\b.*", re.IGNORECASE | re.DOTALL)
_PUBLIC_DOMAIN = re.compile(r"public[ -]domain", re.IGNORECASE)
_SEPARATOR = re.compile(r"\s*[;,]\s*|\s+and\s+")


def licence_names(texts: Iterable[str]) -> list[str]:
    """Every licence that the texts name, once, in order: ``CC-BY-3.0``, ``public domain``.

    A work may have several ("CC-BY-SA-3.0 and CC-BY-4.0" are two); a choice ("A or B") stays as it is. A licence's own
    sentence becomes its short name, and the copyright behind it is left to the attribution. Unknown words are kept.
    """
    found = set[str]()
    for text in texts:
        whole = _CREATIVE_COMMONS.fullmatch(text.strip())
        parts = [f"CC-BY-{whole[1]}"] if whole else _SEPARATOR.split(text.strip())
        found |= {"public domain" if _PUBLIC_DOMAIN.fullmatch(part) else part for part in parts if part}
    return sorted(found, key=str.lower)
