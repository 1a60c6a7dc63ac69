"""THE loop: a prompt, a prior and a recipe in; a mesh and its run folder out.

cameras -> render -> guide -> step   (optimise.py, one step)
... recipe.steps times ...
density -> surface -> mesh -> file   (mesh/)
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from dream3d import images as pictures
from dream3d.cameras import orbit
from dream3d.distill import Optimisation, StepReport
from dream3d.errors import Dream3DError, ExportError, UsageError
from dream3d.files import remove_leftovers, write_atomically
from dream3d.mesh.appearance import VertexColors
from dream3d.mesh.export import Asset, ExportReport, check_extension, export
from dream3d.mesh.extract import FieldMesh, mesh_from_field
from dream3d.mesh.turntable import write_turntable
from dream3d.prior.base import MultiViewPrior
from dream3d.recipe.generation import Recipe
from dream3d.run.checkpointer import FOLDER as CHECKPOINTS
from dream3d.run.checkpointer import Keeper
from dream3d.run.folder import RunFolder, provenance
from dream3d.run.job import Job, read_job
from dream3d.run.progress import Observer, Outcome, Progress, silent
from dream3d.run.signals import listening

SILHOUETTE_VIEWS = 8
SILHOUETTE_SIZE = 128
"""Views, and pixels a side, of the field's silhouettes that the surface level is chosen by."""
PREVIEW_SIZE = 128
METRICS_EVERY = 20
CHECKPOINT_SECONDS = 60.0
PROVENANCE = ("prompt", "seed", "recipe", "prior", "versions")
"""What the asset says of its making: the part of run.json that is the same for every run of the same job."""


def generate(
    prompt: str,
    *,
    prior: MultiViewPrior,
    recipe: Recipe,
    seed: int,
    device: str,
    out: Path,
    run_dir: Path,
    observer: Observer = silent,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    request: Mapping[str, Any] | None = None,
) -> Outcome:
    """Optimise a field under ``prior`` until it looks like ``prompt``, and export its surface to ``out``.

    ``run_dir`` receives run.json, metrics.csv, preview.png, turntable.mp4 and a copy of the mesh. On the
    CPU the same arguments give the same bytes. Every ``checkpoint_seconds`` (0: never), and when SIGINT or SIGTERM
    stop it, its state is kept for :func:`resume`. ``request`` is plain data that goes into run.json: how to load the
    prior again, for one.

    Raises UsageError for an unknown file extension or a run folder in use, CollapsedFieldError for a field without a
    surface, ExportError if a file cannot be written, KeyboardInterrupt or SystemExit when stopped.
    """
    check_extension(out)
    asked = {**(request or {}), "out": str(out.absolute()), "device": device}
    run = RunFolder(run_dir, {**provenance(prompt, seed, recipe, prior), "request": asked})
    return _carry_out(run, Job(prompt, recipe, seed, device, out), prior, observer, checkpoint_seconds)


def resume(
    run_dir: Path,
    *,
    prior: MultiViewPrior,
    observer: Observer = silent,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    out: Path | None = None,
) -> Outcome | None:
    """Go on with a run where it was stopped, killed or failed; None if it is finished and its mesh is there.

    ``out`` is where the mesh goes now, if its folder is not where it was.

    On the same machine with the same number of threads the bytes of the mesh are those of a run that was never
    stopped. Raises what :func:`generate` raises, UsageError also for a folder without a run and for another prior than
    the run's, Dream3DError for a folder that another process is at work in, CheckpointError for a state that cannot be
    used.
    """
    run = RunFolder.reopen(run_dir)
    if out is not None:
        run.redirect(out)
    job = read_job(run)
    copy = run.path / f"mesh{job.out.suffix.lower()}"
    if run.facts.get("status") == "finished" and copy.is_file():
        if not job.out.exists():
            write_atomically(job.out, lambda temporary: shutil.copyfile(copy, temporary))
        run.close()
        return None
    if run.facts.get("prior") != prior.describe():
        run.close()
        raise UsageError(f"{run_dir} was made with the prior {run.facts.get('prior')}, this is {prior.describe()}")
    remove_leftovers(run.path / CHECKPOINTS)
    remove_leftovers(job.out.parent, job.out.stem[:40])
    run.go_on()
    return _carry_out(run, job, prior, observer, checkpoint_seconds)


def _carry_out(
    run: RunFolder, job: Job, prior: MultiViewPrior, observer: Observer, checkpoint_seconds: float
) -> Outcome:
    """From the run's newest checkpoint, or from nothing, to its files."""
    keeper = Keeper(run.path / CHECKPOINTS, checkpoint_seconds)
    try:
        state = optimise(job.prompt, prior, job.recipe, job.seed, job.device, run, observer, keeper)
        outcome, result = _finish(run, job, state, keeper, observer)
    except (KeyboardInterrupt, SystemExit):
        run.interrupt()
        raise
    except BaseException as error:
        with contextlib.suppress(OSError):  # the error may be a full disk, and is the one to be told
            run.fail(str(error) if isinstance(error, Dream3DError) else type(error).__name__)
        raise
    else:
        run.finish(result)
        shutil.rmtree(keeper.folder, ignore_errors=True)
        return outcome
    finally:
        run.close()


