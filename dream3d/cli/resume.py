"""``dream3d resume``: a run that was stopped, killed or failed goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dream3d import checks
from dream3d.cli.generate import CheckpointOption, report, says_how_to_go_on
from dream3d.cli.group import DebugOption
from dream3d.errors import UsageError


def resume(
    run: Annotated[Path, typer.Argument(help="Folder of the run.", metavar="RUN")],
    checkpoint_minutes: CheckpointOption = 1.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the mesh's path and nothing else.")] = False,
    debug: DebugOption = False,
) -> None:
    """Go on with a run where it was stopped or killed. The mesh is the one that an unbroken run would have made."""
    from dream3d.run.folder import read_run

    seconds = checks.check_checkpoint_minutes(checkpoint_minutes) * 60
    facts = read_run(run)
    request = facts.get("request")
    if not isinstance(request, dict):
        raise UsageError(f"{run / 'run.json'} does not say what to go on with; start again with 'dream3d generate'")
    mesh = Path(str(request.get("out")))
    if facts.get("status") == "finished" and mesh.exists():
        typer.echo(mesh if quiet else f"{run} is finished: {mesh}")
        return
    from dream3d.cli.console import make_console
    from dream3d.cli.device import resolve_device
    from dream3d.cli.display import watching
    from dream3d.generate import resume as go_on
    from dream3d.prior.memory import plan_for
    from dream3d.weights.loading import load_prior

    vram, precision = request.get("vram"), request.get("precision", "auto")
    if not (vram is None or isinstance(vram, int | float)) or not isinstance(precision, str):
        raise UsageError(f"{run / 'run.json'}: vram {vram!r} or precision {precision!r} is not what it should be")
    device = resolve_device(checks.check_device_name(str(request.get("device"))))
    memory = plan_for(vram, precision, compile_unet=request.get("compile") is True)
    prior = load_prior(str(request.get("prior")), device, memory)
    title = str(facts.get("prompt"))
    with says_how_to_go_on(run), watching(make_console(), title, quiet=quiet) as observer:
        outcome = go_on(run, prior=prior, observer=observer, checkpoint_seconds=seconds)
    if outcome is None:
        typer.echo(mesh)
    else:
        report(outcome, quiet)
