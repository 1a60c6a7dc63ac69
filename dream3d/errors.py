"""The errors dream3d raises on purpose, and the exit code that the command line gives each.

Every message is one line that says what is wrong (with the value) and what to do about it.
"""

from __future__ import annotations

import re

MAX_LINE = 1000
"""Characters of an error's line; the middle of a longer one is left out, since the advice is at its end."""

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]")


def escaped(text: object, keep: str = "") -> str:
    r"""Text that a terminal can show without harm, on one line unless line breaks are kept.

    Control characters, those that change the direction of text, and halves of surrogate pairs become escapes such as
    ``\x1b``, except those in ``keep``.
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], str(text))


def one_line(text: str, limit: int = MAX_LINE) -> str:
    """Text on one line of at most ``limit`` characters, :func:`escaped`; the middle of a longer one is left out."""
    line = escaped(" ".join(filter(None, map(str.strip, text.splitlines()))))
    return line if len(line) <= limit else f"{line[: limit // 2]} ... {line[5 - limit // 2 :]}"


def first_line(error: BaseException) -> str:
    """What a library's error says, for a message of ours: its first line, at most 200 characters."""
    return str(error).partition("\n")[0][:200]


def shown(value: object) -> str:
    """A value in a message: its ``repr``, at most 80 characters."""
    try:
        return one_line(repr(value), 80)
    except (ValueError, RecursionError):  # a number of more than 4,300 digits, endless nesting
        return f"<{type(value).__name__} too long to show>"


class Dream3DError(Exception):
    """Something failed that the user can understand; the command line exits with 1."""

    exit_code = 1

    def __str__(self) -> str:
        """The message as :func:`one_line`, whatever it quotes."""
        return one_line(super().__str__())


class UsageError(Dream3DError):
    """The request itself is wrong: an option, a path, a prompt. Nothing was written; exit code 2."""

    exit_code = 2


class PriorError(UsageError):
    """A prior folder is unknown, incomplete, damaged or of the wrong shape; exit code 2."""


class CollapsedFieldError(Dream3DError):
    """The optimised field is empty or solid everywhere, so there is no surface to export; exit code 1."""


class NotFiniteError(Dream3DError):
    """Many updates in a row had numbers that are not finite; exit code 1."""


class ExportError(Dream3DError):
    """A mesh file could not be written, or did not read back as what was written; exit code 1."""


class DownloadError(Dream3DError):
    """Weights could not be fetched, or are not what they should be; the cache stays usable; exit code 1."""


class OfflineError(UsageError):
    """Weights are not on this machine and the network may not be used; says which file to place where; exit code 2."""


class DatasetError(Dream3DError):
    """A data set, a shard or an asset is damaged, missing or of the wrong kind; exit code 1."""


class TrainingError(Dream3DError):
    """A training run cannot go on: a damaged checkpoint, unfit data, a loss that is not finite; exit code 1."""


class CheckpointError(Dream3DError):
    """A checkpoint is damaged or belongs to something else; exit code 1."""


class NewerCheckpointError(CheckpointError):
    """A checkpoint of a format that this version does not know yet; exit code 1."""
