"""From an optimised field to what the user gets: surface, mesh file, preview, turntable, figures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream3d import images
from dream3d.cameras import Cameras, orbit
from dream3d.errors import ExportError
from dream3d.evaluation.consistency import janus_score
from dream3d.files import copy_file
from dream3d.mesh.companions import companions_of
from dream3d.mesh.export import Asset, ExportReport, check_extension, export, keeps_texture
from dream3d.mesh.extract import FieldMesh, mesh_from_field, with_texture
from dream3d.mesh.iso import mean_iou
from dream3d.mesh.raster import silhouettes
from dream3d.mesh.shading import shade, write_turntable
from dream3d.mesh.surface import cap_area
from dream3d.prior.base import MultiViewPrior
from dream3d.recipe.mesh import MeshRecipe
from dream3d.refine import refine_mesh
from dream3d.render.scene import Scene
from dream3d.run.folder import RunFolder
from dream3d.run.job import Job
from dream3d.run.progress import Observer, Outcome, Progress, Refinement

SILHOUETTE_VIEWS = 8
SILHOUETTE_SIZE = 128
"""Views, and pixels a side, of the field's silhouettes that the surface level is chosen by."""
PREVIEW_SIZE = 128
JANUS_VIEWS = 8
"""Views of the mesh in which its back is compared with its front."""
NOT_REFINED = "not refined: the mesh has no texture"
PROVENANCE = (
    "prompt",
    "seed",
    "recipe",
    "prior",
    "prior_digest",
    "versions",
    "hash_grid",
    "threads",
    "device",
    "images",
)
"""What the asset says of its making: the part of run.json that is the same for every run of the same job."""


def finish(
    run: RunFolder,
    job: Job,
    scene: Scene,
    prior: MultiViewPrior,
    spent_seconds: Callable[[], float],
    observer: Observer,
) -> Outcome:
    """Write the mesh of a scene to the job's file; a copy, a preview and a turntable to the run folder.

    ``prior`` says how well the mesh fits the prompt, ``spent_seconds`` how long the run took so far.
    Raises CollapsedFieldError for a field without a surface, ExportError if a file cannot be written.
    """
    observer(Progress("extract", 0, 1))
    mesh, floaters = extract_mesh(scene, recipe_for(job.out, job.recipe.mesh))
    observer(Progress("extract", 1, 1, message=_describe(mesh, floaters)))
    for note in mesh.notes:
        observer(Progress("extract", 1, 1, message=note))
    cut_off = cap_area(mesh.surface)  # before its vertices may move away from the border
    mesh, refinement = _refined(mesh, prior, job, observer)
    mesh, floaters = remeasured(mesh, scene, refinement, floaters)
    observer(Progress("export", 0, 1))
    report = write_asset(mesh, {key: run.facts[key] for key in PROVENANCE if key in run.facts}, job.out)
    for companion in companions_of(job.out):
        copy_file(companion, run.own(companion.name))
    copy_file(job.out, run.own(f"mesh{check_extension(job.out)}"))
    observer(Progress("export", 1, 1))
    observer(Progress("pictures", 0, 2))
    images.write_png(run.own("preview.png"), images.side_by_side(render_views(scene, 4, PREVIEW_SIZE)))
    observer(Progress("pictures", 1, 2))
    write_turntable(run.own("turntable.mp4"), *mesh.skin)
    observer(Progress("pictures", 2, 2))
    shown, targets = images_of(mesh, prior), run.targets_before(job.recipe.steps)
    return Outcome(
        mesh_path=job.out,
        run_dir=run.path,
        vertices=report.vertices,
        faces=report.faces,
        iso_level=mesh.choice.level,
        silhouette_iou=mesh.iou,
        floaters=floaters,
        cap_area=cut_off,
        watertight=mesh.watertight,
        texture=mesh.texture,
        likeness=prior.likeness(job.prompt, shown),
        seconds=spent_seconds(),
        peak_memory_bytes=peak_memory_bytes(),
        consistency=targets[-1]["cross_view_consistency"] if targets else None,
        janus=janus_score(images_of(mesh, prior, JANUS_VIEWS)),
        refinement=refinement,
    )


def _refined(
    mesh: FieldMesh, prior: MultiViewPrior, job: Job, observer: Observer
) -> tuple[FieldMesh, Refinement | None]:
    """The mesh with the texture and the shape that the recipe asks for, and what came of it."""
    asked = job.recipe.refinement
    if asked is None:
        return mesh, None
    if not mesh.texture:
        observer(Progress("extract", 1, 1, message=NOT_REFINED))
        return mesh, None
    what = "texture and the shape" if asked.shape else "texture"
    observer(Progress("extract", 0, asked.updates, message=f"refining the {what} by the prior"))

    def report(update: int) -> None:
        observer(Progress("extract", update, asked.updates))

    mesh, refinement = refine_mesh(mesh, prior, job.recipe, asked, job.prompt, job.seed, job.device, report)
    for sentence in refinement.sentences:
        observer(Progress("extract", asked.updates, asked.updates, message=sentence))
    return mesh, refinement


