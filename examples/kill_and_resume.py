"""Kills runs by SIGKILL at random moments, resumes them, and compares the meshes with that of an unbroken run.

    python examples/kill_and_resume.py --runs 50

Each run is killed at a moment drawn from the whole time of an unbroken one, start-up and export included, and when it
goes on, again with a probability of a half, until it comes through. The built-in prior with a reduced recipe; a
checkpoint after every step. Needs a system that can fork.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dream3d.generate import generate, resume
from dream3d.prior.base import MultiViewPrior
from dream3d.recipe.generation import MeshRecipe, Recipe, Stage
from dream3d.recipe.presets import preset
from dream3d.weights.loading import load_prior

REDUCED: Recipe = replace(
    preset("mini").with_steps(16), mesh=MeshRecipe(resolution=32), stages=(Stage(0, 16, 1),), updates_per_target=6
)


def work(folder: Path, prior: MultiViewPrior) -> None:
    """Begin the run of a folder, or go on with it."""
    if (folder / "run" / "run.json").exists():
        resume(folder / "run", prior=prior, checkpoint_seconds=1e-6)
        return
    generate(
        "a christmas tree",
        prior=prior,
        recipe=REDUCED,
        seed=0,
        device="cpu",
        out=folder / "tree.glb",
        run_dir=folder / "run",
        checkpoint_seconds=1e-6,
    )


def attempt(task: Callable[[], None], limit_seconds: float | None) -> bool:
    """Run a task in a process of its own and kill it after a time; whether it came through."""
    process = os.fork()
    if process == 0:
        try:
            task()
        finally:
            os._exit(0)
    end = time.monotonic() + (limit_seconds if limit_seconds is not None else 3600.0)
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def place_of(folder: Path) -> str:
    """Where a kill hit: the last thing that the run had put on the disk."""
    run = folder / "run"
    for name, what in (("turntable.mp4", "end"), ("preview.png", "turntable"), ("mesh.glb", "pictures")):
        if (run / name).exists():
            return what
    steps = sorted(path.stem for path in (run / "checkpoints").glob("step-*"))
    return f"step {int(steps[-1][5:])}" if steps else "start"


def main() -> None:
    """Read the command line; exit with 1 if a mesh differs or a file is left over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    prior, rng = load_prior("mini"), np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        assert attempt(lambda: work(Path(name) / "whole", prior), None)
        whole = time.monotonic() - began
        expected = (Path(name) / "whole/tree.glb").read_bytes()
        files = sorted(str(p.relative_to(Path(name) / "whole")) for p in (Path(name) / "whole").rglob("*"))
        same = clean = kills = 0
        for number in range(args.runs):
            folder, hits = Path(name) / str(number), list[str]()
            limit: float | None = rng.random() * whole
            while not attempt(lambda folder=folder: work(folder, prior), limit):  # type: ignore[misc]
                hits.append(place_of(folder))
                limit = rng.random() * whole if rng.random() < 0.5 else None
            same += (folder / "tree.glb").read_bytes() == expected
            clean += files == sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))
            kills += len(hits)
            print(f"run {number + 1}: killed at {', '.join(hits) or 'nothing: it was done'}", flush=True)
    print(f"an unbroken run takes {whole:.1f} s")
    print(f"{args.runs} runs, {kills} kills: {same} meshes are the same bytes, {clean} folders hold the same files")
    raise SystemExit(0 if same == clean == args.runs else 1)


if __name__ == "__main__":
    main()
