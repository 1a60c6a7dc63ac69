"""``dream3d batch``: lists of prompts become a folder of meshes with a gallery page."""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dream3d import checks
from dream3d.cli import options
from dream3d.cli.group import DebugOption, say
from dream3d.errors import Dream3DError, UsageError, escaped

if TYPE_CHECKING:
    from rich.console import Console

    from dream3d.batch.jobs import BatchJob
    from dream3d.batch.places import Place
    from dream3d.batch.report import Report, Row
    from dream3d.batch.work import Result, Shared, Watcher


def _check_lists(lists: list[Path]) -> list[Path]:
    if not any(path.suffix or path.exists() for path in lists):
        prompt = shlex.quote(" ".join(map(str, lists)))
        raise UsageError(f"{prompt} is not a list of prompts; for a single prompt: dream3d generate {prompt}")
    return lists


worker_option = partial(typer.Option, rich_help_panel="Workers")

ListsArgument = Annotated[
    list[Path], typer.Argument(help="Lists of prompts: .txt, .csv, .jsonl.", metavar="LIST...", callback=_check_lists)
]
FolderOption = Annotated[
    str, typer.Option(help="Folder for meshes, runs, summary and gallery, or s3://bucket/folder.", show_default=False)
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change a setting for all prompts: steps=100, guidance.rescale=0.3.")
]
FailOption = Annotated[Literal["all", "any"], typer.Option(help="Exit with code 1 if all assets failed, or any.")]
WorkersOption = Annotated[int, worker_option(help="Assets made at the same time.")]
EngineOption = Annotated[Literal["local", "ray"], worker_option(help="Processes of this machine, or a Ray cluster.")]
AddressOption = Annotated[str | None, worker_option(help="Address of the Ray cluster.", show_default="a local one")]


def batch(
    lists: ListsArgument,
    out_dir: FolderOption,
    seeds: options.SeedsOption = "0",
    settings: SetOption = None,
    fail: FailOption = "all",
    prior: options.PriorOption = "mini",
    workers: WorkersOption = 1,
    engine: EngineOption = "local",
    address: AddressOption = None,
    device: options.DeviceOption = "auto",
    vram: options.VramOption = None,
    precision: options.PrecisionOption = "auto",
    checkpoint_minutes: options.CheckpointOption = 1.0,
    debug: DebugOption = False,
) -> None:
    """Make one asset for each prompt in lists. A second call makes only what is missing.

    Example: dream3d batch prompts/animals.txt --out-dir animals --seeds 0..3
    """
    from dream3d.batch.jobs import plan
    from dream3d.batch.prompts import read_lists

    checks.check_address(engine, address)
    check_workers(workers)
    interval = checks.check_checkpoint_minutes(checkpoint_minutes) * 60
    entries, seed_list, changes = read_lists(lists), checks.parse_seeds(seeds), _settings(settings or [])

    from dream3d.batch.places import LocalPlace, parse_place
    from dream3d.batch.work import Shared
    from dream3d.cli.device import resolve_device
    from dream3d.prior.folder import read_settings
    from dream3d.prior.image_adapter.folder import adapter_digest, check_adapter, has_adapter
    from dream3d.threads import threads_per_worker
    from dream3d.weights.loading import find_whole, lasting_name

    # An unknown or incomplete prior is one error now, not one for each job.
    folder, digest = find_whole(prior)
    adapter = adapter_digest(folder) if has_adapter(folder) else ""
    jobs, twice = plan(entries, seed_list, changes, digest, adapter)
    if any(job.pictures.asked for job in jobs):
        check_adapter(folder, read_settings(folder).name)
    if twice:
        say(f"{twice} duplicates left out", err=True)
    place = parse_place(out_dir)
    if isinstance(place, LocalPlace):
        checks.check_run_dir(place.folder)
    threads = threads_per_worker(workers)
    shared = Shared(place, lasting_name(prior), resolve_device(device), threads, interval, vram, precision)
    make_missing(jobs, shared, workers, engine, address, fail)


def check_workers(workers: int) -> None:
    """UsageError for no worker, and for very many."""
    if not 1 <= workers <= 1024:
        raise UsageError(f"--workers is 1 to 1024, got {workers}")


