"""``dream3d export``: an asset made again from the field of a finished run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dream3d import checks
from dream3d.bounds import Options
from dream3d.cli import options
from dream3d.cli.group import DebugOption, say
from dream3d.errors import UsageError

if TYPE_CHECKING:
    from dream3d.prior.diffusion import DiffusionPrior
    from dream3d.remake import KeptField

_RUN = "the run's"

OutOption = Annotated[
    Path | None, options.file_option(help="Mesh: .glb, .obj, .ply, .stl or .usdz.", show_default="<run>.<format>")
]
FormatOption = Annotated[
    str | None, typer.Option(help="glb, obj, ply, stl or usdz.", show_default="that of --out, or glb")
]
FacesOption = Annotated[int | None, typer.Option(help="Faces of the mesh; 0: all of them.", show_default=_RUN)]
TextureOption = Annotated[int | None, typer.Option(help="Texture's side; 0: vertex colours.", show_default=_RUN)]
GridOption = Annotated[int | None, typer.Option(help="Cells along each side of the mesh grid.", show_default=_RUN)]
NormalMapOption = Annotated[
    bool | None, typer.Option("--normal-map/--no-normal-map", help="Shape as a second image.", show_default=_RUN)
]
RefineOption = Annotated[
    bool | None,
    typer.Option("--refine-texture/--no-refine-texture", help="Refine it by the run's prior.", show_default=_RUN),
]
RefineShapeOption = Annotated[
    bool | None,
    typer.Option("--refine-shape/--no-refine-shape", help="Refine it with the texture.", show_default=_RUN),
]
SmoothingOption = Annotated[int | None, typer.Option(help="Rounds of smoothing at most.", show_default=_RUN)]


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="RUN")],
    out: OutOption = None,
    format: FormatOption = None,
    faces: FacesOption = None,
    texture: TextureOption = None,
    resolution: GridOption = None,
    smoothing: SmoothingOption = None,
    normal_map: NormalMapOption = None,
    refine_texture: RefineOption = None,
    refine_shape: RefineShapeOption = None,
    device: options.DeviceOption = "auto",
    quiet: options.QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make an asset again from a finished run's field, without optimising again: other faces, texture or format.

    Example: dream3d export runs/a-wooden-chair-0 --out small.glb --faces 2000 --texture 512
    """
    out = _checked_out(run, out, format)
    checks.check_device_name(device)
    given: dict[str, Any] = {
        "faces": faces,
        "texture": texture,
        "resolution": resolution,
        "smoothing": smoothing,
        "normal_map": normal_map,
    }

    from dream3d.cli.device import resolve_device
    from dream3d.cli.display import print_mesh
    from dream3d.finish import NOT_REFINED
    from dream3d.recipe.overrides import Overrides
    from dream3d.remake import read_field, remake

    changes = {name: value for name, value in given.items() if value is not None}
    _check(changes)
    device = resolve_device(device)
    kept = read_field(run, device)
    recipe = Overrides(refine_texture=refine_texture, refine_shape=refine_shape).apply_on(kept.recipe)
    recipe = dataclasses.replace(recipe, mesh=dataclasses.replace(recipe.mesh, **changes))
    made = remake(kept, out, recipe, _prior_of(kept, device) if recipe.refinement else None)
    notes = [*(made.refinement.sentences if made.refinement else ()), *made.mesh.notes]
    if recipe.refinement and made.refinement is None:
        notes.append(NOT_REFINED)
    for note in () if quiet else notes:
        say(f"note: {note}", err=True)
    if quiet:
        say(made.path)
        return
    closed = "closed" if made.mesh.watertight else "not closed"
    print_mesh(made.path, made.vertices, made.faces, made.mesh.texture)
    say(f"surface     {closed}, silhouettes agree to {made.mesh.iou:.3f} IoU")


def _prior_of(kept: KeptField, device: str) -> DiffusionPrior:
    """The prior that a run was made with, by the name in its ``run.json``."""
    from dream3d.weights.loading import load_prior

    request = kept.facts.get("request")
    name = request.get("prior") if isinstance(request, Mapping) else None
    if not isinstance(name, str):
        raise UsageError("the run does not say which prior made it; use --no-refine-texture")
    return load_prior(name, device)


def _check(changes: Mapping[str, Any]) -> None:
    """UsageError, by the options' names, before the field is read."""
    from dream3d.bounds import check_setting, field_hints
    from dream3d.recipe.mesh import MeshRecipe

    hints = field_hints(MeshRecipe)
    for name, value in changes.items():
        check_setting(value, hints[name], name, Options.spoken)
    MeshRecipe(**changes)


def _checked_out(run: Path, out: Path | None, format: str | None) -> Path:
    """Where the mesh goes; UsageError if it cannot, or if ``--format`` says another thing than ``--out``."""
    from dream3d.mesh.export import check_extension

    if format is not None:
        check_extension(Path(f"mesh.{format}"))
    if out is None:
        out = Path(f"{run.resolve().name or 'mesh'}.{format or 'glb'}")
    elif format is not None and out.suffix.lower() != f".{format.lower()}":
        raise UsageError(f"--out {out} is not a .{format} file; leave out --format, or change the file extension")
    out = checks.check_output_file(out)
    check_extension(out)
    return out
