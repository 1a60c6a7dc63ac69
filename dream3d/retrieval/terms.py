"""Texts to search terms: one way for every corpus, so that all of them rank alike."""

from __future__ import annotations

import re
import unicodedata

_STOP = (
    "a an and any are as at be but by for from has have her his i in into is it its my no of on onto or our over some",
    "that the their there these this those to under up was were which who with your",
)
STOP_WORDS = frozenset(word for line in _STOP for word in line.split())
"""Words that say nothing of what a picture shows."""
_ABOUT_PICTURES = "3d asset clipart drawing icon illustration image photo photograph picture render"
PICTURE_WORDS = frozenset(_ABOUT_PICTURES.split())
"""Words about the picture itself: "a photo of a fox" is about a fox. They count only where nothing else is said."""
MAX_TERMS = 64
"""Of a caption or a prompt."""
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def words(text: str) -> list[str]:
    """The words of a text that say what it is about, in small letters without accents, in order; may be empty."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("\u2019", "'"))
    found = _WORD.findall("".join(letter for letter in plain if not unicodedata.combining(letter)))
    said = [word.removesuffix("'s") for word in found if word not in STOP_WORDS][:MAX_TERMS]
    return [word for word in said if word not in PICTURE_WORDS] or said


def stem(word: str) -> str:
    """A word without the ending of its plural (Harman 1991, the S stemmer): "foxes" and "fox", "ponies" and "pony"."""
    if len(word) < 4 or not word.endswith("s"):
        return word
    if word.endswith("ies") and word[-4] not in "ae":
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses", "zes")):
        return word[:-2]
    if word.endswith("oes") and len(word) > 5:  # "potatoes", not "shoes"
        return word[:-2]
    return word if word.endswith(("us", "ss", "is")) else word[:-1]


def terms(text: str) -> list[str]:
    """What full text search compares: the stems of :func:`words`."""
    return [stem(word) for word in words(text)]
