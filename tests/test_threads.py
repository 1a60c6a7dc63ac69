"""How threads are counted and how they wait."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dream3d import threads

LINUX = pytest.mark.skipif(not threads.TASKS.exists(), reason="only Linux tells how long threads wait")


@pytest.mark.parametrize(
    ("cores", "workers", "asked", "expected"),
    [
        (8, 1, None, 8),
        (8, 2, None, 4),
        (2, 3, None, 1),
        (8, 2, "2", 2),
        (8, 2, "16", 4),
        (8, 1, "3,2", 3),  # OpenMP's list: one number per level
        (8, 1, "0", 8),
        (8, 1, "many", 8),
    ],
)
def test_workers_share_the_cores_and_keep_to_omp_num_threads(
    cores: int, workers: int, asked: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads.threads_per_worker(workers) == expected


def test_available_cores_are_those_of_the_affinity() -> None:
    assert 1 <= threads.available_cores() <= (os.cpu_count() or 1)


def test_waited_seconds_add_up_over_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for task, text in {"7": "100 2000000000 5\n", "8": "100 500000000 5\n", "9": ""}.items():
        (tmp_path / task).mkdir()
        (tmp_path / task / "schedstat").write_text(text, encoding="ascii")
    monkeypatch.setattr(threads, "TASKS", tmp_path)
    assert threads.waited_seconds() == pytest.approx(2.5)
    monkeypatch.setattr(threads, "TASKS", tmp_path / "another system")
    assert threads.waited_seconds() is None


def test_a_share_between_the_limits_changes_nothing() -> None:
    assert [threads.crowded(share, before) for share in (0.05, 0.2, 0.5) for before in (False, True)] == [
        False, False, False, True, True, True,
    ]  # fmt: skip


@LINUX
def test_spare_threads_come_and_go() -> None:
    before = torch.get_num_threads()
    count = len(list(threads.TASKS.iterdir()))
    spare = threads.SpareThreads()
    spare.release()
    assert len(list(threads.TASKS.iterdir())) <= count + before
    assert torch.get_num_threads() == before


_WATCHED = """
import sys, threading, torch
from dream3d import threads
waits = iter([0.0, 0.0, 9.0, 18.0, 18.0, 18.0])
done = threading.Event()
seen = []
def waited():
    seen.append(any(t.name == "spare-threads" for t in threading.enumerate()))
    try:
        return next(waits)
    except StopIteration:
        done.set()
        return 18.0
threads.waited_seconds, threads.INTERVAL_SECONDS = waited, 0.02
threads.share_cores()
done.wait(20)
print(seen[:7])
"""


def test_spare_threads_are_held_while_others_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", _WATCHED], capture_output=True, text=True, timeout=120, check=True)
    # Readings: at the start, when the watch begins, then four times; from the second busy one on the threads are there.
    assert done.stdout.strip() == "[False, False, False, True, True, False, False]"


@pytest.mark.parametrize("variable", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_a_policy_of_the_user_is_left_alone(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "passive")
    monkeypatch.setattr("threading.Thread", None)  # it would raise
    threads.share_cores.__wrapped__()


def test_a_module_that_is_still_being_imported_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_imported.py").write_text(
        "from dream3d import threads\nduring = threads._is_imported(__name__)\n"  # what another thread would see
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    half: Any = importlib.import_module("half_imported")
    assert not half.during
    assert threads._is_imported("half_imported")
    assert not threads._is_imported("never_imported")


@LINUX
def test_the_watch_ends_before_the_interpreter_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(threads, "crowded", lambda share, before: True)  # it holds spare threads then
    others = set(threading.enumerate())  # of commands that other tests ran in this process
    over = threading.Event()
    thread = threading.Thread(target=threads._watch, args=(over,), daemon=True)
    thread.start()
    while not (spare := {one for one in threading.enumerate() if one.name == "spare-threads"} - others):
        time.sleep(0.01)
    threads._end(thread, over)
    assert not thread.is_alive()
    assert not any(one.is_alive() for one in spare)
