"""``examples/gpu_check.py`` where there is no GPU: what can run passes, the rest says why not; one table, one JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_examples import ROOT, run

sys.path.insert(0, str(ROOT / "examples"))
import gpu_check
from gpu_checks import Device, NotRun, Report

from dream3d.kernels import hash_encode


@pytest.mark.slow
def test_checks_run_apart_and_are_told_in_one_table(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    said = run("gpu_check.py", "--device", "cpu", "--only", "1", "11", "--out", str(out))
    outcomes = json.loads(out.read_text("utf-8"))
    assert [(one["check"], one["result"], one.get("why")) for one in outcomes] == [
        (1, "passed", None),
        (11, "not run", "no CUDA device"),
    ]
    assert outcomes[0]["figures"]["of opacity"] < 1e-4
    assert said.rstrip().endswith("1 passed, 0 failed, 1 not run")
    assert all(f"{one['check']:>2}  {one['title']}" in said for one in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2, 3])
def test_a_check_passes_on_the_cpu(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, name in ((torch.backends.cudnn, "allow_tf32"), (hash_encode, "BAGS_AT_ONCE")):
        monkeypatch.setattr(place, name, getattr(place, name))  # set back afterwards
    gpu_check.run_here(number, "cpu", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text("utf-8"))["result"] == "passed"


@pytest.mark.slow
def test_a_check_that_takes_too_long_is_stopped() -> None:
    outcome = gpu_check.run_apart(4, "cpu", 0.1)
    assert (outcome["result"], outcome["why"]) == ("not run", "time limit of 0.1 s")


def crash(report: Report, device: Device) -> None:
    raise ModuleNotFoundError("No module named 'diffusers.models'", name="diffusers.models")


def over(report: Report, device: Device) -> None:
    report.at_most("difference", float("nan"), 1e-3)


def stop(report: Report, device: Device) -> None:
    raise NotRun("no CUDA device")


def fill(report: Report, device: Device) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")


def refuse(report: Report, device: Device) -> None:
    raise RuntimeError("CUDA error: an illegal memory access\nmore")


@pytest.mark.parametrize(
    ("check", "result", "why"),
    [
        (crash, "not run", "no diffusers"),
        (over, "failed", "difference is nan, over 0.001"),
        (stop, "not run", "no CUDA device"),
        (fill, "not run", "out of memory: CUDA out of memory."),
        (refuse, "failed", "RuntimeError: CUDA error: an illegal memory access"),
    ],
)
def test_every_ending_of_a_check_has_a_reason(
    check: Any, result: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # set back afterwards
    monkeypatch.setitem(gpu_check.CHECKS, 0, gpu_check.CHECKS[0]._replace(function=check))
    gpu_check.run_here(0, "cpu", tmp_path / "out.json")
    outcome = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert (outcome["result"], outcome["why"]) == (result, why)
    row = {"check": 0, "title": "any", "seconds": 1.0, **outcome}
    assert f"{result}: {why}" in gpu_check.table([row])


def test_a_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(gpu_check, "__file__", os.fspath(script))
    outcome = gpu_check.run_apart(0, "cpu", None)
    assert outcome["result"] == "failed"
    assert "signal 11" in outcome["why"]
