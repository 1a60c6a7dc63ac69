"""The run folder: ``run.json``, ``metrics.csv``, pictures and the mesh, each written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import platform
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch

from dream3d.errors import Dream3DError, UsageError
from dream3d.files import json_table, read_regular, remove_leftovers, tagged, write_text
from dream3d.locks import held
from dream3d.names import free_path, slug
from dream3d.prior.base import MultiViewPrior
from dream3d.recipe.generation import Recipe
from dream3d.version import __version__

LOCK = ".dream3d.lock"
MAX_RUN_JSON_BYTES = 2**20
METRICS = "metrics.csv"
MAX_METRICS_BYTES = 2**30
METRIC_COLUMNS = ("step", "loss", "timestep", "t_min", "t_max", "opacity", "occupancy")
_PLAIN = re.compile(r"\w[\w.-]{0,199}(/\w[\w.-]{0,199})?", re.ASCII)
"""Names that a run gives its files: nothing that leaves the folder."""
_BEFORE = re.compile(
    r"metrics\.csv|preview\.png|turntable\.mp4|mesh\.(glb|obj|ply|stl)|checkpoints(/step-\d{8}\.safetensors)?"
)
"""What a run of a version that kept no list has made."""


def default_run_dir(prompt: str, seed: int) -> Path:
    """``runs/<slug>-<seed>``, or with -2, -3 ... appended if an earlier run is there: runs are never overwritten."""
    return free_path(Path("runs") / f"{slug(prompt)}-{seed}")


def check_no_run(path: Path) -> None:
    """Raises :class:`UsageError` if a folder holds a run, and says how to go on with it."""
    if os.path.lexists(path / "run.json"):
        raise UsageError(f"{path} already holds a run; {_advice(path)}")


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
    """One run's files, locked against other processes until it is closed, which leaving its context does.

    ``run.json`` holds ``status``: "running" (or killed), "interrupted", "failed" with ``reason``, or "finished" with
    ``result``. Its ``files`` are the names of what the run made here: nothing else is ever replaced or removed. Its
    ``id`` marks the run's temporary files, here and beside the mesh.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        """Begin a run, whose ``run.json`` gets ``facts``.

        Raises :class:`UsageError` if ``path`` holds a run, :class:`Dream3DError` if it cannot be written or another
        process is at work in it.
        """
        check_no_run(path)
        metrics = free_path(path / METRICS).name
        self.path, self.facts = path, {**facts, "id": secrets.token_hex(6), "files": [metrics]}
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock()
            for left in path.glob(".run-dream3d*-????????.json"):  # a run that was killed before it had begun
                left.unlink()
            self.record("running")
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
        run.path, run.facts = path, _with_files(path, read_run(path))
        try:
            run._lock()
        except OSError as error:
            raise Dream3DError(f"cannot write the run folder {path}: {error.strerror}; make it writable") from error
        run.facts = {**_with_files(path, read_run(path)), "id": run.facts["id"]}  # another may have ended in between
        for folder in (path, *run.owned(_PLAIN)):
            remove_leftovers(folder)
        return run

    @classmethod
    def seen(cls, path: Path) -> RunFolder:
        """The run in a folder, to read its files and nothing else: it is not locked, and may be at work.

        Raises :class:`UsageError` if there is none.
        """
        run = cls.__new__(cls)
        run.path, run.facts = path, _with_files(path, read_run(path))
        return run

    def _lock(self) -> None:
        self._held = ExitStack()
        busy = f"another process is at work in {self.path}; wait for it, or choose another"
        self._held.enter_context(held(self.path / LOCK, busy))
        self._held.enter_context(tagged(self.facts["id"]))

    def close(self) -> None:
        """Let other processes in."""
        if self.facts.get("status") == "finished" and not any("checkpoint" in name for name in self.facts["files"]):
            (self.path / LOCK).unlink(missing_ok=True)  # who finds the file knows that the run was not tidied up
        self._held.close()

    def __enter__(self) -> RunFolder:
        """The run itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    @property
    def job(self) -> str:
        """SHA-256 of what the result depends on; a checkpoint names its job by it."""
        return job_digest(self.facts)

    def own(self, name: str) -> Path:
        """Path of a file that the run makes: ``name``, with a number if a file is there that it did not make.

        It is in the list before the file is on the disk. Raises OSError.
        """
        files, (stem, extension) = self.facts["files"], os.path.splitext(name)
        mine = re.compile(f"{re.escape(stem)}(-[0-9]+)?{re.escape(extension)}")
        found = next(filter(mine.fullmatch, files), None)
        if found is None:
            found = free_path(self.path / name).relative_to(self.path).as_posix()
            self._write({"files": [*files, found]})
        return self.path / found

    def owned(self, pattern: re.Pattern[str]) -> list[Path]:
        """What the run made, as far as its list knows, with names (such as ``checkpoints/a``) of a pattern, sorted."""
        return sorted(self.path / name for name in self.facts["files"] if pattern.fullmatch(name))

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove files, and folders that are empty then, which the run made. Raises OSError."""
        gone = {path.relative_to(self.path).as_posix(): path for path in paths}
        for path in gone.values():
            with contextlib.suppress(OSError):  # somebody put something into the folder: it is theirs from now on
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        if gone:
            self._write({"files": [name for name in self.facts["files"] if name not in gone]})

    @property
    def metrics_path(self) -> Path:
        """``metrics.csv``, one row per step."""
        return self.own(METRICS)

    def _write(self, changes: dict[str, Any]) -> None:
        ended = ("status", "reason", "result") if "status" in changes else ()
        self.facts = {**{key: value for key, value in self.facts.items() if key not in ended}, **changes}
        write_text(self.path / "run.json", json.dumps(self.facts, indent=2, ensure_ascii=False) + "\n")

    def append_metrics(self, rows: list[dict[str, Any]]) -> bool:
        """Append rows with the columns :data:`METRIC_COLUMNS`, all or none; whether they are on the disk."""
        path, whole = self.metrics_path, None
        try:
            whole = path.stat().st_size
            with path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, METRIC_COLUMNS, lineterminator="\n").writerows(rows)
        except OSError:
            if whole is not None:
                with contextlib.suppress(OSError):
                    os.truncate(path, whole)
            return False
        return True

    def keep_metrics(self, steps: int) -> None:
        """Keep the rows of the first ``steps`` steps: the others will be made again."""
        keep_rows(self.metrics_path, METRIC_COLUMNS, steps)

    def redirect(self, out: Path) -> None:
        """The mesh goes to ``out``, not where it was to go; recorded with the next status."""
        request = self.facts.get("request")
        if isinstance(request, dict):
            self.facts = {**self.facts, "request": {**request, "out": str(out.absolute())}}

    def record_watch(self, looks: list[dict[str, Any]]) -> None:
        """Write into ``run.json`` what was seen of the field while it formed."""
        self._write({"watch": looks})

    def record_target(self, step: int, consistency: float) -> None:
        """Write into ``run.json`` how well the views of a step's target fit together.

        What was written of this step or later ones belongs to steps that are made again.
        """
        self._write({"targets": [*self.targets_before(step), {"step": step, "cross_view_consistency": consistency}]})

    def targets_before(self, step: int) -> list[dict[str, Any]]:
        """What :meth:`record_target` wrote of earlier steps; nothing of what somebody else wrote there."""
        written = self.facts.get("targets")
        targets = [one for one in written if isinstance(one, dict)] if isinstance(written, list) else []
        return [
            one
            for one in targets
            if type(one.get("step")) is int
            and one["step"] < step
            and isinstance(one.get("cross_view_consistency"), float)
        ]

    def record(self, status: Literal["running", "interrupted", "failed", "finished"], **rest: object) -> None:
        """Write a status and what belongs to it into ``run.json``."""
        self._write({"status": status, **rest})


def job_digest(facts: Mapping[str, Any]) -> str:
    """SHA-256 of what the result of a run with these facts depends on."""
    asked = [facts.get(key) for key in ("prompt", "seed", "recipe", "prior", "prior_digest")]
    asked += [facts[key] for key in ("images",) if key in facts]  # a run without pictures has the digest it always had
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _with_files(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts with ``id`` and ``files`` that can be relied on, whoever wrote them; UsageError for no such list."""
    files = facts.get("files")
    if files is None:
        found = (one.relative_to(path).as_posix() for one in [*path.glob("*"), *path.glob("checkpoints/*")])
        files = [name for name in found if _BEFORE.fullmatch(name)]
    elif not isinstance(files, list) or not all(isinstance(name, str) and _PLAIN.fullmatch(name) for name in files):
        raise UsageError(f"{path / 'run.json'}: 'files' is not a list of the run's files; start again")
    elif not any(name.startswith("metrics") for name in files):  # the first that every run makes
        raise UsageError(f"{path / 'run.json'}: 'files' lacks files of the run; start again")
    tag = facts.get("id")
    is_tag = isinstance(tag, str) and re.fullmatch("[0-9a-f]{12}", tag)
    return {**facts, "id": tag if is_tag else secrets.token_hex(6), "files": files}


