"""Options with any number of values, and with a value that may be left out, which the parser itself does not know."""

from __future__ import annotations

import os
from collections.abc import Sequence

LISTS = ("--images",)
"""Take file names up to the first argument that is none."""
OPTIONAL = ("--retrieve",)
"""Take a folder or an address, or nothing."""
_PICTURES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".gif",
    ".bmp",
    ".heic",
    ".heif",
    ".avif",
    ".tif",
    ".tiff",
    ".jxl",
    ".svg",
)
_PLACES = ("/", "./", "../", "~")


def spelled_out(args: Sequence[str]) -> list[str]:
    """Arguments as the parser reads them.

    ``--images a.jpg b.jpg`` becomes ``--images a.jpg --images b.jpg``, and ``--retrieve`` alone ``--retrieve ''``. The
    text behind such an option is its value if it looks like one, and else the prompt.
    """
    result: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*result, word, *rest]
        if word in LISTS and rest:
            result += [word, rest.pop(0)]
            while rest and _is_picture(rest[0]):
                result += [word, rest.pop(0)]
        elif word in OPTIONAL:
            result += [word, rest.pop(0) if rest and _is_place(rest[0]) else ""]
        else:
            result.append(word)
    return result


def _is_picture(word: str) -> bool:
    return not word.startswith("-") and (word.lower().endswith(_PICTURES) or os.path.isfile(word))


def _is_place(word: str) -> bool:
    looks = word.startswith(_PLACES) or word.endswith("/") or "://" in word
    return not word.startswith("-") and (looks or os.path.isdir(word))
