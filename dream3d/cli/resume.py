"""``dream3d resume``: continue a run that was stopped, killed or failed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dream3d import checks
from dream3d.cli.group import DebugOption, say
from dream3d.cli.options import CheckpointOption, QuietOption
from dream3d.errors import UsageError


def resume(
    run: Annotated[Path, typer.Argument(help="Folder of the run.", metavar="RUN")],
    checkpoint_minutes: CheckpointOption = 1.0,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Resume a run that was stopped, killed or failed. The mesh is the same as that of an uninterrupted run.

    Example: dream3d resume runs/a-wooden-chair-0
    """
    from dream3d.run.folder import LOCK, read_run

    seconds = checks.check_checkpoint_minutes(checkpoint_minutes) * 60
    facts = read_run(run)
    request = facts.get("request")
    if not isinstance(request, dict):
        raise UsageError(f"{run / 'run.json'} does not say how to resume; start again with 'dream3d generate'")
    mesh = Path(str(request.get("out")))
    is_finished = facts.get("status") == "finished"
    if not (is_finished and mesh.exists() and not (run / LOCK).exists()):
        from dream3d.generate import complete

        is_finished = is_finished and complete(run)
    if is_finished:
        say(mesh if quiet else f"{run} is finished: {mesh}")
        return
    from dream3d.cli.device import resolve_device
    from dream3d.cli.display import print_outcome, watching_run
    from dream3d.generate import resume as run_resume
    from dream3d.prior.memory import plan_for
    from dream3d.weights.loading import load_prior

    vram, precision = request.get("vram"), request.get("precision", "auto")
    if not (vram is None or isinstance(vram, int | float)) or not isinstance(precision, str):
        raise UsageError(f"{run / 'run.json'}: vram {vram!r} or precision {precision!r} is not valid; correct it")
    device = resolve_device(str(request.get("device")))
    memory = plan_for(vram, precision, compile_unet=request.get("compile") is True)
    prior = load_prior(str(request.get("prior")), device, memory)
    with watching_run(run, str(facts.get("prompt")), quiet=quiet) as observer:
        outcome = run_resume(run, prior=prior, observer=observer, checkpoint_seconds=seconds)
    if outcome is not None:
        print_outcome(outcome, quiet)
