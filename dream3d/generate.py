"""The loop: a prompt, a prior and a recipe in; a mesh and its run folder out.

cameras -> render -> denoise -> update   (distill.py, one step)
... recipe.steps times ...               (here)
field -> surface -> mesh -> file         (finish.py)
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dream3d import distill
from dream3d.errors import Dream3DError, UsageError
from dream3d.files import remove_leftovers, write_atomically
from dream3d.finish import figures_of, finish, render_views
from dream3d.mesh.export import check_extension
from dream3d.prior.base import MultiViewPrior
from dream3d.recipe.generation import Recipe
from dream3d.run.checkpointer import FOLDER as CHECKPOINTS
from dream3d.run.checkpointer import Checkpointer
from dream3d.run.folder import RunFolder, provenance
from dream3d.run.job import Job, read_job
from dream3d.run.progress import Observer, Outcome, Progress, silent
from dream3d.run.session import Session

CHECKPOINT_SECONDS = 60.0


def optimise(
    prompt: str, prior: MultiViewPrior, recipe: Recipe, seed: int, device: str, session: Session | None = None
) -> distill.Distillation:
    """The optimisation: from a soft ball, or from the session's checkpoint, to a field that the prior agrees with."""
    session = session or Session()
    session.observer(Progress("prepare", 0, 1))
    text = prior.encode_prompt(prompt, recipe.negative_prompt)
    distillation = distill.start(recipe, prior, seed, device)
    with session.steps_of(distillation, preview=lambda: render_views(distillation.scene, 1, 32)[0]) as steps:
        for step in steps:
            session.after(step, distillation.step(step, text))
    return distillation


def generate(
    prompt: str,
    *,
    prior: MultiViewPrior,
    recipe: Recipe,
    seed: int,
    device: str,
    out: Path,
    run_dir: Path,
    observer: Observer = silent,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    request: Mapping[str, Any] | None = None,
) -> Outcome:
    """Optimise a field under ``prior`` until it looks like ``prompt``, and export its surface to ``out``.

    ``run_dir`` receives run.json, metrics.csv, preview.png, turntable.mp4 and a copy of the mesh. On the
    CPU the same arguments give the same bytes. Every ``checkpoint_seconds`` (0: never), and when SIGINT or SIGTERM
    stop it, its state is kept for :func:`resume`. ``request`` is plain data that goes into run.json: how to load the
    prior again, for one.

    Raises UsageError for an unknown file extension or a run folder in use, CollapsedFieldError for a field without a
    surface, ExportError if a file cannot be written, KeyboardInterrupt or SystemExit when stopped.
    """
    check_extension(out)
    asked = {**(request or {}), "out": str(out.absolute()), "device": device}
    run = RunFolder(run_dir, {**provenance(prompt, seed, recipe, prior), "request": asked})
    return _carry_out(run, Job(prompt, recipe, seed, device, out), prior, observer, checkpoint_seconds)


def resume(
    run_dir: Path,
    *,
    prior: MultiViewPrior,
    observer: Observer = silent,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    out: Path | None = None,
) -> Outcome | None:
    """Resume a run that was stopped, killed or failed; None if it is finished and its mesh is there.

    ``out`` is where the mesh goes now, if its folder is not where it was.

    On the same machine with the same number of threads the bytes of the mesh are those of a run that was never
    stopped. Raises what :func:`generate` raises, UsageError also for a folder without a run and for another prior than
    the run's, Dream3DError for a folder that another process is at work in, CheckpointError for a state that cannot be
    used.
    """
    run = RunFolder.reopen(run_dir)
    if out is not None:
        run.redirect(out)
    job = read_job(run)
    copy = run.path / f"mesh{job.out.suffix.lower()}"
    if run.facts.get("status") == "finished" and copy.is_file():
        if not job.out.exists():
            write_atomically(job.out, lambda temporary: shutil.copyfile(copy, temporary))
        run.close()
        return None
    if run.facts.get("prior") != prior.describe():
        run.close()
        raise UsageError(f"{run_dir} was made with the prior {run.facts.get('prior')}, this is {prior.describe()}")
    remove_leftovers(run.path / CHECKPOINTS)
    remove_leftovers(job.out.parent, job.out.stem[:40])
    run.mark_running()
    return _carry_out(run, job, prior, observer, checkpoint_seconds)


def _carry_out(
    run: RunFolder, job: Job, prior: MultiViewPrior, observer: Observer, checkpoint_seconds: float
) -> Outcome:
    """From the run's newest checkpoint, or from nothing, to its files; ``run.json`` says how it ended."""
    checkpointer = Checkpointer(run.path / CHECKPOINTS, checkpoint_seconds)
    try:
        session = Session(observer, run, checkpointer)
        distillation = optimise(job.prompt, prior, job.recipe, job.seed, job.device, session)
        outcome = finish(run, job, distillation.scene, prior, lambda: checkpointer.seconds, observer)
    except (KeyboardInterrupt, SystemExit):
        run.interrupt()
        raise
    except BaseException as error:
        with contextlib.suppress(OSError):  # the error may be a full disk, and is the one to be told
            run.fail(str(error) if isinstance(error, Dream3DError) else type(error).__name__)
        raise
    else:
        run.finish(figures_of(outcome))
        shutil.rmtree(checkpointer.folder, ignore_errors=True)
        return outcome
    finally:
        run.close()