def keep_rows(path: Path, columns: tuple[str, ...], end: int) -> None:
    """Write a CSV file again: its header, and the whole rows of plain text that begin with a number below ``end``."""
    lines, whole = list[str](), re.compile(rf"([0-9]{{1,18}})(,[^,\x80-\xff]*){{{len(columns) - 1}}}")
    with contextlib.suppress(OSError):
        lines = read_regular(path, MAX_METRICS_BYTES).decode("latin-1").splitlines()  # which takes any bytes
    kept = [row[0] for row in map(whole.fullmatch, lines) if row and int(row[1]) < end]
    write_text(path, "\n".join([",".join(columns), *kept]) + "\n")


def read_run(path: Path) -> dict[str, Any]:
    """``run.json`` of a run folder; UsageError if there is none or it is none."""
    file = path / "run.json"
    try:
        return parse_run(read_regular(file, MAX_RUN_JSON_BYTES), str(file))
    except FileNotFoundError as error:
        raise UsageError(f"{path} holds no run (no run.json); give the folder of a run") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror})") from error


def parse_run(content: bytes, name: str) -> dict[str, Any]:
    """The record in the bytes of a ``run.json``, called ``name`` in the UsageError if it is none."""
    if len(content) > MAX_RUN_JSON_BYTES:
        raise UsageError(f"{name} cannot be read (it is too large)")
    return json_table(content, name, UsageError)


def _advice(path: Path) -> str:
    try:
        finished = read_run(path).get("status") == "finished"
    except UsageError:
        finished = True
    other = "give another --run-dir or remove it"
    return other if finished else f"go on with it by 'dream3d resume {path}', or {other}"
