"""``dream3d variations``: more assets of one run, with other seeds, as a batch in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dream3d import checks
from dream3d.cli import options
from dream3d.cli.batch import WorkersOption, check_workers, make_missing
from dream3d.cli.group import DebugOption
from dream3d.errors import UsageError

MAX_COUNT = 64
"""Variations of one call."""

CountOption = Annotated[int, typer.Option("-n", "--count", help="How many; each has another seed.")]
FolderOption = Annotated[
    str | None, typer.Option(help="Folder for meshes, runs, summary and gallery.", show_default="variations/<run>")
]


def variations(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
    count: CountOption = 4,
    out_dir: FolderOption = None,
    workers: WorkersOption = 1,
    device: options.DeviceOption = "auto",
    checkpoint_minutes: options.CheckpointOption = 1.0,
    debug: DebugOption = False,
) -> None:
    """Make more assets of a run, with other seeds, and a gallery of them. A second call makes only what is missing.

    Example: dream3d variations runs/a-wooden-chair-0 -n 4
    """
    if not 1 <= count <= MAX_COUNT:
        raise UsageError(f"--count is 1 to {MAX_COUNT}, got {count}")
    check_workers(workers)
    checks.check_device_name(device)
    interval = checks.check_checkpoint_minutes(checkpoint_minutes) * 60

    from dream3d.batch.jobs import variations as jobs_of
    from dream3d.batch.places import LocalPlace, parse_place
    from dream3d.batch.work import Shared
    from dream3d.cli.device import resolve_device
    from dream3d.run.folder import read_run
    from dream3d.threads import threads_per_worker

    facts = read_run(run)
    prior, digest, vram, precision = _prior_of(run, facts)
    jobs = jobs_of(run, facts, count, digest)
    place = parse_place(out_dir or str(Path("variations") / (run.resolve().name or "run")))
    if isinstance(place, LocalPlace):
        checks.check_run_dir(place.folder, "--out-dir")
    threads = threads_per_worker(workers)
    make_missing(jobs, Shared(place, prior, resolve_device(device), threads, interval, vram, precision), workers)


def _prior_of(run: Path, facts: Mapping[str, Any]) -> tuple[str, str, float | None, str]:
    """Name, digest, memory budget and precision of a run's prior; UsageError if it is not here any more."""
    from dream3d.weights.loading import digest_of_prior

    request = facts.get("request")
    asked = request if isinstance(request, dict) else {}
    prior, vram, precision = asked.get("prior"), asked.get("vram"), asked.get("precision", "auto")
    if not isinstance(prior, str) or not isinstance(vram, int | float | None) or not isinstance(precision, str):
        raise UsageError(f"{run / 'run.json'} does not say which prior it was made with; use 'dream3d generate'")
    digest = digest_of_prior(prior)
    before = facts.get("prior_digest")
    if before not in (None, digest):
        raise UsageError(
            f"{run} was made with other weights of {prior} (SHA-256 {str(before)[:12]}..., now {digest[:12]}...); "
            "put those back, or use 'dream3d batch'"
        )
    return prior, digest, vram, precision
