"""Jobs for other processes of this machine. A process that dies or hangs costs only the job it was at."""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from dream3d.own_process import set_up

JobT = TypeVar("JobT")
Say = Callable[[Any], None]
JobFunction = Callable[[Any, Say], Any]
"""What a process does with a job: it may say things on its way, and returns the answer."""

START_SECONDS = 300.0
"""For a process to import its libraries and open what it needs, on a busy machine."""
DEATH_SECONDS = 5.0
"""Between the last word of a process that dies and its end."""


@dataclass(frozen=True)
class Message(Generic[JobT]):
    """What a process says of its job on its way."""

    job: JobT
    content: Any


@dataclass(frozen=True)
class Answer(Generic[JobT]):
    """What came out of a job."""

    job: JobT
    content: Any


@dataclass(frozen=True)
class Loss(Generic[JobT]):
    """A job whose process died, or was killed because it hung."""

    job: JobT
    last: Any
    """Content of the job's last message; None if there was none."""
    hung: bool
    exit_code: int | None


class ProgramError(Exception):
    """A program gave no answer; the message says why, as the rest of a sentence."""


def run_program(module: str, given: bytes, seconds: float) -> bytes:
    """What a module of this package, run as a program, writes to its standard output for what is ``given`` to it.

    Unlike the processes of :func:`run_jobs` it does not import the main module again, so that the script of a user who
    calls this package needs no guard. Raises ProgramError if it is not done after ``seconds``, which ends it, or fails.
    """
    start = f"from dream3d.processes import end_with_parent; end_with_parent({os.getpid()})"
    program = f"{start}; from {module} import main; main()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=given,
            capture_output=True,
            timeout=seconds,
            cwd=Path(__file__).parent.parent,  # where the package is, however it was found
            check=False,
            start_new_session=True,  # Ctrl-C reaches us, and we end it
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"took more than {seconds:g} s") from error
    except OSError as error:
        raise ProgramError(f"could not be started ({error.strerror})") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ProgramError(f"ended with exit code {done.returncode}{f' ({last[0][:200]})' if last else ''}")
    return done.stdout


def end_with_parent(parent: int) -> None:
    """On Linux, from here on this process ends when its parent, the process ``parent``, does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)


def run_jobs(
    jobs: deque[JobT],
    prepare: Callable[[], JobFunction],
    workers: int,
    *,
    silence_seconds: float = math.inf,
    memory_bytes: int | None = None,
    grace_seconds: float = 0.0,
) -> Generator[Message[JobT] | Answer[JobT] | Loss[JobT], None, None]:
    """Do jobs in up to ``workers`` processes, which are started when they are needed and ended with the generator.

    Jobs are taken from the front of the queue, to which the caller may return a lost one. Jobs, messages, answers and
    ``prepare``, which each process calls once, are sent between processes. A job must not be None.

    A process that says nothing for ``silence_seconds`` (at first :data:`START_SECONDS` more) is killed. After
    ``prepare``, it may add ``memory_bytes`` to its address space. When the generator is closed, processes at work get a
    SIGTERM and ``grace_seconds``; the rest is killed.
    """
    context = multiprocessing.get_context("spawn")  # a forked process would share the parent's threads and OpenGL
    pool: list[_Worker[JobT]] = []
    try:
        while jobs or any(worker.job is not None for worker in pool):
            idle = sum(worker.job is None for worker in pool)
            for _ in range(min(workers - len(pool), len(jobs) - idle)):
                ours, theirs = context.Pipe()
                # What gets no grace need not outlive the interpreter either.
                daemon = not grace_seconds
                process = context.Process(target=_serve, args=(theirs, memory_bytes), daemon=daemon)
                process.start()
                theirs.close()
                pool.append(_Worker(process, ours, silence_seconds))
                with contextlib.suppress(OSError):  # it may be dead; the next look at it says so
                    ours.send(prepare)  # later than its arguments, so that it watches us while it imports what it needs
            for worker in pool:
                if worker.job is None and jobs:
                    worker.give(jobs.popleft())
            for worker in _ready([worker for worker in pool if worker.job is not None]):
                event = worker.hear()
                if isinstance(event, Loss):
                    pool.remove(worker)
                yield event
    finally:
        # Whatever happens here, a second Ctrl-C for one, no process is left.
        with contextlib.ExitStack() as ends:
            for worker in pool:
                ends.callback(worker.end, 0.0)
            for worker in pool if grace_seconds else ():
                worker.stop()
            until = time.monotonic() + grace_seconds
            for worker in pool:
                worker.process.join(max(0.0, until - time.monotonic()))


@dataclass(eq=False)
class _Worker(Generic[JobT]):
    """A process, seen from outside."""

    process: SpawnProcess
    pipe: Connection
    silence_seconds: float
    job: JobT | None = None
    last: Any = None
    deadline: float = math.inf

    def give(self, job: JobT) -> None:
        self.job, self.last = job, None
        self.deadline = time.monotonic() + START_SECONDS + self.silence_seconds
        with contextlib.suppress(OSError):  # it may be dead; the next look at it says so
            self.pipe.send(job)

    def hear(self) -> Message[JobT] | Answer[JobT] | Loss[JobT]:
        """The next word of a process that has something to say, is dead, or is too late; the latter two are ended."""
        assert self.job is not None  # only those at work are listened to
        job, hung = self.job, False
        try:
            if self.pipe.poll():
                is_answer, content = self.pipe.recv()
                if is_answer:
                    self.job = None
                    return Answer(job, content)
                self.last, self.deadline = content, time.monotonic() + self.silence_seconds
                return Message(job, content)
            hung = True
        except (EOFError, OSError):
            pass
        return Loss(job, self.last, hung, self.end(0.0 if hung else DEATH_SECONDS))

    def stop(self) -> None:
        """Ask the process to end: at once if it has nothing to do, else as its handler of SIGTERM does."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        if self.job is not None:
            self.process.terminate()

    def end(self, grace_seconds: float) -> int | None:
        """End the process, by force if it is still there after the grace; its exit code."""
        self.process.join(grace_seconds)
        self.process.kill()
        self.process.join()
        code = self.process.exitcode
        self.process.close()
        self.pipe.close()
        return code


def _ready(busy: Sequence[_Worker[JobT]]) -> list[_Worker[JobT]]:
    """Those that have something to say, are dead, or are too late; waits for the first."""
    first = min(worker.deadline for worker in busy)
    patience = None if first == math.inf else max(0.0, first - time.monotonic())
    heard = wait([worker.pipe for worker in busy], patience)
    now = time.monotonic()
    return [worker for worker in busy if worker.pipe in heard or now > worker.deadline]


def _serve(pipe: Connection, memory_bytes: int | None) -> None:
    """What a process does: jobs in, words and answers out, until there are no more jobs or no parent."""
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)  # both reach the whole group; the parent says what to do
    _die_with_parent()
    set_up()
    try:
        work = pipe.recv()()
    except EOFError:
        return
    if memory_bytes is not None:
        _limit_memory(memory_bytes)
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while (job := pipe.recv()) is not None:
            answer = work(job, lambda content: pipe.send((False, content)))
            pipe.send((True, answer))


def _die_with_parent() -> None:
    """From here on this process ends when its parent does, however that happens."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # only children come here

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":  # at once, even while a library holds the interpreter's lock
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _limit_memory(allowance: int) -> None:
    """Limit this process's address space; where the system cannot, the time limit alone holds."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + allowance
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (ImportError, OSError, ValueError):
        pass
