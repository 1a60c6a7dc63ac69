"""The local engine: jobs in processes of this machine. A process that dies costs its job one attempt."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dream3d.batch.jobs import BatchJob
from dream3d.batch.work import ProgressReporter, Result, Shared, Watcher, do_job, ignore_progress
from dream3d.processes import Answer, JobFunction, Message, run_jobs
from dream3d.run.progress import Observer

ATTEMPTS = 3
"""Of a job whose process dies: one that the system kills for its memory will be killed again."""
GRACE_SECONDS = 60.0
"""For a worker to write a checkpoint when the batch is stopped."""

Work = Callable[[BatchJob, Shared, Observer], Result]


def run_local(
    jobs: Sequence[BatchJob], shared: Shared, workers: int, work: Work = do_job, watcher: Watcher = ignore_progress
) -> Iterator[Result]:
    """Results of the jobs as they come; each job has exactly one. ``watcher`` hears where they are.

    When the consumer stops (an exception, Ctrl-C), workers are told to stop and write a checkpoint first.
    """
    waiting, deaths = deque(jobs), Counter[str]()
    events = run_jobs(waiting, partial(_prepare, shared, work), workers, grace_seconds=GRACE_SECONDS)
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Message):
                watcher(event.content)
            elif isinstance(event, Answer):
                yield event.content
            else:
                key = event.job.key
                deaths[key] += 1
                if deaths[key] < ATTEMPTS:
                    waiting.appendleft(event.job)
                else:
                    yield Result(key, f"its process died {ATTEMPTS} times ({_cause(event.exit_code)})")


def _prepare(shared: Shared, work: Work) -> JobFunction:
    return lambda job, say: work(job, shared, ProgressReporter(job.key, say))


def _cause(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name
