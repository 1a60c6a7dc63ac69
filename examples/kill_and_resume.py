"""Stops runs and batches at random moments, resumes them, and compares what they make with what unbroken ones make.

    python examples/kill_and_resume.py --runs 25 --batches 25

SIGKILL, SIGTERM, SIGINT and SIGHUP take turns. They go to a run's process or its group; of a batch, to a worker, to the
workers' parent or to the group. The moment is drawn from the whole time of an unbroken one, start-up and export
included. Then it goes on, and is stopped again with a probability of a half, until it comes through. A prior with
random weights, a small recipe, a checkpoint after every step. ``--quick`` lets workers begin at once, as copies of
their parent, where the product starts them anew. Needs Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from dream3d import finish
from dream3d.batch import local
from dream3d.batch.jobs import BatchJob
from dream3d.batch.work import Result, Shared, do_job
from dream3d.cli.app import app
from dream3d.generate import generate, resume
from dream3d.mesh.shading import write_turntable
from dream3d.recipe.generation import MeshRecipe, Recipe, Stage, TargetRecipe
from dream3d.recipe.presets import preset
from dream3d.recipe.scene import FieldRecipe, RenderRecipe
from dream3d.run.progress import Observer
from dream3d.weights.loading import load_prior

SMALL: Recipe = replace(
    preset("mini").with_steps(12),
    field=FieldRecipe(levels=4, log2_entries=10, hidden_width=16),
    render=RenderRecipe(samples_per_diagonal=32, occupancy_resolution=16),
    mesh=MeshRecipe(resolution=16, texture=64),
    stages=(Stage(0, 16, 1),),
    targets=(TargetRecipe(0, None, 4, 2, 2, 1.0), TargetRecipe(5, 3)),
)
SIGNALS = itertools.cycle((signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
GRACE_SECONDS = 1.0
"""From the end of a process to the end of all that it began."""


def small_pictures() -> None:
    """The end of a run takes a tenth of its time."""
    patch.object(finish, "SILHOUETTE_SIZE", 32).start()
    patch.object(finish, "PREVIEW_SIZE", 32).start()
    patch.object(finish, "write_turntable", partial(write_turntable, frames=4, size=32)).start()


def quick_workers() -> None:
    """Workers are copies of their parent, which has imported everything already."""
    fork = multiprocessing.get_context("fork")
    patch.object(multiprocessing, "get_context", lambda method=None: fork).start()


def work_on_run(folder: Path, prior: str) -> None:
    """Begin the run of a folder, or go on with it."""
    if (folder / "run/run.json").exists():
        resume(folder / "run", prior=load_prior(prior), checkpoint_seconds=1e-6)
        return
    generate(
        "a tree",
        prior=load_prior(prior),
        recipe=SMALL,
        seed=0,
        device="cpu",
        out=folder / "tree.glb",
        run_dir=folder / "run",
        checkpoint_seconds=1e-6,
    )


def small_job(job: BatchJob, shared: Shared, observer: Observer) -> Result:
    """A job of a batch with the small recipe."""
    small_pictures()
    patch("dream3d.recipe.overrides.changed_recipe", lambda *_: SMALL).start()
    return do_job(job, shared, observer)


def work_on_batch(folder: Path, prior: str) -> None:
    """The command line on a list of three prompts, with two workers."""
    (folder / "list.txt").write_text("a tree\na red chair\na table\n")
    from kill_and_resume import small_job as work

    del sys.modules["__main__"].__file__  # workers do not import this script before they watch their parent
    patch.object(local, "run_local", partial(local.run_local, work=work)).start()
    options = ("--workers", "2", "--prior", prior, "--checkpoint-minutes", "1e-8", "--device", "cpu", "--fail", "any")
    app(["batch", str(folder / "list.txt"), "--out-dir", str(folder / "out"), *options])


def relatives(session: int) -> dict[int, int]:
    """Parents by process, of all processes of a session that are alive."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


def attempt(task: Callable[[], None], kill: Callable[[int], None] = lambda process: None) -> tuple[bool, int]:
    """Run a task in a process and session of its own, and stop it: whether it came through, and orphans."""
    process = os.fork()
    if process == 0:
        code = 1
        with contextlib.suppress(BaseException):
            os.setsid()
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            for number in (signal.SIGTERM, signal.SIGHUP):  # as the command line does
                signal.signal(number, lambda number, frame: sys.exit(128 + number))
            try:
                task()
                code = 0
            except SystemExit as error:
                code = int(error.code or 0)
        os._exit(code)
    kill(process)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    end = time.monotonic() + GRACE_SECONDS
    while relatives(process) and time.monotonic() < end:
        time.sleep(0.02)
    return code == 0, len(relatives(process))


def kill_at_random(rng: np.random.Generator, seconds: float, said: list[str], process: int) -> None:
    """Wait, then send the next signal to the process, its group or one of its children."""
    time.sleep(rng.random() * seconds)
    children = [child for child, parent in relatives(process).items() if parent == process]
    number, kind = next(SIGNALS), ("process", "group", "child")[int(rng.integers(3 if children else 2))]
    said.append(f"{number.name} to the {kind}")
    with contextlib.suppress(ProcessLookupError):
        if kind == "group":
            os.killpg(process, number)
        else:
            os.kill(process if kind == "process" else int(rng.choice(children)), number)


def names(folder: Path) -> list[str]:
    """All that is in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def measure(work: Callable[[Path, str], None], count: int, prior: str, place: Path, rng: np.random.Generator) -> bool:
    """Stop and resume so many times; prints the figures and tells whether all are as they should be."""
    whole, began = place / "whole", time.monotonic()
    whole.mkdir(parents=True)
    assert attempt(lambda: work(whole, prior))[0]
    seconds, expected = time.monotonic() - began, names(whole)
    meshes = [name for name in expected if name.endswith(".glb")]
    same = clean = stops = orphans = 0
    for number in range(count):
        folder, said = place / str(number), list[str]()
        folder.mkdir()
        kill: Callable[[int], None] = partial(kill_at_random, rng, seconds, said)
        while True:
            done, left = attempt(lambda folder=folder: work(folder, prior), kill)  # type: ignore[misc]
            orphans += left
            said += [f"{left} orphans"] * bool(left)
            if done:
                break
            if rng.random() < 0.5:
                kill = lambda process: None  # noqa: E731
        same += all((folder / name).read_bytes() == (whole / name).read_bytes() for name in meshes)
        clean += names(folder) == expected
        stops += sum("SIG" in word for word in said)
        print(f"{work.__name__} {number + 1}: {', '.join(said)}", set(names(folder)) ^ set(expected) or "", flush=True)
    print(f"unbroken: {seconds:.1f} s; {count} times, {stops} signals: {same} with the same bytes, ", end="")
    print(f"{clean} with the same files, {orphans} orphans", flush=True)
    return same == clean == count and orphans == 0


def main() -> None:
    """Read the command line; exit with 1 if a mesh differs, a file is left over or a process lives on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--batches", type=int, default=25)
    parser.add_argument("--quick", action="store_true", help="workers are copies of their parent")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from tiny_prior import write_tiny_prior

    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    small_pictures()
    if args.quick:
        quick_workers()
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as name:
        prior = str(write_tiny_prior(Path(name) / "prior"))
        tasks = ((work_on_run, args.runs), (work_on_batch, args.batches))
        good = [measure(work, count, prior, Path(name) / work.__name__, rng) for work, count in tasks if count]
    raise SystemExit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
