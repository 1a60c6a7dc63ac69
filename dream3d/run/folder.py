"""The run folder: ``run.json``, ``metrics.csv``, pictures and the mesh, each written whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import platform
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from dream3d.errors import Dream3DError, UsageError
from dream3d.files import remove_leftovers, write_atomically
from dream3d.locks import held
from dream3d.names import slug
from dream3d.prior.base import MultiViewPrior
from dream3d.recipe.generation import Recipe
from dream3d.version import __version__

LOCK = ".lock"
MAX_RUN_JSON_BYTES = 2**20
METRIC_COLUMNS = ("step", "loss", "timestep", "t_min", "t_max", "opacity", "occupancy")


def default_run_dir(prompt: str, seed: int) -> Path:
    """``runs/<slug>-<seed>``, or with -2, -3 ... appended if an earlier run is there: runs are never overwritten."""
    first = Path("runs") / f"{slug(prompt)}-{seed}"
    candidate, number = first, 2
    while candidate.exists():
        candidate, number = first.with_name(f"{first.name}-{number}"), number + 1
    return candidate


def provenance(prompt: str, seed: int, recipe: Recipe, prior: MultiViewPrior) -> dict[str, Any]:
    """What made an asset. Holds no time and no path, so that the same run gives the same bytes."""
    return {
        "prompt": prompt,
        "seed": seed,
        "recipe": recipe.to_dict(),
        "prior": prior.describe(),
        "versions": {
            "dream3d": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


class RunFolder:
    """One run's files, locked against other processes while it is open.

    ``run.json`` holds ``status``: "running" (or killed), "interrupted", "failed" with ``reason``, or "finished" with
    ``result``.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        """Begin a run, whose ``run.json`` gets ``facts``.

        Raises :class:`UsageError` if ``path`` holds a run, :class:`Dream3DError` if it cannot be written or another
        process is at work in it.
        """
        self.path, self.facts = path, facts
        if (path / "run.json").exists():
            raise UsageError(f"{path} already holds a run; {_advice(path)}")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._write({"status": "running"})
            self.keep_metrics(0)
        except OSError as error:
            raise Dream3DError(
                f"cannot write the run folder {path}: {error.strerror}; choose another --run-dir"
            ) from error

    @classmethod
    def reopen(cls, path: Path) -> RunFolder:
        """Go on with the run in a folder; what a killed process left half-written is removed.

        Raises :class:`UsageError` if there is none, :class:`Dream3DError` if another process is at work in it.
        """
        run = cls.__new__(cls)
        run.path, run.facts = path, read_run(path)
        try:
            run._lock()
        except OSError as error:
            raise Dream3DError(f"cannot write the run folder {path}: {error.strerror}; make it writable") from error
        run.facts = read_run(path)  # again: another process may have ended in between
        remove_leftovers(path)
        return run

    def _lock(self) -> None:
        self._held = ExitStack()
        busy = f"another process is at work in {self.path}; wait for it, or choose another"
        self._held.enter_context(held(self.path / LOCK, busy))

    def close(self) -> None:
        """Let other processes in."""
        if self.facts.get("status") == "finished":
            (self.path / LOCK).unlink(missing_ok=True)  # a finished folder holds results and nothing else
        self._held.close()

    @property
    def metrics_path(self) -> Path:
        """``metrics.csv``, one row per step."""
        return self.path / "metrics.csv"

    def _write(self, ending: dict[str, Any]) -> None:
        kept = {key: value for key, value in self.facts.items() if key not in ("status", "reason", "result")}
        self.facts = {**kept, **ending}
        text = json.dumps(self.facts, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.path / "run.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def append_metrics(self, rows: list[dict[str, Any]]) -> bool:
        """Append rows with the columns :data:`METRIC_COLUMNS`, all or none; whether they are on the disk."""
        whole = self.metrics_path.stat().st_size
        try:
            with self.metrics_path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, METRIC_COLUMNS, lineterminator="\n").writerows(rows)
        except OSError:
            os.truncate(self.metrics_path, whole)
            return False
        return True

    def keep_metrics(self, steps: int) -> None:
        """Keep the rows of the first ``steps`` steps: the others will be made again."""
        lines = self.metrics_path.read_text(encoding="utf-8").splitlines() if self.metrics_path.exists() else []
        kept = [line for line in lines[1:] if line.split(",")[0].isdecimal() and int(line.split(",")[0]) < steps]
        text = "\n".join([",".join(METRIC_COLUMNS), *kept]) + "\n"
        write_atomically(self.metrics_path, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def redirect(self, out: Path) -> None:
        """The mesh goes to ``out``, not where it was to go; recorded with the next status."""
        request = self.facts.get("request")
        if isinstance(request, dict):
            self.facts = {**self.facts, "request": {**request, "out": str(out.absolute())}}

    def mark_running(self) -> None:
        """Record that the run is at work again."""
        self._write({"status": "running"})

    def finish(self, result: dict[str, Any]) -> None:
        """Record the outcome in ``run.json``."""
        self._write({"status": "finished", "result": result})

    def fail(self, reason: str) -> None:
        """Record why the run ended early."""
        self._write({"status": "failed", "reason": reason})

    def interrupt(self) -> None:
        """Record that somebody stopped the run, which can go on."""
        self._write({"status": "interrupted"})


def read_run(path: Path) -> dict[str, Any]:
    """``run.json`` of a run folder; UsageError if there is none or it is none."""
    file = path / "run.json"
    try:
        with file.open("rb") as stream:
            return parse_run(stream.read(MAX_RUN_JSON_BYTES + 1), str(file))
    except FileNotFoundError as error:
        raise UsageError(f"{path} holds no run (no run.json); give the folder of a run") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error})") from error


def parse_run(content: bytes, name: str) -> dict[str, Any]:
    """The record in the bytes of a ``run.json``, called ``name`` in the UsageError if it is none."""
    try:
        if len(content) > MAX_RUN_JSON_BYTES:
            raise ValueError("it is too large")
        data = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} cannot be read ({error})") from error
    if not isinstance(data, dict):
        raise UsageError(f"{name} is not the record of a run")
    return data


def _advice(path: Path) -> str:
    try:
        finished = read_run(path).get("status") == "finished"
    except UsageError:
        finished = True
    other = "give another --run-dir or remove it"
    return other if finished else f"go on with it by 'dream3d resume {path}', or {other}"