def render_views(scene: Scene, views: int, size: int) -> NDArray[np.uint8]:
    """(views, size, size, 3) images of the field, evenly around it, the front first."""
    return images.to_uint8(scene.evaluate(orbit(views, elevation_deg=15), size).color)


def images_of(mesh: FieldMesh, prior: MultiViewPrior, views: int | None = None) -> Tensor:
    """(views, 3, S, S) images in [0, 1] of a mesh as a prior's training objects were shown: its views, size, colour."""
    vertices, faces, appearance = mesh.skin
    vertices = vertices / np.linalg.norm(vertices, axis=1).max()
    cameras, size = orbit(views or prior.views), prior.image_size
    shaded = shade(vertices, faces, appearance, cameras, size, size, background=prior.background, supersample=2)
    return torch.from_numpy(shaded).movedim(-1, 1) / 255


def recipe_for(out: Path, recipe: MeshRecipe) -> MeshRecipe:
    """The recipe for a file: without a texture where its format cannot hold one, and its vertices are coloured."""
    return recipe if keeps_texture(out) else replace(recipe, texture=0)


def extract_mesh(scene: Scene, recipe: MeshRecipe) -> tuple[FieldMesh, float]:
    """The field's surface, at the level whose silhouettes agree best with the field's own renders, and its texture.

    Also returns the floaters: the field's mean opacity (0..1) in pixels that the mesh does not cover.
    """
    cameras, opacity = _opacity(scene)
    field = scene.field
    mesh = mesh_from_field(field.density, field.color, opacity > 0.5, cameras, recipe, device=scene.device)
    mesh = with_texture(mesh, field, recipe.texture, normal_map=recipe.normal_map, device=scene.device)
    return mesh, _floaters(mesh, opacity)


def remeasured(
    mesh: FieldMesh, scene: Scene, refinement: Refinement | None, floaters: float
) -> tuple[FieldMesh, float]:
    """A refined mesh with its agreement with the field's silhouettes, and the ``floaters``: other ones if it moved."""
    if refinement is None or refinement.shape is None or not refinement.shape.kept:
        return mesh, floaters
    cameras, opacity = _opacity(scene)
    drawn = silhouettes(mesh.surface.vertices, mesh.surface.faces, cameras, *opacity.shape[1:])
    mesh = replace(mesh, iou=mean_iou(drawn, opacity > 0.5), silhouettes=drawn)
    return mesh, _floaters(mesh, opacity)


def _opacity(scene: Scene) -> tuple[Cameras, NDArray[np.float32]]:
    """Cameras, and the field's opacity (V, H, W) there, 0..1: what silhouettes are compared at."""
    cameras = orbit(SILHOUETTE_VIEWS, elevation_deg=15)
    opacity: NDArray[np.float32] = scene.evaluate(cameras, SILHOUETTE_SIZE).opacity[..., 0].cpu().numpy()
    return cameras, opacity


def _floaters(mesh: FieldMesh, opacity: NDArray[np.float32]) -> float:
    outside = ~mesh.silhouettes
    return float(opacity[outside].mean()) if outside.any() else 0.0


def figures_of(outcome: Outcome) -> dict[str, Any]:
    """The result in ``run.json``."""
    return {
        "mesh": str(outcome.mesh_path),
        "vertices": outcome.vertices,
        "faces": outcome.faces,
        "iso_level": outcome.iso_level,
        "silhouette_iou": outcome.silhouette_iou,
        "floaters": outcome.floaters,
        "cap_area": outcome.cap_area,
        "watertight": outcome.watertight,
        "texture": outcome.texture,
        "prompt_similarity": outcome.likeness and outcome.likeness.similarity,
        "prompt_rank": outcome.likeness and outcome.likeness.rank,
        "cross_view_consistency": outcome.consistency,
        "janus": outcome.janus,
        **(outcome.refinement.to_dict() if outcome.refinement else {}),
        "seconds": round(outcome.seconds, 1),
        "peak_memory_bytes": outcome.peak_memory_bytes,
    }


def peak_memory_bytes() -> int:
    """Largest resident size that this process has had; 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


def _describe(mesh: FieldMesh, floaters: float) -> str:
    level, iou = mesh.choice.level, mesh.iou
    return f"surface at density {level:.3g}, silhouettes agree to {iou:.3f} IoU, {floaters:.1%} floaters"


def write_asset(mesh: FieldMesh, made_by: dict[str, Any], out: Path) -> ExportReport:
    """Export a mesh with its provenance; folders that are missing are made. Raises ExportError."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot make the folder {out.parent}: {error.strerror}; choose another --out") from error
    return export(Asset(*mesh.skin, made_by), out)
