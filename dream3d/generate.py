"""The loop: a prompt, a prior and a recipe in; a mesh and its run folder out.

cameras -> render -> denoise -> update   (distill.py, one step)
... recipe.steps times ...               (here)
field -> surface -> mesh -> file         (finish.py)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dream3d import distill
from dream3d.checks import check_apart, check_output_file
from dream3d.errors import Dream3DError, NotFiniteError, UsageError
from dream3d.files import copy_file, remove_leftovers
from dream3d.finish import figures_of, finish, render_views
from dream3d.kernels.choose import choose
from dream3d.kernels.hash_grid import HASH_GRID
from dream3d.mesh.companions import companions_of
from dream3d.mesh.export import check_extension
from dream3d.prior.base import MultiViewPrior
from dream3d.prior.conditioning import Conditioning
from dream3d.recipe.generation import Recipe
from dream3d.retrieval import run_pictures
from dream3d.retrieval.run_pictures import Guides
from dream3d.run.checkpointer import Checkpointer
from dream3d.run.folder import RunFolder, provenance
from dream3d.run.job import Job, read_job
from dream3d.run.progress import Observer, Outcome, Progress, silent
from dream3d.run.session import Session
from dream3d.run_report import write_report
from dream3d.vsd import check_can_learn

CHECKPOINT_SECONDS = 60.0


def optimise(
    prompt: str,
    prior: MultiViewPrior,
    recipe: Recipe,
    seed: int,
    device: str,
    session: Session | None = None,
    hash_grid: str | None = None,
    tell: Callable[[Conditioning], Conditioning] | None = None,
) -> distill.Distillation:
    """The optimisation: from a soft ball, or from the session's checkpoint, to a field that the prior agrees with.

    ``tell`` adds to what the prior is told besides the text.
    """
    session = session or Session()
    session.observer(Progress("prepare", 0, 1))
    told = prior.encode_prompt(prompt, recipe.negative_prompt)
    if tell is not None:
        told = tell(told)
    while True:
        distillation = distill.start(recipe, prior, session.seed(seed), device, hash_grid)
        if _attempt(distillation, session, told):
            return distillation


def _attempt(distillation: distill.Distillation, session: Session, told: Conditioning) -> bool:
    """All steps from the newest checkpoint on; False if the field went wrong and is to begin again."""
    steps_in_all = distillation.recipe.steps
    with session.steps_of(distillation, preview=partial(render_views, distillation.scene)) as steps:
        for step in steps:
            if not session.look(step, distillation):
                return False
            report = distillation.step(step, told)
            try:
                session.after(step, report)
            except NotFiniteError:
                if session.gives_up(step, distillation):
                    raise
                return False
    return session.look(steps_in_all, distillation)


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
    guides: Guides | None = None,
) -> Outcome:
    """Optimise a field under ``prior`` until it looks like ``prompt``, and export its surface to ``out``.

    ``guides`` are pictures of the object, for priors with an image adapter (MV-RAG); copies of them go into the run
    folder, and their authors and licences into the asset.

    ``run_dir`` receives run.json, metrics.csv, preview.png, turntable.mp4, report.html, the field and a copy of the
    mesh; what is there already stays, and ours gets a number. On the CPU the same arguments give the same bytes. Every
    ``checkpoint_seconds`` (0: never), and when SIGINT, SIGTERM or SIGHUP stop it, its state is kept for :func:`resume`.
    ``request`` is plain data that goes into run.json: how to load the prior again, for one.

    Raises PriorError for pictures and a prior that reads none, UsageError for an unknown file extension or a run folder
    in use, CollapsedFieldError for a field without a surface, ExportError if a file cannot be written,
    KeyboardInterrupt or SystemExit when stopped.
    """
    out = check_output_file(out)
    check_extension(out)
    check_apart(out, run_dir)
    check_can_learn(recipe, prior)
    asked = {**(request or {}), **run_pictures.request_of(guides), "out": str(out.absolute()), "device": device}
    facts = {**made_of(prompt, prior, recipe, seed, device), "request": asked}
    if guides is not None:
        facts[run_pictures.KEY] = run_pictures.record_of(guides, prior)
    with RunFolder(run_dir, facts) as run:
        run_pictures.keep(run, () if guides is None else guides.references)
        job = Job(prompt, recipe, seed, device, out, facts["hash_grid"])
        return _carry_out(run, job, prior, observer, checkpoint_seconds)


def made_of(prompt: str, prior: MultiViewPrior, recipe: Recipe, seed: int, device: str) -> dict[str, Any]:
    """All that the bytes of an asset made here would depend on, pictures aside: what its file tells of its making."""
    return {
        **provenance(prompt, seed, recipe, prior),
        "prior_digest": prior.digest,
        "hash_grid": choose(HASH_GRID, device).name,
        "threads": torch.get_num_threads(),
        "device": torch.device(device).type,
    }


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
    with RunFolder.reopen(run_dir) as run:
        if out is not None:
            run.redirect(out)
        job = read_job(run)
        if _is_done(run, job):
            return None
        _check_same(run, job, prior)
        remove_leftovers(job.out.parent)
        run.record("running")
        return _carry_out(run, job, prior, observer, checkpoint_seconds)


def complete(run_dir: Path) -> bool:
    """Whether a run is finished; if so, a mesh that was lost comes back from its copy. Raises like :func:`resume`."""
    with RunFolder.reopen(run_dir) as run:
        return _is_done(run, read_job(run))


def _is_done(run: RunFolder, job: Job) -> bool:
    if run.facts.get("status") != "finished":
        return False
    remove_leftovers(job.out.parent)
    Checkpointer(run, 0).discard()  # a process may have been killed before it came to that
    if not job.out.exists():
        copy = run.own(f"mesh{job.out.suffix.lower()}")
        if not copy.is_file():
            return False
        job.out.parent.mkdir(parents=True, exist_ok=True)
        for companion in companions_of(copy):
            if not os.path.lexists(job.out.with_name(companion.name)):
                copy_file(companion, job.out.with_name(companion.name))
        copy_file(copy, job.out)
    return True


def _check_same(run: RunFolder, job: Job, prior: MultiViewPrior) -> None:
    """UsageError unless the prior is the one that the run began with, and its hash grid works here."""
    facts = run.facts
    if facts.get("prior") != prior.describe():
        raise UsageError(f"{run.path} was made with the prior {facts.get('prior')}, this is {prior.describe()}")
    run_pictures.check_adapter_is_same(facts, prior, run.path)
    before = facts.get("prior_digest")
    if before not in (None, prior.digest):
        raise UsageError(
            f"{run.path} was made with other weights of this prior (SHA-256 {str(before)[:12]}..., now "
            f"{prior.digest[:12]}...); put those back, or start again"
        )
    try:
        choose(HASH_GRID, job.device, job.hash_grid)
    except LookupError as error:
        raise UsageError(f"{run.path} can be resumed only on the hash grid it began with: {error}") from error


def _carry_out(
    run: RunFolder, job: Job, prior: MultiViewPrior, observer: Observer, checkpoint_seconds: float
) -> Outcome:
    """From the run's newest checkpoint, or from nothing, to its files; ``run.json`` says how it ended."""
    checkpointer = Checkpointer(run, checkpoint_seconds)
    try:
        session = Session(observer, run, checkpointer)

        def tell(text: Conditioning) -> Conditioning:
            told, sentence = run_pictures.tell(run, text, job.prompt, job.seed, prior)
            if sentence:
                observer(Progress("prepare", 0, 1, message=sentence))
            return told

        distillation = optimise(job.prompt, prior, job.recipe, job.seed, job.device, session, job.hash_grid, tell)
        outcome = finish(run, job, distillation.scene, prior, lambda: checkpointer.seconds, observer)
        checkpointer.keep_field(distillation)
        result = figures_of(outcome)
        write_report(run, {**run.facts, "status": "finished", "result": result})
        run.record("finished", result=result)
    except (KeyboardInterrupt, SystemExit):
        with contextlib.suppress(OSError):
            run.record("interrupted")
        raise
    except BaseException as error:
        with contextlib.suppress(OSError):  # the error may be a full disk, and is the one to be told
            run.record("failed", reason=str(error) if isinstance(error, Dream3DError) else type(error).__name__)
        if isinstance(error, OSError) and not run.path.is_dir():
            raise Dream3DError(f"the run folder {run.path} was removed or renamed while the run was at work") from error
        raise
    checkpointer.discard()
    return outcome
