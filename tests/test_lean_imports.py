"""This program's own processes start without what diffusers imports beside it; other programs are left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from tiny_prior import write_tiny_prior

from dream3d.lean_imports import FLAGS
from dream3d.processes import Answer, JobFunction, Say, run_jobs

UNUSED = ("bitsandbytes", "peft", "scipy.stats")
SEEN = f"import sys, json; print(json.dumps([name for name in {UNUSED} if name in sys.modules]))"


def seen_after(*lines: str) -> list[list[str]]:
    """Which of these libraries are imported at each line ``SEEN`` of a program and at its end."""
    done = subprocess.run([sys.executable, "-c", "\n".join([*lines, SEEN])], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_command_line_leaves_them_out_and_what_needs_one_still_has_it(tmp_path: Path) -> None:
    lean = "from dream3d.lean_imports import leave_out_unused; leave_out_unused(); leave_out_unused()"
    load = "from dream3d.weights.loading import load_prior; import dream3d.prior.sampling"
    run_once = f"load_prior({str(write_tiny_prior(tmp_path / 'prior'))!r})"  # the network runs once to be checked
    try_peft = "import contextlib\nwith contextlib.suppress(ImportError): import peft"
    before, after = seen_after(lean, load, run_once, SEEN, try_peft)
    assert before == []
    pytest.importorskip("peft")
    assert "peft" in after


def test_an_import_of_the_library_changes_nothing() -> None:
    pytest.importorskip("peft")
    flags = "import sys, dream3d.weights.loading; from dream3d.lean_imports import FLAGS"
    kept = "; ".join(
        f"assert sys.modules[{module!r}].{name}"
        for module, names in FLAGS.items()
        for name in names
        if "bitsandbytes" not in name  # which is not installed everywhere
    )
    assert "peft" in seen_after(flags, kept)[0]


def prepare() -> JobFunction:
    import dream3d.prior.sampling  # noqa: F401  (what a worker of a batch needs)

    def work(job: str, say: Say) -> list[str]:
        return [name for name in UNUSED if name in sys.modules]

    return work


def test_workers_leave_them_out() -> None:
    assert [event.content for event in run_jobs(deque("a"), prepare, 1) if isinstance(event, Answer)] == [[]]
