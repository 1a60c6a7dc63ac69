"""One job, from nothing or from where an earlier process left it: what every engine's workers run."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from dream3d.batch.jobs import BatchJob
from dream3d.batch.places import Place, WorkingDirectory
from dream3d.errors import Dream3DError
from dream3d.run.progress import Observer, Progress, StageName, silent

if TYPE_CHECKING:
    from pathlib import Path

    from dream3d.prior.diffusion import DiffusionPrior

REPORT_SECONDS = 0.5
"""Between two words of a worker about where it is."""


@dataclass(frozen=True)
class Shared:
    """What all jobs of a batch share. Plain data."""

    place: Place
    prior: str
    device: str
    threads: int
    """Of torch, in each worker; bytes depend on it."""
    checkpoint_seconds: float = 60.0
    vram: float | None = None
    precision: str = "auto"


@dataclass(frozen=True)
class Result:
    """How a job ended."""

    key: str
    reason: str = ""
    """Why it failed; empty if it did not."""
    seconds: float = 0.0
    """That this attempt took."""


@dataclass(frozen=True)
class JobProgress:
    """Where a job is. Plain data: it is sent to other processes and machines."""

    key: str
    stage: StageName
    step: int
    steps: int


Watcher = Callable[[JobProgress], None]


def ignore_progress(working: JobProgress) -> None:
    """A watcher who looks away."""


@dataclass
class ProgressReporter:
    """An observer of a job that says where it is, at a bearable rate."""

    key: str
    tell: Watcher
    _next: float = field(default=0.0)
    _stage: str = ""

    def __call__(self, progress: Progress) -> None:
        """Tell, if it is time or something new begins."""
        now = time.monotonic()
        if now >= self._next or progress.stage != self._stage:
            self._next, self._stage = now + REPORT_SECONDS, progress.stage
            self.tell(JobProgress(self.key, progress.stage, progress.step, progress.steps))


@functools.lru_cache(maxsize=1)
def _prior(name: str, device: str, vram: float | None, precision: str) -> DiffusionPrior:
    from dream3d.prior.memory import plan_for
    from dream3d.weights.loading import load_prior

    return load_prior(name, device, plan_for(vram, precision, compile_unet=False))


def do_job(job: BatchJob, shared: Shared, observer: Observer = silent) -> Result:
    """Make the asset of a job; failures of the job come back as its result, others are raised."""
    import torch

    began = time.monotonic()
    torch.set_num_threads(shared.threads)
    reason = ""
    try:
        with shared.place.working_directory(job.mesh, job.run) as work:
            _make(job, shared, work, observer)
    except Dream3DError as error:
        reason = str(error)
    except Exception as error:  # one asset must not end the others
        reason = f"{type(error).__name__}: {str(error)[:300]}"
    return Result(job.key, " ".join(reason.split()), time.monotonic() - began)


def _make(job: BatchJob, shared: Shared, work: WorkingDirectory, observer: Observer) -> None:
    """Begin the job's run, or go on with it."""
    from dream3d.generate import generate, resume
    from dream3d.recipe.generation import Recipe
    from dream3d.recipe.overrides import changed_recipe
    from dream3d.retrieval.gathering import gather

    out, run_dir = work.folder / job.mesh, work.folder / job.run
    prior = _prior(shared.prior, shared.device, shared.vram, shared.precision)
    watcher = _keeping(work, run_dir, observer)
    if (run_dir / "run.json").exists():
        resume(run_dir, prior=prior, observer=watcher, checkpoint_seconds=shared.checkpoint_seconds, out=out)
        return
    gathered = gather(job.prompt, job.pictures, prior)
    unfamiliar = prior.unfamiliar(job.prompt)
    whole = job.recipe
    recipe = changed_recipe(job.changes, prior.recommended_preset) if whole is None else Recipe.from_dict(whole)
    generate(
        job.prompt,
        prior=prior,
        recipe=recipe,
        seed=job.seed,
        device=shared.device,
        out=out,
        run_dir=run_dir,
        observer=watcher,
        checkpoint_seconds=shared.checkpoint_seconds,
        request={
            "prior": shared.prior,
            "vram": shared.vram,
            "precision": shared.precision,
            "unfamiliar": unfamiliar and asdict(unfamiliar),
            **gathered.record,
        },
        guides=gathered.guides,
    )


def _keeping(work: WorkingDirectory, run_dir: Path, observer: Observer) -> Observer:
    """The observer, and each new checkpoint goes where the results lie."""
    from dream3d.run.checkpointer import FOLDER
    from dream3d.run.checkpoints import all_in

    newest: list[Path] = []

    def observe(progress: Progress) -> None:
        nonlocal newest
        observer(progress)
        found = all_in(run_dir / FOLDER)[-1:]
        if found != newest:
            with contextlib.suppress(Exception):  # a store that is away for a moment; the next one is kept
                work.keep()
                newest = found

    return observe
