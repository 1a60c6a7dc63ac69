"""Checks a GPU: twelve checks from single kernels to whole runs, about ten minutes, without a network.

    python examples/gpu_check.py                     # every check
    python examples/gpu_check.py --only 1 2 4        # some of them
    python examples/gpu_check.py --device cpu        # what can be checked without a GPU, at a small size

Never run on a GPU so far. Each check has a process of its own with a time limit, so that one that crashes or hangs
takes no other with it. A table is printed at the end; the figures are in a JSON file beside it. The exit code is 1 if a
check failed; one that could not run says why and does not count. Needs neither trimesh nor imageio-ffmpeg, nor an
installation (``PYTHONPATH=.``); without diffusers and transformers the checks of kernels still run. The checks
themselves are in ``gpu_checks.py`` and ``gpu_runs.py``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gpu_checks as kernels
import gpu_runs as runs
from gpu_checks import Device, NotRun, Report

Outcome = dict[str, Any]


class Check(NamedTuple):
    """A row of the table."""

    title: str
    function: Callable[[Report, Device], None]
    expect: str
    limit: float
    """Seconds after which it is stopped."""


CHECKS: dict[int, Check] = dict(
    enumerate(
        [
            Check("versions, what operations use", kernels.versions, "-", 120),
            Check("marching, compositing", kernels.rendering, "counts within 1e-4, opacity within 1e-4", 120),
            Check("hash grid against float64", kernels.hash_grid, "values within 1e-5, gradients within 5e-4", 120),
            Check("hash grid, 17 million samples", kernels.many_samples, "as the reference", 120),
            Check("one step of each preset", runs.one_step, "loss within 1e-3 of the CPU's", 300),
            Check("full UNet, float16", runs.full_unet, "within 1e-2; a flash or cudnn kernel; 20 to 28 ms", 300),
            Check("full VAE, gradients", runs.full_vae, "cosine of gradients over 0.99; 0.8 GB an image", 300),
            Check("full steps of both stages", runs.full_steps, "fits the memory; about 30 and 170 syncs", 400),
            Check("shading at 64 and 256 px", runs.shading, "fits the memory", 300),
            Check("mini, stopped and resumed", runs.mini_run, "finite, IoU over 0.95, same bytes", 600),
            Check("training step", runs.training, "bf16 within 1e-2", 300),
            Check("optional kernels", kernels.optional_kernels, "as the reference, 5 times as fast", 300),
        ]
    )
)


def run_here(number: int, device_name: str, out: Path) -> None:
    """Run one check in this process, and write its outcome."""
    import torch

    report = Report()
    outcome: Outcome
    try:
        name = "cuda" if device_name == "auto" and torch.cuda.is_available() else device_name
        device = Device("cpu" if name == "auto" else name)
        torch.backends.cudnn.allow_tf32 = False  # float32 is compared with float32
        CHECKS[number].function(report, device)
        outcome = {"result": "failed", "why": "; ".join(report.problems)} if report.problems else {"result": "passed"}
    except NotRun as reason:
        outcome = {"result": "not run", "why": str(reason)}
    except ModuleNotFoundError as error:
        if (error.name or "dream3d").partition(".")[0] == "dream3d":
            raise
        outcome = {"result": "not run", "why": f"no {(error.name or '').partition('.')[0]}"}
    except (MemoryError, torch.OutOfMemoryError) as error:
        outcome = {"result": "not run", "why": f"out of memory: {first_line(str(error))}"}
    except Exception as error:  # whatever a driver or a library raises is the outcome
        outcome = {"result": "failed", "why": f"{type(error).__name__}: {first_line(str(error))}"}
    out.write_text(json.dumps({**outcome, "figures": report.figures}), "utf-8")


def run_apart(number: int, device: str, limit: float | None) -> Outcome:
    """Run one check in a process of its own: its outcome, or how the process ended without one."""
    check = CHECKS[number]
    seconds = min(limit or check.limit, check.limit)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "outcome.json"
        command = [sys.executable, __file__, "--check", str(number), "--device", device, "--out", str(out)]
        begun = time.perf_counter()
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            outcome: Outcome = {"result": "not run", "why": f"time limit of {seconds:g} s", "figures": {}}
        else:
            if out.is_file():
                outcome = json.loads(out.read_text("utf-8"))
            else:
                how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
                last = (done.stderr.strip().splitlines() or [""])[-1]
                outcome = {"result": "failed", "why": f"its process ended with {how}: {last}", "figures": {}}
    return {"check": number, "title": check.title, **outcome, "seconds": round(time.perf_counter() - begun, 1)}


def first_line(text: str) -> str:
    """The first line of a message."""
    return (text.strip().splitlines() or [""])[0]


def table(outcomes: list[Outcome]) -> str:
    """One row for each check, with its figures below it."""
    width = max(len(one["title"]) for one in outcomes)
    rows = [f"{'#':>2}  {'check':{width}}  {'s':>5}  result"]
    for one in outcomes:
        why = f": {one['why']}" if one.get("why") else ""
        rows.append(f"{one['check']:>2}  {one['title']:{width}}  {one['seconds']:>5.0f}  {one['result']}{why}")
        expected = {"expected": CHECKS[one["check"]].expect} if one["figures"] else {}
        said = ", ".join(f"{name} {spoken(value)}" for name, value in {**expected, **one["figures"]}.items())
        rows += textwrap.wrap(said, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
    counts = {kind: sum(one["result"] == kind for one in outcomes) for kind in ("passed", "failed", "not run")}
    return "\n".join([*rows, ", ".join(f"{count} {kind}" for kind, count in counts.items())])


def spoken(value: Any) -> str:
    """A figure in a few digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> int:
    """Run the checks one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", type=int, nargs="+", choices=sorted(CHECKS), help="numbers of checks; default: all")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--limit", type=float, help="seconds that a check may take at most; default: its own limit")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="the JSON file (gpu_check.json)")
    parser.add_argument("--check", type=int, choices=sorted(CHECKS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.check is not None:
        run_here(arguments.check, arguments.device, arguments.out)
        return 0
    outcomes = []
    for number in arguments.only or sorted(CHECKS):
        outcomes.append(run_apart(number, arguments.device, arguments.limit))
        print(f"{number:>2}  {outcomes[-1]['title']}: {outcomes[-1]['result']}", file=sys.stderr, flush=True)
    arguments.out.write_text(json.dumps(outcomes, indent=1) + "\n", "utf-8")
    print(table(outcomes))
    return int(any(one["result"] == "failed" for one in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
