"""The run folder: ``run.json``, ``metrics.csv``, pictures and the mesh, each written whole or not at all."""

from __future__ import annotations

import csv
import json
import platform
import re
import unicodedata
from pathlib import Path
from typing import Any

import torch

import dream3d
from dream3d.errors import Dream3DError, UsageError
from dream3d.files import write_atomically
from dream3d.prior.base import MultiViewPrior
from dream3d.recipe import Recipe

METRIC_COLUMNS = ("step", "loss", "timestep", "t_min", "t_max", "opacity", "occupancy")


def slug(prompt: str, limit: int = 48) -> str:
    """A file name made of a prompt: lower-case ASCII letters, digits and dashes; never empty."""
    ascii_text = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode()
    cleaned = re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")
    return cleaned[:limit].rstrip("-") or "asset"


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
            "dream3d": dream3d.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


class RunFolder:
    """One run's files. Creating it writes ``run.json``; a folder that holds a run is refused."""

    def __init__(self, path: Path, made_by: dict[str, Any]) -> None:
        """Raises :class:`UsageError` if ``path`` holds a run, :class:`Dream3DError` if it cannot be written."""
        self.path = path
        if (path / "run.json").exists():
            raise UsageError(f"{path} already holds a run; give another --run-dir or remove it")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.write_json({**made_by, "status": "running"})
            with self.metrics_path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(METRIC_COLUMNS)
        except OSError as error:
            raise Dream3DError(
                f"cannot write the run folder {path}: {error.strerror}; choose another --run-dir"
            ) from error
        self._made_by = made_by

    @property
    def metrics_path(self) -> Path:
        """``metrics.csv``, one row per step."""
        return self.path / "metrics.csv"

    def write_json(self, data: dict[str, Any]) -> None:
        """Replace ``run.json``."""
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.path / "run.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def append_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Append rows with the columns :data:`METRIC_COLUMNS`."""
        with self.metrics_path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, METRIC_COLUMNS).writerows(rows)

    def finish(self, result: dict[str, Any]) -> None:
        """Record the outcome in ``run.json``."""
        self.write_json({**self._made_by, "status": "finished", "result": result})

    def fail(self, reason: str) -> None:
        """Record why the run ended early."""
        self.write_json({**self._made_by, "status": "failed", "reason": reason})
