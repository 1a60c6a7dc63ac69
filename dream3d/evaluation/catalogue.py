"""The kinds of networks that can judge from a folder: ``model_type`` of its ``config.json`` says which one it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dream3d.errors import UsageError, shown
from dream3d.prior.schema import read_json

Role = Literal["encoder", "classifier", "pictures", "distance"]
KINDS: dict[str, Role] = {
    "clip": "encoder",
    "siglip": "encoder",
    "inception_v3": "classifier",
    "dinov2": "pictures",
    "lpips": "distance",
}
"""What each kind judges, see :class:`dream3d.evaluation.suite.measure.Judges`."""


@dataclass(frozen=True)
class JudgeFolder:
    """A folder of the catalogue; nothing but its kind was read yet."""

    folder: Path
    kind: str

    @property
    def role(self) -> Role:
        """What it judges."""
        return KINDS[self.kind]


def judge_folder(place: str) -> JudgeFolder | None:
    """The folder of a judge; None for a place that holds none, such as a prior's name or folder.

    UsageError for a network of transformers that is of no kind of the catalogue.
    """
    folder = Path(place)
    if not (folder / "config.json").is_file() or (folder / "prior.json").is_file():
        return None
    kind = read_json(folder / "config.json").get("model_type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(f"{folder} is of kind {shown(kind)}; a judge is a prior, or one of {', '.join(KINDS)}")
    return JudgeFolder(folder, kind)


def check_roles(folders: Sequence[JudgeFolder]) -> None:
    """UsageError for two judges of the same thing."""
    for number, one in enumerate(folders):
        for other in folders[:number]:
            if one.role == other.role:
                raise UsageError(f"{other.folder} and {one.folder} judge the same; give one --judge of {other.kind}")