def _finish(
    run: RunFolder, job: Job, state: Optimisation, keeper: Keeper, observer: Observer
) -> tuple[Outcome, dict[str, Any]]:
    """The field's surface, the mesh's file, the pictures."""
    made_by = {key: run.facts[key] for key in PROVENANCE}
    observer(Progress("extract", 0, 1))
    mesh, haze = extract_mesh(state, job.device)
    observer(Progress("extract", 1, 1, message=_describe(mesh, haze)))
    observer(Progress("export", 0, 1))
    report = _export(mesh, made_by, job.out)
    copy = run.path / f"mesh{check_extension(job.out)}"
    write_atomically(copy, lambda temporary: shutil.copyfile(job.out, temporary))
    observer(Progress("export", 1, 1))
    observer(Progress("pictures", 0, 2))
    pictures.write_png(run.path / "preview.png", pictures.side_by_side(render_views(state, 4, PREVIEW_SIZE)))
    observer(Progress("pictures", 1, 2))
    write_turntable(run.path / "turntable.mp4", mesh.surface, mesh.colors)
    observer(Progress("pictures", 2, 2))
    outcome = Outcome(
        mesh_path=job.out,
        run_dir=run.path,
        vertices=report.vertices,
        faces=report.faces,
        iso_level=mesh.choice.level,
        seconds=keeper.seconds,
        peak_memory_bytes=peak_memory_bytes(),
    )
    return outcome, _result(outcome, mesh, haze)


def optimise(
    prompt: str,
    prior: MultiViewPrior,
    recipe: Recipe,
    seed: int,
    device: str,
    run: RunFolder | None = None,
    observer: Observer = silent,
    keeper: Keeper | None = None,
) -> Optimisation:
    """The optimisation alone: from a soft ball, or from what ``keeper`` has, to a field that the prior agrees with."""
    observer(Progress("prepare", 0, 1))
    text = prior.encode_prompt(prompt, recipe.negative_prompt)
    state = Optimisation(recipe, prior, seed, device)
    done, notices = keeper.restore(state) if keeper else (0, [])
    observer(Progress("prepare", 1, 1, message="; ".join(notices) or None))
    if run is not None:
        run.keep_metrics(done)
    metrics = _Metrics(run)
    with listening() as signals:
        for step in range(done, recipe.steps):
            report = state.step(step, text)
            last = step == recipe.steps - 1
            metrics.add(step, report, last=last)
            observer(
                Progress(
                    "optimise",
                    step + 1,
                    recipe.steps,
                    loss=report.loss,
                    timestep_range=report.timestep_range,
                    occupancy=report.occupancy,
                    preview=lambda: render_views(state, 1, 32)[0],
                )
            )
            if keeper and (signals.received or keeper.is_due() or (last and keeper.interval_seconds)):
                metrics.write()
                problem = keeper.save(step + 1, state)
                if problem:
                    observer(Progress("optimise", step + 1, recipe.steps, message=problem))
            if signals.received:
                _stop(signals.received)
    return state


def _stop(number: int) -> NoReturn:
    """What the signal would have done at once."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def render_views(state: Optimisation, views: int, size: int) -> NDArray[np.uint8]:
    """(views, size, size, 3) pictures of the field, evenly around it, the front first."""
    cameras = orbit(views, elevation_deg=15).to(state.device)
    rendering = state.renderer.evaluate(state.field, state.background, cameras, size, size)
    return pictures.to_uint8(rendering.color)


def extract_mesh(state: Optimisation, device: str) -> tuple[FieldMesh, float]:
    """The field's surface, at the level whose silhouettes agree best with the field's own renders.

    Also returns the haze: the field's mean opacity (0..1) in pixels that the mesh does not cover.
    """
    cameras = orbit(SILHOUETTE_VIEWS, elevation_deg=15).to(device)
    size = SILHOUETTE_SIZE
    rendering = state.renderer.evaluate(state.field, state.background, cameras, size, size)
    opacity = rendering.opacity[..., 0].cpu().numpy()
    mesh = mesh_from_field(
        state.field.density, state.field.color, opacity > 0.5, cameras.to("cpu"), state.recipe.mesh, device=device
    )
    outside = ~mesh.silhouettes
    return mesh, float(opacity[outside].mean()) if outside.any() else 0.0


def peak_memory_bytes() -> int:
    """Largest resident size that this process has had; 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


def _describe(mesh: FieldMesh, haze: float) -> str:
    level, iou = mesh.choice.level, mesh.iou
    return f"surface at density {level:.3g}, silhouettes agree to {iou:.3f} IoU, {haze:.1%} haze around it"


def _export(mesh: FieldMesh, made_by: dict[str, Any], out: Path) -> ExportReport:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot make the folder {out.parent}: {error.strerror}; choose another --out") from error
    return export(Asset(mesh.surface.vertices, mesh.surface.faces, VertexColors(mesh.colors), made_by), out)


def _result(outcome: Outcome, mesh: FieldMesh, haze: float) -> dict[str, Any]:
    return {
        "mesh": str(outcome.mesh_path),
        "vertices": outcome.vertices,
        "faces": outcome.faces,
        "iso_level": outcome.iso_level,
        "silhouette_iou": mesh.iou,
        "haze": haze,
        "seconds": round(outcome.seconds, 1),
        "peak_memory_bytes": outcome.peak_memory_bytes,
    }


@dataclass
class _Metrics:
    """Rows for metrics.csv, written in batches so that a step does not wait for the disk."""

    run: RunFolder | None

    def __post_init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def add(self, step: int, report: StepReport, *, last: bool) -> None:
        if self.run is None:
            return
        t_min, t_max = report.timestep_range
        self._rows.append(
            {
                "step": step,
                "loss": f"{report.loss:.6g}",
                "timestep": report.timestep,
                "t_min": t_min,
                "t_max": t_max,
                "opacity": f"{report.opacity:.4f}",
                "occupancy": f"{report.occupancy:.4f}",
            }
        )
        if last or len(self._rows) >= METRICS_EVERY:
            self.write()

    def write(self) -> None:
        """Put what is there on the disk; on a full one, the next time."""
        if self.run is not None and self.run.append_metrics(self._rows):
            self._rows = []
