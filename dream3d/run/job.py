"""What was asked for: read back from ``run.json``, so that a run can be resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dream3d.checks import check_prompt, check_seed
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


def read_job(run: RunFolder) -> Job:
    """The job of a run folder. UsageError if its ``run.json`` does not describe one."""
    facts = run.facts
    request = facts.get("request")
    try:
        if not isinstance(request, Mapping):
            raise TypeError("it has no 'request'")
        prompt, seed, out = facts["prompt"], facts["seed"], request["out"]
        if not isinstance(prompt, str) or not isinstance(seed, int) or not isinstance(out, str):
            raise TypeError("prompt, seed or out have the wrong type")
        recipe = Recipe.from_dict(facts["recipe"])
        job = Job(check_prompt(prompt), recipe, check_seed(seed), str(request["device"]), Path(out))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{run.path / 'run.json'} does not say what to go on with ({error}); start again") from error
    check_extension(job.out)
    return job
