"""The errors dream3d raises on purpose, and the exit code that the command line gives each.

Every message is one line that says what is wrong (with the value) and what to do about it.
"""

from __future__ import annotations


class Dream3DError(Exception):
    """Something failed that the user can understand; the command line exits with 1."""

    exit_code = 1


class UsageError(Dream3DError):
    """The request itself is wrong: an option, a path, a prompt. Nothing was written; exit code 2."""

    exit_code = 2


class PriorError(UsageError):
    """A prior folder is unknown, incomplete, damaged or of the wrong shape; exit code 2."""


class CollapsedFieldError(Dream3DError):
    """The optimised field is empty or solid everywhere, so there is no surface to export; exit code 1."""


class ExportError(Dream3DError):
    """A mesh file could not be written, or did not read back as what was written; exit code 1."""


class DownloadError(Dream3DError):
    """Weights could not be fetched, or are not what they should be; the cache stays usable; exit code 1."""


class OfflineError(UsageError):
    """Weights are not here and the network may not be used; says which file to place where; exit code 2."""


class DatasetError(Dream3DError):
    """A data set, a shard or an asset is damaged, missing or of the wrong kind; exit code 1."""


class TrainingError(Dream3DError):
    """A training run cannot go on: a damaged checkpoint, unfit data, a loss that is not finite; exit code 1."""


class CheckpointError(Dream3DError):
    """A checkpoint is damaged or belongs to something else; exit code 1."""


class NewerCheckpointError(CheckpointError):
    """A checkpoint of a format that this version does not know yet; exit code 1."""
