"""An asset made again from the field that a finished run has kept: no optimisation, other faces, texture or format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dream3d.distill import state_difference
from dream3d.errors import CheckpointError, UsageError, shown
from dream3d.finish import PROVENANCE, extract_mesh, recipe_for, remeasured, write_asset
from dream3d.kernels.choose import choose
from dream3d.kernels.hash_grid import HASH_GRID
from dream3d.mesh.extract import FieldMesh
from dream3d.prior.base import MultiViewPrior
from dream3d.recipe.generation import Recipe
from dream3d.refine import refine_mesh
from dream3d.render.scene import Scene, build_scene
from dream3d.run import checkpoints
from dream3d.run.checkpointer import FIELD, VERSION
from dream3d.run.folder import job_digest, read_run
from dream3d.run.progress import Refinement

_KEPT = re.compile(r"field(-\d+)?\.safetensors")
_NO_COLOR = (0.0, 0.0, 0.0)
"""Of the background before the run's own is read."""


@dataclass(frozen=True)
class KeptField:
    """What a finished run has kept."""

    scene: Scene
    recipe: Recipe
    facts: Mapping[str, Any]
    """The run's ``run.json``."""


@dataclass(frozen=True)
class Remade:
    """An asset made again."""

    path: Path
    vertices: int
    faces: int
    mesh: FieldMesh
    refinement: Refinement | None = None
    """Of its texture, and of its shape, if there was one."""


def read_field(run: Path, device: str = "cpu") -> KeptField:
    """The field of a run folder.

    Raises UsageError for a folder without a run, a run that has kept no field, one whose hash grid does not work here,
    and a recipe of another version; CheckpointError for a damaged field and one of another run or version.
    """
    facts = read_run(run)
    recipe, (path, tensors) = _recipe_of(run, facts), _kept_tensors(run, facts)
    named = facts.get("hash_grid")
    grid = named if isinstance(named, str) else None
    try:
        choose(HASH_GRID, device, grid)
    except LookupError as error:
        raise UsageError(f"{run} can be exported only on the hash grid it was made with: {error}") from error
    scene = build_scene(recipe, _NO_COLOR, torch.Generator(), torch.device(device), grid)
    parts = {"field": scene.field, "background": scene.background, "occupancy": scene.renderer.grid}
    expected = {f"{part}.{name}": value for part, one in parts.items() for name, value in one.state_dict().items()}
    problem = state_difference(expected, tensors)
    if problem:
        raise CheckpointError(f"{path} does not fit the recipe of its run ({problem}); make the run again")
    for part, one in parts.items():
        prefix = f"{part}."
        state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        one.load_state_dict(state)
    scene.field.set_step(max(recipe.steps - 1, 0))  # what the last step left
    return KeptField(scene, recipe, facts)


def remake(kept: KeptField, out: Path, recipe: Recipe, prior: MultiViewPrior | None = None) -> Remade:
    """Extract the field's surface by the recipe's settings of the mesh, and write it to ``out``.

    Texture and shape are refined if the recipe says so, by the ``prior`` of the run, which nothing else needs. The run
    folder is left as it is. With the run's own recipe, on the same machine, the bytes are those of the run's mesh.
    Raises what :func:`dream3d.finish.finish` raises, and UsageError for a refinement by no prior or another than the
    run's.
    """
    asked = recipe.refinement if recipe_for(out, recipe.mesh).texture else None
    if asked is not None and (prior is None or kept.facts.get("prior_digest") != prior.digest):
        raise UsageError("a texture can be refined only by the prior that its run was made with")
    mesh, floaters = extract_mesh(kept.scene, recipe_for(out, recipe.mesh))
    refinement = None
    if asked is not None and prior is not None:
        prompt, seed = str(kept.facts.get("prompt")), kept.facts.get("seed")
        device = str(kept.scene.device)
        mesh, refinement = refine_mesh(mesh, prior, recipe, asked, prompt, seed if type(seed) is int else 0, device)
        mesh, _ = remeasured(mesh, kept.scene, refinement, floaters)
    made_by = {key: kept.facts[key] for key in PROVENANCE if key in kept.facts}
    made_by["recipe"] = recipe.to_dict()
    report = write_asset(mesh, made_by, out)
    return Remade(out, report.vertices, report.faces, mesh, refinement)


def _kept_tensors(run: Path, facts: Mapping[str, Any]) -> tuple[Path, dict[str, Tensor]]:
    """The file of a run's field, and what is in it."""
    files = facts.get("files")
    names = [name for name in files if isinstance(name, str)] if isinstance(files, list) else []
    kept = next((run / name for name in names if _KEPT.fullmatch(name)), None)
    if facts.get("status") != "finished":
        raise UsageError(
            f"{run} is not finished (its status is {shown(facts.get('status'))}); go on with it by 'dream3d resume'"
        )
    if kept is None or not kept.exists():
        raise UsageError(f"{run} has kept no field ({FIELD}); make the run again")
    try:
        about, tensors = checkpoints.read(kept, VERSION)
    except CheckpointError as error:
        reason = str(error).replace("; remove it to go on from the one before", "; make the run again")
        raise type(error)(reason) from error
    if about.get("job") != job_digest(facts):
        raise CheckpointError(f"{kept} belongs to another job than {run / 'run.json'}; make the run again")
    return kept, tensors


def _recipe_of(run: Path, facts: Mapping[str, Any]) -> Recipe:
    recipe = facts.get("recipe")
    try:
        return Recipe.from_dict(recipe if isinstance(recipe, Mapping) else {})
    except UsageError as error:
        raise UsageError(f"{run / 'run.json'} is of another version ({error}); make the run again") from error
