"""From entries to jobs: every prompt with every seed, each once, each with a name of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dream3d.batch.prompts import Entry
from dream3d.checks import MAX_SEED
from dream3d.errors import UsageError
from dream3d.overrides import changed_recipe
from dream3d.run import read_run, slug

RUNS = "runs"


@dataclass(frozen=True)
class Job:
    """One asset to be made. Plain data: it is sent to other processes and machines."""

    key: str
    """Names its files: words of the prompt, the seed, and a sum of all that matters."""
    prompt: str
    seed: int
    changes: Mapping[str, str]
    """Of the recipe, see :func:`dream3d.overrides.changed_recipe`."""

    def mesh(self, folder: Path) -> Path:
        """The mesh's file below the batch's folder."""
        return folder / f"{self.key}.glb"

    def run(self, folder: Path) -> Path:
        """The run's folder below the batch's folder."""
        return folder / RUNS / self.key

    def is_done(self, folder: Path) -> bool:
        """Whether the mesh is there and its run says that it is finished."""
        try:
            return self.mesh(folder).is_file() and read_run(self.run(folder)).get("status") == "finished"
        except UsageError:
            return False


def plan(
    entries: Sequence[Entry], seeds: Sequence[int], shared: Mapping[str, str], prior: str
) -> tuple[list[Job], int]:
    """The jobs of entries with all seeds, unless an entry has its own, and how many were asked for twice.

    ``shared`` changes hold for all; an entry's own come before them. UsageError names the line of a seed or a setting
    that is none.
    """
    jobs: dict[str, Job] = {}
    twice = 0
    checked: set[str] = set()
    for entry in entries:
        changes = {**shared, **entry.changes}
        own = changes.pop("seed", None)
        name = changes.pop("name", entry.prompt)
        text = json.dumps(sorted(changes.items()))
        if text not in checked:
            _check(changes, entry)
            checked.add(text)
        for seed in seeds if own is None else [_seed(own, entry)]:
            key = _key(name, entry.prompt, seed, text, prior)
            twice += key in jobs
            jobs.setdefault(key, Job(key, entry.prompt, seed, changes))
    return list(jobs.values()), twice


def _check(changes: Mapping[str, str], entry: Entry) -> None:
    try:
        changed_recipe(changes, "mini")
    except UsageError as error:
        raise UsageError(f"{entry.where}: {error}") from error


def _seed(text: str, entry: Entry) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 19 or int(text) > MAX_SEED:
        raise UsageError(f"{entry.where}: seed={text[:40]} is not a whole number from 0 to {MAX_SEED}")
    return int(text)


def _key(name: str, prompt: str, seed: int, changes: str, prior: str) -> str:
    # The sum keeps prompts apart that the words do not: other settings, other alphabets, a cut after 40 letters.
    matters = json.dumps([prompt, seed, changes, prior], ensure_ascii=True)
    return f"{slug(name, 40)}-{seed}-{hashlib.sha256(matters.encode()).hexdigest()[:6]}"
