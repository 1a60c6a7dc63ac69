"""The pool of processes: each job has one end, whatever happens to the process that it is in."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dream3d import processes
from dream3d.processes import Answer, JobFunction, Loss, Message, ProgramError, Say, run_jobs, run_program

Event = Message[str] | Answer[str] | Loss[str]


def prepare() -> JobFunction:
    """A job is a word that says what happens."""
    return obey


def obey(job: str, say: Say) -> str:
    if job != "dies before a word":
        say(f"begin {job}")
    if job.startswith("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "exits":
        sys.exit(3)
    if job == "hangs":
        time.sleep(60)
    if job == "is slow and talks":
        for _ in range(5):
            time.sleep(0.5)
            say("still here")
    if job == "is greedy":
        try:
            bytearray(2**31)
        except MemoryError:
            return "no memory"
    return job.upper()


def events_of(*jobs: str, workers: int = 2, **options: Any) -> list[Event]:
    with contextlib.closing(run_jobs(deque(jobs), prepare, workers, **options)) as events:
        return list(events)


def test_every_job_is_answered_after_its_messages() -> None:
    events = events_of("a", "b", "c", "d", workers=3)
    for job in "abcd":
        assert [event for event in events if event.job == job] == [
            Message(job, f"begin {job}"),
            Answer(job, job.upper()),
        ]
    assert len(events) == 8


def test_no_jobs_need_no_process() -> None:
    assert events_of() == []


def test_a_process_that_dies_loses_its_job_and_no_other() -> None:
    events = events_of("a", "dies", "b", "dies before a word", "exits", "c", workers=1)
    assert [event.job for event in events if isinstance(event, Answer)] == ["a", "b", "c"]
    assert [event for event in events if isinstance(event, Loss)] == [
        Loss("dies", "begin dies", False, -signal.SIGKILL),
        Loss("dies before a word", None, False, -signal.SIGKILL),
        Loss("exits", "begin exits", False, 3),
    ]


def test_a_process_that_says_nothing_for_too_long_is_killed_and_one_that_talks_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = events_of("hangs", "is slow and talks", silence_seconds=2.0)
    (loss,) = [event for event in events if isinstance(event, Loss)]
    assert (loss.job, loss.last, loss.hung) == ("hangs", "begin hangs", True)
    assert Answer("is slow and talks", "IS SLOW AND TALKS") in events
    monkeypatch.setattr(processes, "START_SECONDS", 0.0)
    assert Loss("a", None, True, -signal.SIGKILL) in events_of("a", silence_seconds=1e-3)


def test_a_process_has_no_more_memory_than_it_may() -> None:
    assert events_of("is greedy", memory_bytes=2**30)[-1] == Answer("is greedy", "no memory")
    assert events_of("is greedy", memory_bytes=2**33)[-1] == Answer("is greedy", "IS GREEDY")


def test_a_job_that_was_lost_can_be_given_again() -> None:
    jobs, lost = deque(["dies", "a"]), 0
    with contextlib.closing(run_jobs(jobs, prepare, 1)) as events:
        for event in events:
            if isinstance(event, Loss) and (lost := lost + 1) < 3:
                jobs.appendleft(event.job)
    assert lost == 3


def note_the_end(folder: Path) -> JobFunction:
    def work(job: str, say: Say) -> None:
        def stop(number: int, frame: object) -> None:
            (folder / job).write_text("kept")
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, stop)
        say("begin")
        time.sleep(60)

    return work


@pytest.mark.parametrize(("grace", "kept"), [(30.0, ["a", "b"]), (0.0, [])])
def test_closing_gives_processes_at_work_their_grace(tmp_path: Path, grace: float, kept: list[str]) -> None:
    events = run_jobs(deque("ab"), partial(note_the_end, tmp_path), 2, grace_seconds=grace)
    assert {next(events).job, next(events).job} == {"a", "b"}
    began = time.monotonic()
    events.close()
    assert time.monotonic() - began < 20
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


PARENT = """
import sys
from collections import deque
from functools import partial
from pathlib import Path
from dream3d.processes import run_jobs
from test_processes import say_where

for event in run_jobs(deque(["a", "b"]), partial(say_where, Path(sys.argv[1])), 2, grace_seconds=60):
    print(event, flush=True)
"""


def say_where(folder: Path) -> JobFunction:
    def work(job: str, say: Say) -> None:
        (folder / str(os.getpid())).touch()
        say("begin")
        time.sleep(60)

    return work


def is_alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])}
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    parent = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    assert [parent.stdout.readline()[:7] for _ in "ab"] == [b"Message", b"Message"]
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    os.kill(parent.pid, number)
    parent.communicate(timeout=120)
    until = time.monotonic() + 5
    while any(map(is_alive, workers)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not [worker for worker in workers if is_alive(worker)]


def test_a_second_signal_leaves_no_process(tmp_path: Path) -> None:
    events = run_jobs(deque("ab"), partial(stubborn, tmp_path), 2, grace_seconds=60.0)
    assert {next(events).job, next(events).job} == {"a", "b"}

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            events.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not [path for path in tmp_path.iterdir() if is_alive(int(path.name))]


def stubborn(folder: Path) -> JobFunction:
    def work(job: str, say: Say) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say_where(folder)(job, say)

    return work


# --- programs -----------------------------------------------------------------------------------------------------

PROGRAM = """
import os, sys, time
def main():
    word = sys.stdin.buffer.read().decode()
    if word == "echo":
        sys.stdout.buffer.write(bytes([0, 255, 10]) + word.encode())
    elif word == "fail":
        raise ValueError("it is broken")
    elif word == "sleep":
        print(os.getpid(), file=open(os.environ["PID_FILE"], "w"), flush=True)
        time.sleep(60)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "program_of_the_tests.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    return "program_of_the_tests"


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_program_answers_in_bytes(program: str) -> None:
    assert run_program(program, b"echo", 60) == b"\x00\xff\necho"


def test_a_program_that_fails_says_why(program: str) -> None:
    with pytest.raises(ProgramError, match=r"^ended with exit code 1 \(ValueError: it is broken\)$"):
        run_program(program, b"fail", 60)


def test_a_program_that_takes_too_long_is_ended(program: str, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"^took more than 5 s$"):
        run_program(program, b"sleep", 5)
    assert not is_there(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_a_program_ends_with_its_parent(program: str, tmp_path: Path) -> None:
    code = f"from dream3d.processes import run_program; run_program({program!r}, b'sleep', 60)"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(processes.__file__).parent.parent)
    pid, until = tmp_path / "pid", time.monotonic() + 60
    while not (pid.exists() and pid.read_text().strip()) and time.monotonic() < until:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while is_there(int(pid.read_text())) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_there(int(pid.read_text()))


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('begun', flush=True)\n"
        "import trimesh, numpy as np\n"
        "from dream3d.mesh.unwrap import unwrap\n"
        "ball = trimesh.creation.icosphere(2)\n"
        "print(unwrap(np.asarray(ball.vertices, np.float32), np.asarray(ball.faces, np.int64), 64)[1])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(processes.__file__).parent.parent)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["begun", "None"]