def _settings(changes: Sequence[str]) -> dict[str, str]:
    pairs = [change.partition("=") for change in changes]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise UsageError(f"--set {key[:40]!r} is not key=value, such as steps=100")
        if key in ("seed", "name"):
            raise UsageError(f"--set {key} would be the same for all prompts; use --seeds, or the list's lines")
    return {key: value for key, _, value in pairs}


def make_missing(
    jobs: Sequence[BatchJob],
    shared: Shared,
    workers: int,
    engine: str = "local",
    address: str | None = None,
    fail: Literal["all", "any"] = "all",
) -> None:
    """Make what is missing, with the folder locked; keep the report up to date. Dream3DError if ``fail`` came true."""
    report = _work(jobs, shared, workers, engine, address)
    failed = sum(row.state == "failed" for row in report.rows)
    if failed and (fail == "any" or failed == len(report.rows)):
        where = f"{shared.place}/{report.summary}"
        raise Dream3DError(f"{failed} of {len(report.rows)} assets failed; reasons are in {where}")


def _work(jobs: Sequence[BatchJob], shared: Shared, workers: int, engine: str, address: str | None) -> Report:
    from dream3d.batch.places import brief
    from dream3d.batch.report import Report
    from dream3d.cli.batch_view import watching_batch
    from dream3d.cli.console import make_console

    console = make_console(stderr=True)
    with _alone(shared.place):
        report = Report(jobs, shared.place)
        missing = report.missing()
        console.print(f"{len(jobs)} assets, {len(jobs) - len(missing)} already made")
        try:
            report.write()  # also tests that results can be written, before hours are spent on them
        except Exception as error:  # every object store has its own errors
            raise Dream3DError(f"cannot write to {shared.place} ({brief(error)})") from error
        _warn(console, shared.prior, missing)
        try:
            with (
                watching_batch(console, len(missing)) as view,
                closing(_results(missing, shared, workers, engine, address, view.working)) as results,
            ):
                for result in results:
                    report.add(result)
                    view.ended(result)
        finally:
            report.write()
    _table(report.rows)
    say(f"gallery     {shared.place}/{report.gallery}")
    say(f"summary     {shared.place}/{report.summary}")
    return report


def _warn(console: Console, prior: str, jobs: Sequence[BatchJob]) -> None:
    """One line for each prompt that names nothing that the prior knows."""
    from dream3d.weights.loading import unfamiliar_in

    for unfamiliar in unfamiliar_in(prior, list(dict.fromkeys(job.prompt for job in jobs))):
        if unfamiliar is not None:
            console.print(f"warning: {unfamiliar.warning(prior)}", markup=False, soft_wrap=True)


def _alone(place: Place) -> AbstractContextManager[None]:
    """Locks a folder of this machine against other batches. Object stores have no locks: two batches waste work."""
    from dream3d.batch.places import LocalPlace
    from dream3d.locks import held
    from dream3d.run.folder import LOCK

    if not isinstance(place, LocalPlace):
        return nullcontext()
    place.folder.mkdir(parents=True, exist_ok=True)
    return held(place.folder / LOCK, f"another batch is at work in {place}; wait for it, or choose another")


def _results(
    jobs: Sequence[BatchJob], shared: Shared, workers: int, engine: str, address: str | None, watcher: Watcher
) -> Generator[Result, None, None]:
    if jobs and engine == "ray":
        from dream3d.batch.cluster import run_ray

        # Ray writes paragraphs about every lost worker to stdout, which is for results. They are in its logs too, and
        # a job that is lost for good is reported as failed.
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield from run_ray(jobs, shared, workers, address, watcher=watcher)
    elif jobs:
        from dream3d.batch.local import run_local

        yield from run_local(jobs, shared, min(workers, len(jobs)), watcher=watcher)


def _table(rows: Sequence[Row]) -> None:
    from rich.table import Table

    from dream3d.cli.console import duration, make_console

    table = Table("prompt", "seed", "state", "time", "faces", "reason", box=None, pad_edge=False)
    for row in rows[:200]:
        seconds, faces = row.facts.get("seconds"), row.facts.get("faces")
        table.add_row(
            escaped(row.job.prompt),
            str(row.job.seed),
            row.state,
            duration(seconds) if isinstance(seconds, float) else "",
            f"{faces:,}" if isinstance(faces, int) else "",
            escaped(row.reason),
        )
    make_console().print(table)
