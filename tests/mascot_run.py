"""A small finished run to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from oracle import MASCOT, OraclePrior
from test_optimise import TINY

from dream3d.generate import generate
from dream3d.recipe.mesh import MeshRecipe

MESH = MeshRecipe(resolution=24, faces=300, texture=64)
PRIOR = OraclePrior(MASCOT, image_size=16)


def mascot_run(folder: Path, name: str = "mascot.glb", prompt: str = "a mascot") -> Path:
    """The folder of a run of six steps; its mesh is ``out/name`` in ``folder``."""
    generate(
        prompt,
        prior=PRIOR,
        recipe=replace(TINY.with_steps(6), mesh=MESH),
        seed=3,
        device="cpu",
        out=folder / "out" / name,
        run_dir=folder / "run",
        checkpoint_seconds=0,
    )
    return folder / "run"
