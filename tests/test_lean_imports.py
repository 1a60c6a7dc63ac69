"""This program's own processes start without what diffusers imports beside it; other programs are left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque

import pytest

from dream3d.lean_imports import FLAGS
from dream3d.processes import Answer, JobFunction, Say, run_jobs

UNUSED = ("bitsandbytes", "peft", "scipy.stats")
SEEN = f"import sys, json; print(json.dumps([name for name in {UNUSED} if name in sys.modules]))"


def seen_after(*lines: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", "\n".join([*lines, SEEN])], check=True, capture_output=True, text=True)
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_command_line_leaves_them_out() -> None:
    lean = "from dream3d.lean_imports import leave_out_unused; leave_out_unused(); leave_out_unused()"
    assert seen_after(lean, "import dream3d.weights.loading", "import dream3d.prior.sampling") == []


def test_what_needs_one_still_has_it() -> None:
    pytest.importorskip("peft")
    lean = "from dream3d.lean_imports import leave_out_unused; leave_out_unused()"
    assert "peft" in seen_after(lean, "import dream3d.weights.loading", "import peft")


def test_an_import_of_the_library_changes_nothing() -> None:
    pytest.importorskip("peft")
    flags = "from diffusers.utils import import_utils as u"
    assert "peft" in seen_after("import dream3d.weights.loading", flags, f"assert all(map(vars(u).get, {FLAGS[1:]}))")


def prepare() -> JobFunction:
    import dream3d.prior.sampling  # noqa: F401  (what a worker of a batch needs)

    def work(job: str, say: Say) -> list[str]:
        return [name for name in UNUSED if name in sys.modules]

    return work


def test_workers_leave_them_out() -> None:
    assert [event.content for event in run_jobs(deque("a"), prepare, 1) if isinstance(event, Answer)] == [[]]
