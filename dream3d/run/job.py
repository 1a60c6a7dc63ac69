"""What was asked for: read back from ``run.json``, so that a run can be resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dream3d.checks import check_device_name, check_output_file, check_prompt, check_prompt_length, check_seed
from dream3d.errors import UsageError
from dream3d.mesh.export import check_extension
from dream3d.recipe.generation import Recipe
from dream3d.run.folder import RunFolder


@dataclass(frozen=True)
class Job:
    """What was asked for."""

    prompt: str
    recipe: Recipe
    seed: int
    device: str
    out: Path
    hash_grid: str | None = None
    """What the field's hash grid runs on, by name; None for runs of before it was recorded."""


@dataclass(frozen=True)
class Asked:
    """What an asset is to be, wherever it is made."""

    prompt: str
    recipe: Recipe
    seed: int


def asked_in(facts: Mapping[str, object], where: object) -> Asked:
    """What a ``run.json`` or an asset says was asked for, checked as if it had been typed.

    UsageError, which begins with ``where``, if it does not say so, and for a prompt, seed or recipe that is not valid.
    """
    prompt, seed, recipe = (facts.get(key) for key in ("prompt", "seed", "recipe"))
    if not isinstance(prompt, str) or type(seed) is not int or not isinstance(recipe, Mapping):
        raise UsageError(
            f"{where} does not say which prompt, seed and recipe were asked for; it may be of an old version"
        )
    try:
        check_prompt_length(check_prompt(prompt), None)
        asked = Asked(prompt, Recipe.from_dict(recipe), check_seed(seed))
        check_prompt_length(asked.recipe.negative_prompt, None, "negative prompt")
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    return asked


def read_job(run: RunFolder) -> Job:
    """The job of a run folder. UsageError if its ``run.json`` does not describe one."""
    facts = run.facts
    request = facts.get("request")
    try:
        if not isinstance(request, Mapping):
            raise TypeError("it has no 'request'")
        prompt, seed, out = facts["prompt"], facts["seed"], request["out"]
        device, hash_grid = request["device"], facts.get("hash_grid")
        texts = (prompt, out, device, "" if hash_grid is None else hash_grid)
        if not all(isinstance(text, str) for text in texts) or type(seed) is not int:
            raise TypeError("prompt, seed, out, device or hash_grid have the wrong type")
        if not isinstance(facts["recipe"], Mapping):
            raise TypeError("its recipe is not a table")
        recipe, mesh = Recipe.from_dict(facts["recipe"]), check_output_file(Path(out))
        job = Job(check_prompt(prompt), recipe, check_seed(seed), check_device_name(device), mesh, hash_grid)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{run.path / 'run.json'} does not say what to go on with ({error}); start again") from error
    check_extension(job.out)
    return job
