"""One job, from nothing or from where an earlier process left it: what every engine's workers run."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dream3d.batch.jobs import Job
from dream3d.errors import Dream3DError
from dream3d.progress import Observer, silent

if TYPE_CHECKING:
    from dream3d.prior.diffusion import DiffusionPrior


@dataclass(frozen=True)
class Shared:
    """What all jobs of a batch share. Plain data."""

    folder: Path
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


@functools.lru_cache(maxsize=1)
def _prior(name: str, device: str, vram: float | None, precision: str) -> DiffusionPrior:
    from dream3d.prior import load_prior
    from dream3d.prior.memory import plan_for

    return load_prior(name, device, plan_for(vram, precision, compile_unet=False))


def do_job(job: Job, shared: Shared, observer: Observer = silent) -> Result:
    """Make the asset of a job; failures of the job come back as its result, others are raised."""
    import torch

    from dream3d.generate import generate, resume
    from dream3d.overrides import changed_recipe

    began = time.monotonic()
    torch.set_num_threads(shared.threads)
    reason, run_dir = "", job.run(shared.folder)
    try:
        prior = _prior(shared.prior, shared.device, shared.vram, shared.precision)
        if (run_dir / "run.json").exists():
            resume(run_dir, prior=prior, observer=observer, checkpoint_seconds=shared.checkpoint_seconds)
        else:
            generate(
                job.prompt,
                prior=prior,
                recipe=changed_recipe(job.changes, prior.recommended_preset),
                seed=job.seed,
                device=shared.device,
                out=job.mesh(shared.folder),
                run_dir=run_dir,
                observer=observer,
                checkpoint_seconds=shared.checkpoint_seconds,
                request={"prior": shared.prior, "vram": shared.vram, "precision": shared.precision},
            )
    except Dream3DError as error:
        reason = str(error)
    except Exception as error:  # one asset must not end the others
        reason = f"{type(error).__name__}: {str(error)[:300]}"
    return Result(job.key, " ".join(reason.split()), time.monotonic() - began)
