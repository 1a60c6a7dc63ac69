"""The Ray engine: jobs as tasks of a Ray cluster, whose machines share the batch's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from dream3d.batch.jobs import BatchJob
from dream3d.batch.local import ATTEMPTS, Work
from dream3d.batch.work import JobProgress, ProgressReporter, Result, Shared, Watcher, do_job, ignore_progress
from dream3d.ray_cluster import ray_cluster

POLL_SECONDS = 1.0
"""Between two looks at where the workers are."""


class ProgressBoard:
    """Where workers write where they are: an actor of the cluster."""

    def __init__(self) -> None:
        self._words: dict[str, JobProgress] = {}

    def put(self, working: JobProgress) -> None:
        """Of a job, only the last word counts."""
        self._words[working.key] = working

    def take(self) -> list[JobProgress]:
        """All that is new."""
        words, self._words = list(self._words.values()), {}
        return words


def run_ray(
    jobs: Sequence[BatchJob],
    shared: Shared,
    workers: int,
    address: str | None = None,
    work: Work = do_job,
    watcher: Watcher = ignore_progress,
) -> Iterator[Result]:
    """Results of the jobs as they come; each job has exactly one. ``watcher`` hears where they are.

    ``address`` is that of a running cluster ("auto", "ray://host:10001"); without one, a local Ray of ``workers``
    CPUs is started and stopped. A task asks for ``shared.threads`` CPUs and, on CUDA, one GPU; if its worker is lost it
    is tried again, and resumes from the checkpoint that the lost one left. Raises UsageError without ray and
    Dream3DError for a cluster that cannot be reached.
    """
    with ray_cluster(address, workers * shared.threads, "ray") as ray:
        board = ray.remote(ProgressBoard).options(num_cpus=0).remote()
        demand = {"num_cpus": shared.threads, "num_gpus": 1 if shared.device.startswith("cuda") else 0}
        # Outputs are files and the run folder makes a second attempt go on, so trying again is safe.
        task = ray.remote(_do).options(**demand, max_retries=ATTEMPTS - 1, retry_exceptions=False)
        waiting = {task.remote(work, job, shared, board): job for job in jobs}
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=POLL_SECONDS)
            for reference in done:
                yield _result(ray, reference, waiting.pop(reference))
            with contextlib.suppress(ray.exceptions.RayError):  # its machine was lost; the results do not depend on it
                for working in ray.get(board.take.remote(), timeout=10):
                    watcher(working)


def _do(work: Work, job: BatchJob, shared: Shared, board: Any) -> Result:
    return work(job, shared, ProgressReporter(job.key, board.put.remote))


def _result(ray: Any, reference: Any, job: BatchJob) -> Result:
    try:
        result: Result = ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # not the job's own failure, which is a result
        return Result(job.key, f"{type(error.cause).__name__}: {str(error.cause)[:300]}")
    except ray.exceptions.RayError as error:
        return Result(job.key, f"its worker was lost {ATTEMPTS} times ({type(error).__name__})")
    return result
