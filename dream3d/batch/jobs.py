"""From entries to jobs: every prompt with every seed, each once, each with a name of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dream3d.batch.places import Place
from dream3d.batch.prompts import Entry
from dream3d.bounds import MAX_SEED
from dream3d.errors import UsageError
from dream3d.files import hash_file
from dream3d.names import slug
from dream3d.recipe.overrides import changed_recipe
from dream3d.retrieval.gathering import SETTINGS, PictureOptions, parse_options
from dream3d.run.folder import LOCK, parse_run
from dream3d.run.job import asked_in

RUNS = "runs"


@dataclass(frozen=True)
class BatchJob:
    """One asset to be made. Plain data: it is sent to other processes and machines."""

    key: str
    """Names its files: words of the prompt, the seed, and a digest of all that matters."""
    prompt: str
    seed: int
    changes: Mapping[str, str]
    """Of the recipe, see :func:`dream3d.recipe.overrides.changed_recipe`."""
    pictures: PictureOptions = field(default_factory=PictureOptions)
    """That the asset is to look like."""
    recipe: Mapping[str, Any] | None = None
    """The whole recipe as plain data, instead of a preset with changes."""

    @property
    def settings(self) -> dict[str, str]:
        """All that was asked for besides prompt and seed, for people."""
        return {**self.changes, **self.pictures.settings}

    @property
    def mesh(self) -> str:
        """The mesh's file in the batch's folder."""
        return f"{self.key}.glb"

    @property
    def run(self) -> str:
        """The run's folder in the batch's folder."""
        return f"{RUNS}/{self.key}"

    def record(self, place: Place) -> Mapping[str, object] | None:
        """The ``run.json`` of the job; None unless it is finished and tidied up, and the mesh is there."""
        try:
            record = parse_run(place.read(f"{self.run}/run.json"), self.run)
        except (UsageError, OSError):
            return None
        if record.get("status") != "finished" or place.has(f"{self.run}/{LOCK}") or not place.has(self.mesh):
            return None
        return record

    def result(self, place: Place) -> Mapping[str, object] | None:
        """What :meth:`record` says of the mesh."""
        record = self.record(place)
        return None if record is None else result_of(record)


def result_of(record: Mapping[str, object]) -> Mapping[str, object]:
    """What the ``run.json`` of a finished job says of its mesh; nothing where that is no table."""
    result = record.get("result")
    return result if isinstance(result, dict) else {}


def plan(
    entries: Sequence[Entry], seeds: Sequence[int], shared: Mapping[str, str], prior: str, adapter: str = ""
) -> tuple[list[BatchJob], int]:
    """The jobs of entries with all seeds, unless an entry has its own, and how many were asked for twice.

    ``shared`` changes hold for all; an entry's own come before them. ``prior`` is the digest of the prior, ``adapter``
    that of its image adapter, which counts for jobs with pictures. UsageError names the line of a seed or a setting
    that is none, and of a picture that is not there.
    """
    jobs: dict[str, BatchJob] = {}
    twice = 0
    checked: set[str] = set()
    for entry in entries:
        changes = {**shared, **entry.changes}
        own = changes.pop("seed", None)
        name = changes.pop("name", entry.prompt)
        text = json.dumps(sorted(changes.items()))
        shown = {setting: changes.pop(setting) for setting in SETTINGS if setting in changes}
        pictures, matters = _pictures(shown, entry) if shown else (PictureOptions(), "")
        if text not in checked:
            _check(changes, entry)
            checked.add(text)
        for seed in seeds if own is None else [_seed(own, entry)]:
            key = _key(name, entry.prompt, seed, text, prior + (f" {adapter} {matters}" if pictures.asked else ""))
            twice += key in jobs
            jobs.setdefault(key, BatchJob(key, entry.prompt, seed, changes, pictures))
    return list(jobs.values()), twice


def _pictures(settings: Mapping[str, str], entry: Entry) -> tuple[PictureOptions, str]:
    """The pictures of an entry, whose paths no longer depend on the working folder, and what of the files matters."""
    try:
        options = parse_options(settings)
        paths, corpus = tuple(path.absolute() for path in options.images), options.retrieve
        if corpus and "://" not in corpus:
            corpus = str(Path(corpus).absolute())
        encoder = options.fusion_encoder and options.fusion_encoder.absolute()
        found = replace(options, images=paths, retrieve=corpus, fusion_encoder=encoder)
        return found, " ".join(map(hash_file, found.files))
    except (UsageError, OSError) as error:
        reason = f"the picture {error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        raise UsageError(f"{entry.where}: {reason}") from error


def _check(changes: Mapping[str, str], entry: Entry) -> None:
    try:
        changed_recipe(changes, "mini")
    except UsageError as error:
        raise UsageError(f"{entry.where}: {error}") from error


def _seed(text: str, entry: Entry) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 19 or int(text) > MAX_SEED:
        raise UsageError(f"{entry.where}: seed={text[:40]!r} is not a whole number from 0 to {MAX_SEED}")
    return int(text)


def variations(run: Path, facts: Mapping[str, object], count: int, prior: str) -> list[BatchJob]:
    """``count`` jobs that differ from a run, by its ``run.json``, in nothing but the seed: the next ones after its own.

    ``prior`` is the digest of the prior. UsageError for a run that does not say what was asked for, and for one that
    was drawn by pictures.
    """
    asked = asked_in(facts, run / "run.json")
    if "images" in facts:
        raise UsageError(f"{run} was drawn by pictures; name them in a list of 'dream3d batch', with --seeds")
    recipe = asked.recipe.to_dict()
    matters = json.dumps(recipe, sort_keys=True)
    seeds = [(asked.seed + number) % (MAX_SEED + 1) for number in range(1, count + 1)]
    keys = [_key(asked.prompt, asked.prompt, seed, matters, prior) for seed in seeds]
    return [BatchJob(key, asked.prompt, seed, {}, recipe=recipe) for key, seed in zip(keys, seeds, strict=True)]


def _key(name: str, prompt: str, seed: int, changes: str, prior: str) -> str:
    # 96 bits: no two of 100,000 jobs share them, though the words before them may be the same.
    matters = json.dumps([prompt, seed, changes, prior], ensure_ascii=True)
    return f"{slug(name, 40)}-{seed}-{hashlib.sha256(matters.encode()).hexdigest()[:24]}"
