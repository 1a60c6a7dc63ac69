"""``dream3d replay``: an asset made again from what its file says of its making."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dream3d import checks
from dream3d.cli import options
from dream3d.cli.group import DebugOption, say
from dream3d.errors import Dream3DError, UsageError

if TYPE_CHECKING:
    from dream3d.prior.diffusion import DiffusionPrior
    from dream3d.prior.memory import MemoryPlan
    from dream3d.replay import Origin

OutOption = Annotated[Path | None, options.file_option(help="The new .glb.", show_default="<asset>-replay.glb")]
PriorOption = Annotated[
    str | None, typer.Option("--prior", help="Name or folder of the prior.", show_default="the name in the file")
]
RunOption = Annotated[Path | None, options.run_option(help="Folder of the run.", show_default="runs/<prompt>-<seed>")]


def replay(
    asset: Annotated[Path, typer.Argument(help="A .glb made by dream3d.", metavar="GLB")],
    out: OutOption = None,
    prior: PriorOption = None,
    device: options.DeviceOption = "auto",
    vram: options.VramOption = None,
    precision: options.PrecisionOption = "auto",
    compile_unet: options.CompileOption = False,
    run_dir: RunOption = None,
    checkpoint_minutes: options.CheckpointOption = 1.0,
    quiet: options.QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make an asset again from what its file says of its making, and say whether the bytes are the same.

    Example: dream3d replay chair.glb --out again.glb
    """
    checks.check_device_name(device)
    checkpoint_seconds = checks.check_checkpoint_minutes(checkpoint_minutes) * 60
    out = _checked_out(asset, out)
    if run_dir is not None:
        checks.check_run_dir(run_dir)

    from dream3d.cli.device import resolve_device
    from dream3d.prior.memory import plan_for
    from dream3d.replay import compare, read_origin
    from dream3d.run.folder import check_no_run, default_run_dir
    from dream3d.weights.loading import lasting_name

    memory = plan_for(vram, precision, compile_unet=compile_unet)
    origin = read_origin(asset)
    run_dir = run_dir or checks.check_run_dir(default_run_dir(origin.prompt, origin.seed))
    check_no_run(run_dir)
    checks.check_apart(out, run_dir)
    name, device = prior or _known(asset, origin), resolve_device(device)
    request = {"prior": lasting_name(name), "vram": vram, "precision": precision, "compile": compile_unet}
    _make(origin, _loaded(origin, name, device, memory), device, out, run_dir, checkpoint_seconds, request, quiet)
    found = compare(origin.content, out.read_bytes())
    if not found.same_bytes:
        raise Dream3DError(f"{out} is not {asset} byte for byte; it is {found.sentence}")
    if not quiet:
        say(f"replay      {out} has {found.sentence} as {asset}")


def _checked_out(asset: Path, out: Path | None) -> Path:
    """Where the new asset goes; UsageError if it cannot, and if it would take the place of the one it is made after."""
    out = checks.check_output_file(out or Path(f"{asset.stem or 'asset'}-replay.glb"), extensions=(".glb",))
    if os.path.exists(out) and os.path.exists(asset) and os.path.samefile(out, asset):
        raise UsageError(f"--out {out} is the asset that is to be made again; choose another name")
    return out


def _known(asset: Path, origin: Origin) -> str:
    """The prior that a file names, if the catalogue has it: a file of anybody chooses no folder of the user's."""
    from dream3d.errors import shown
    from dream3d.weights.catalogue import catalogue

    if origin.prior not in {info.name for info in catalogue()}:
        raise UsageError(f"{asset} was made with the prior {shown(origin.prior)}; say where it lies by --prior")
    return origin.prior


def _loaded(origin: Origin, name: str, device: str, memory: MemoryPlan) -> DiffusionPrior:
    """The prior. What is already known to differ from the asset's making is said on stderr, before the long work."""
    from dream3d.generate import made_of
    from dream3d.replay import differences
    from dream3d.weights.loading import load_prior

    prior = load_prior(name, device, memory)
    here = made_of(origin.prompt, prior, origin.recipe, origin.seed, device)
    for difference in differences(origin.provenance, here):
        say(f"note: {difference}", err=True)
    return prior


def _make(
    origin: Origin,
    prior: DiffusionPrior,
    device: str,
    out: Path,
    run_dir: Path,
    checkpoint_seconds: float,
    request: dict[str, str | float | None],
    quiet: bool,
) -> None:
    from dream3d.cli.display import print_outcome, watching_run
    from dream3d.generate import generate

    with watching_run(run_dir, origin.prompt, quiet=quiet) as observer:
        outcome = generate(
            origin.prompt,
            prior=prior,
            recipe=origin.recipe,
            seed=origin.seed,
            device=device,
            out=out,
            run_dir=run_dir,
            observer=observer,
            checkpoint_seconds=checkpoint_seconds,
            request=request,
        )
    print_outcome(outcome, quiet)
