"""The local engine: jobs in processes of this machine. A process that dies costs its job one attempt."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from dream3d.batch.jobs import Job
from dream3d.batch.work import Result, Shared, Teller, Watcher, Working, do_job, unwatched
from dream3d.run.progress import Observer

ATTEMPTS = 3
"""Of a job whose process dies: one that the system kills for its memory will be killed again."""
GRACE_SECONDS = 60.0
"""For a worker to write a checkpoint when the batch is stopped."""

Work = Callable[[Job, Shared, Observer], Result]


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    job: Job | None = None


def run_local(
    jobs: Sequence[Job], shared: Shared, workers: int, work: Work = do_job, watcher: Watcher = unwatched
) -> Iterator[Result]:
    """Results of the jobs as they come; each job has exactly one. ``watcher`` hears where they are.

    When the consumer stops (an exception, Ctrl-C), workers are told to stop and write a checkpoint first.
    """
    waiting, attempts = deque(jobs), Counter[str]()
    pool: list[_Worker] = []
    try:
        while waiting or any(worker.job for worker in pool):
            while waiting and len(pool) < workers:
                pool.append(_start(shared, work))
            for worker in pool:
                if worker.job is None and waiting:
                    _give(worker, waiting.popleft())
            for pipe in wait([worker.pipe for worker in pool if worker.job]):
                worker = next(one for one in pool if one.pipe is pipe)
                job, answer = worker.job, _receive(worker)
                assert job is not None  # only workers with a job are waited for
                if isinstance(answer, Working):
                    watcher(answer)
                    continue
                worker.job = None
                if answer is None:
                    pool.remove(worker)
                    attempts[job.key] += 1
                    if attempts[job.key] < ATTEMPTS:
                        waiting.appendleft(job)
                        continue
                    answer = Result(job.key, f"its process died {ATTEMPTS} times ({_cause(worker.process.exitcode)})")
                yield answer
    finally:
        _end(pool)


def _start(shared: Shared, work: Work) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a forked process would share the parent's threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, shared, work))
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _serve(pipe: Connection, shared: Shared, work: Work) -> None:
    """What a worker does: jobs, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says what to do
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while (job := pipe.recv()) is not None:
            pipe.send(work(job, shared, Teller(job.key, pipe.send)))


def _give(worker: _Worker, job: Job) -> None:
    worker.job = job
    with contextlib.suppress(OSError):  # it may be dead; the next look at it says so
        worker.pipe.send(job)


def _receive(worker: _Worker) -> Any:
    """A word of the worker's, or None if it is dead."""
    try:
        return worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        return None


def _cause(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name


def _end(pool: Sequence[_Worker]) -> None:
    for worker in pool:
        with contextlib.suppress(OSError):
            worker.pipe.send(None)
        if worker.job is not None:
            worker.process.terminate()  # SIGTERM: the step is finished and its state is kept
    for worker in pool:
        worker.process.join(GRACE_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()
