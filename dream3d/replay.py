"""An asset made again from its file alone: what the file says it was made of, and whether the new one is the same.

What is in a file may be anybody's. It is checked as if a user had typed it, and never names a place on the disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream3d.errors import ExportError, UsageError, shown
from dream3d.files import read_regular
from dream3d.mesh.export import MAX_PROVENANCE_FILE_BYTES, provenance_in
from dream3d.mesh.formats.glb import json_bytes, without_provenance
from dream3d.recipe.generation import Recipe
from dream3d.run.job import asked_in

_WORDS = {
    "hash_grid": "the hash grid's implementation",
    "threads": "the number of threads",
    "device": "the device",
    "seed": "the seed",
    "prompt": "the prompt",
}
"""Of what a result depends on besides versions, prior and recipe."""


@dataclass(frozen=True)
class Origin:
    """What an asset was made of, checked."""

    prompt: str
    recipe: Recipe
    seed: int
    prior: str
    """Name of its prior: no path, and maybe nothing that is known here."""
    provenance: Mapping[str, Any]
    """All that the file says."""
    content: bytes
    """The file."""


@dataclass(frozen=True)
class Comparison:
    """An asset beside the one that it was to be."""

    same_bytes: bool
    same_model: bool
    """Whether all is the same but what the files say of their making."""
    reasons: tuple[str, ...]
    """What differed in the making, as far as the files tell."""

    @property
    def sentence(self) -> str:
        """What to tell a person."""
        if self.same_bytes:
            return "the same bytes"
        what = "the same model, but the file tells another making" if self.same_model else "another model"
        why = "; ".join(self.reasons) or "versions, prior, recipe, hash grid, threads and device are the same"
        return f"{what}: {why}"


def read_origin(path: Path) -> Origin:
    """What the .glb at ``path`` says it was made of.

    Raises UsageError for a file that cannot be read or holds no provenance of ours, for one that was drawn by pictures
    (which are not in it), and for a prompt, seed or recipe that is not valid.
    """
    try:
        content = read_regular(path, MAX_PROVENANCE_FILE_BYTES)
        made_by = provenance_in(content, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); give a .glb of dream3d") from error
    except ExportError as error:
        raise UsageError(str(error)) from error
    if "images" in made_by:
        raise UsageError(
            f"{path} was drawn by pictures, which are not in the file; make it again by 'dream3d generate --images'"
        )
    asked, prior = asked_in(made_by, path), _table(made_by, "prior").get("name")
    if not isinstance(prior, str):
        raise UsageError(f"{path} does not say which prior made it; use a newer asset")
    return Origin(asked.prompt, asked.recipe, asked.seed, prior, made_by, content)


def compare(old: bytes, new: bytes) -> Comparison:
    """Two .glb files of ours. Raises ValueError, KeyError or TypeError for anything else."""
    if old == new:
        return Comparison(True, True, ())
    same = without_provenance(old) == without_provenance(new)
    return Comparison(False, same, tuple(differences(provenance_in(old, "the file"), provenance_in(new, "the file"))))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two makings (provenances), in words; what only one of them tells is said too."""
    old, new = (json.loads(json_bytes(one)) for one in (old, new))  # tuples are lists in files
    yield from _versions(_table(old, "versions"), _table(new, "versions"))
    before, now = _table(old, "prior"), _table(new, "prior")
    if before != now:
        yield f"the prior was {_named(before)} and is {_named(now)}"
    digests = old.get("prior_digest"), new.get("prior_digest")
    if digests[0] != digests[1]:
        yield "the prior's weights " + _change(*(str(one)[:12] if one is not None else None for one in digests))
    if old.get("recipe") != new.get("recipe"):
        yield f"the recipe differs in {_first_difference(_table(old, 'recipe'), _table(new, 'recipe'))}"
    for key, words in _WORDS.items():
        if old.get(key) != new.get(key):
            yield f"{words} {_change(old.get(key), new.get(key))}"


def _versions(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            yield f"{shown(name)[1:-1]} {_change(old.get(name), new.get(name))}"


def _change(old: object, new: object) -> str:
    if old is None:
        return f"is not told by the file, and is {shown(new)}"
    return f"was {shown(old)} and is {'not told' if new is None else shown(new)}"


def _named(prior: Mapping[str, Any]) -> str:
    return f"{shown(prior.get('name'))} version {shown(prior.get('version'))}"


def _first_difference(old: Mapping[str, Any], new: Mapping[str, Any], before: str = "") -> str:
    """The dotted name of the first setting in which two recipes differ."""
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            inside = _table(old, key), _table(new, key)
            if all(inside):
                return _first_difference(*inside, f"{before}{key}.")
            return shown(f"{before}{key}")[1:-1]
    return "nothing that has a name"


def _table(facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = facts.get(key)
    return value if isinstance(value, dict) else {}
