"""``dream3d batch``: lists of prompts become a folder of meshes with a gallery page."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dream3d import checks
from dream3d.cli.generate import CheckpointOption, DeviceOption, PrecisionOption, PriorOption, VramOption, lasting_name
from dream3d.cli.group import DebugOption
from dream3d.errors import Dream3DError, UsageError

if TYPE_CHECKING:
    from dream3d.batch.jobs import Job
    from dream3d.batch.places import Place
    from dream3d.batch.report import Row
    from dream3d.batch.work import Result, Shared, Watcher

ListsArgument = Annotated[list[Path], typer.Argument(help="Lists of prompts: .txt, .csv, .jsonl.", metavar="LIST...")]
FolderOption = Annotated[
    str, typer.Option(help="Folder for meshes, runs, summary and gallery, or s3://bucket/folder.", show_default=False)
]
SeedsOption = Annotated[str, typer.Option(help="Seeds of each prompt: 7, 0-3 or 1,4,9.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="A setting for all prompts: steps=100, guidance.rescale=0.3.")
]
WorkersOption = Annotated[int, typer.Option(help="Assets made at the same time.")]
EngineOption = Annotated[str, typer.Option(help="local: processes of this machine. ray: a Ray cluster.")]
AddressOption = Annotated[str | None, typer.Option(help="Of the Ray cluster.", show_default="a local one")]
FailOption = Annotated[str, typer.Option(help="When to exit with 1: if 'all' assets failed, or if 'any' did.")]


def batch(
    lists: ListsArgument,
    out_dir: FolderOption,
    seeds: SeedsOption = "0",
    settings: SetOption = None,
    workers: WorkersOption = 1,
    engine: EngineOption = "local",
    address: AddressOption = None,
    prior: PriorOption = "mini",
    device: DeviceOption = "auto",
    vram: VramOption = None,
    precision: PrecisionOption = "auto",
    checkpoint_minutes: CheckpointOption = 1.0,
    fail: FailOption = "all",
    debug: DebugOption = False,
) -> None:
    """Make an asset of every prompt in lists. A second call makes only what is missing."""
    from dream3d.batch.jobs import plan
    from dream3d.batch.prompts import read_lists

    if engine not in ("local", "ray") or (address and engine != "ray"):
        raise UsageError(f"--engine is local or ray, and --address goes with ray; got {engine!r}, {address!r}")
    if fail not in ("all", "any"):
        raise UsageError(f"--fail is all or any, got {fail!r}")
    if not 1 <= workers <= 1024:
        raise UsageError(f"--workers is 1 to 1024, got {workers}")
    interval = checks.check_checkpoint_minutes(checkpoint_minutes) * 60
    chosen = checks.parse_seeds(seeds.replace("-", ".."))
    jobs, twice = plan(read_lists(lists), chosen, _settings(settings or []), prior)
    if twice:
        typer.echo(f"{twice} asked for twice, made once", err=True)
    shared = _shared(out_dir, prior, device, workers, interval, vram, precision)
    rows = _work(jobs, shared, workers, engine, address)
    failed = sum(row.state == "failed" for row in rows)
    if failed and (fail == "any" or failed == len(rows)):
        raise Dream3DError(f"{failed} of {len(rows)} assets failed; reasons are in {out_dir}/summary.csv")


def _settings(changes: Sequence[str]) -> dict[str, str]:
    pairs = [change.partition("=") for change in changes]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise UsageError(f"--set {key[:40]!r} is not key=value, such as steps=100")
        if key in ("seed", "name"):
            raise UsageError(f"--set {key} would be the same for all prompts; use --seeds, or the list's lines")
    return {key: value for key, _, value in pairs}


def _shared(
    out_dir: str, prior: str, device: str, workers: int, interval: float, vram: float | None, precision: str
) -> Shared:
    from dream3d.batch.places import LocalPlace, parse_place
    from dream3d.batch.work import Shared
    from dream3d.cli.device import resolve_device
    from dream3d.weights.loading import locate

    locate(prior)  # an unknown name is one error now, not one for each job
    place = parse_place(out_dir)
    if isinstance(place, LocalPlace):
        checks.check_run_dir(place.folder)
    threads = max(1, (os.cpu_count() or 1) // workers)
    resolved = resolve_device(checks.check_device_name(device))
    return Shared(place, lasting_name(prior), resolved, threads, interval, vram, precision)


def _work(jobs: Sequence[Job], shared: Shared, workers: int, engine: str, address: str | None) -> list[Row]:
    """Make what is missing, alone in the folder, and keep the report up to date."""
    from dream3d.batch.places import brief
    from dream3d.batch.report import Report
    from dream3d.cli.batch_view import watching_batch
    from dream3d.cli.console import make_console

    console = make_console(stderr=True)
    with _alone(shared.place):
        report = Report(jobs, shared.place)
        missing = report.missing()
        console.print(f"{len(jobs)} assets, {len(jobs) - len(missing)} of them there already")
        try:
            report.write()  # also a proof that results can be kept, before hours are spent on them
        except Exception as error:  # every store has errors of its own
            raise Dream3DError(f"cannot write to {shared.place} ({brief(error)})") from error
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
    typer.echo(f"gallery     {shared.place}/index.html\nsummary     {shared.place}/summary.csv")
    return report.rows


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """No other batch works in a folder of this machine; object stores have no locks, and two batches waste work."""
    from filelock import FileLock, Timeout

    from dream3d.batch.places import LocalPlace

    if not isinstance(place, LocalPlace):
        yield
        return
    place.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Dream3DError(f"another batch is at work in {place}; wait for it, or choose another") from None
    try:
        yield
    finally:
        lock.release()


def _results(
    jobs: Sequence[Job], shared: Shared, workers: int, engine: str, address: str | None, watcher: Watcher
) -> Generator[Result, None, None]:
    if jobs and engine == "ray":
        from dream3d.batch.cluster import run_ray

        # Ray writes paragraphs about every lost worker to stdout, which is for what the user asked for. They are in
        # its own logs too, and a job that is lost for good says so.
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
            row.job.prompt.replace("[", r"\["),
            str(row.job.seed),
            row.state,
            duration(seconds) if isinstance(seconds, float) else "",
            f"{faces:,}" if isinstance(faces, int) else "",
            row.reason.replace("[", r"\["),
        )
    make_console().print(table)
