"""``dream3d dataset``: from 3D models to the shards that the priors are trained on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from dream3d.bounds import Between, Options, check_setting
from dream3d.cli.dataset_contents import images, info
from dream3d.cli.group import DebugOption, command_group, say

dataset = command_group("Make, draw and look through the data that priors are trained on.")

_THE_PRESETS = "the preset's"
PassesOption = Annotated[int | None, typer.Option(help="Orbits around each object.", show_default=_THE_PRESETS)]
ElevationOption = Annotated[
    tuple[float, float] | None,
    typer.Option(help="Lowest and highest elevation of an orbit, degrees.", show_default=_THE_PRESETS),
]
AzimuthsOption = Annotated[
    int | None, typer.Option(help="Views of an orbit, a multiple of four.", show_default=_THE_PRESETS)
]


@dataset.command()
def render(
    sources: Annotated[
        list[Path], typer.Argument(help="Models, .sh3f catalogues, or folders of them.", metavar="SRC...")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the data set; existing data is kept.")],
    preset: Annotated[
        Literal["mvdream", "mini"], typer.Option(help="Cameras of MVDream's training, or of the mini prior's.")
    ] = "mini",
    size: Annotated[int, typer.Option(help="Pixels along a side.")] = 64,
    passes: PassesOption = None,
    azimuths: AzimuthsOption = None,
    elevation: ElevationOption = None,
    lights: Annotated[
        str, typer.Option(help="studio, soft, left, right, above: one of these for each orbit.")
    ] = "studio",
    seed: Annotated[int, typer.Option(help="Random seed of cameras, lights, captions and splits.")] = 0,
    depth: Annotated[bool, typer.Option("--depth", help="Also depth, 16-bit PNG.")] = False,
    normals: Annotated[bool, typer.Option("--normals", help="Also normals, RGB PNG.")] = False,
    select: Annotated[Path | None, typer.Option(help="JSON list that picks and renames assets.")] = None,
    heldout: Annotated[float, typer.Option(help="Share of the objects that is kept from training.")] = 0.1,
    unseen: Annotated[Path | None, typer.Option(help="List of concepts to keep from training, one a line.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    shard_objects: Annotated[int, typer.Option(help="Objects in a shard.")] = 16,
    max_seconds: Annotated[float, typer.Option(help="For one object; it is skipped after that.")] = 120.0,
    max_memory: Annotated[float, typer.Option(help="GB that one process may add for an object.")] = 4.0,
    debug: DebugOption = False,
) -> None:
    """Draw views of 3D models into captioned shards. A second call draws only what is missing."""
    from dream3d.cli.console import duration
    from dream3d.dataset.assets.sources import find_assets
    from dream3d.dataset.captions.concepts import read_concepts
    from dream3d.dataset.rendering.dataset import DatasetPlan, render_dataset
    from dream3d.dataset.rendering.views import PRESETS
    from dream3d.dataset.rendering.workers import Bounds

    started = time.monotonic()
    for name, limit in (("max_seconds", max_seconds), ("max_memory", max_memory)):
        check_setting(limit, Annotated[float, Between(0, 1_000_000, above=True)], name, Options.spoken)
    base = PRESETS[preset]
    recipe = dataclasses.replace(
        base,
        size=size,
        passes=base.passes if passes is None else passes,
        azimuths=base.azimuths if azimuths is None else azimuths,
        cameras=dataclasses.replace(base.cameras, elevation_deg=elevation) if elevation else base.cameras,
        lights=tuple(name.strip() for name in lights.split(",") if name.strip()),
        seed=seed,
        depth=depth,
        normals=normals,
    )
    plan = DatasetPlan(heldout, read_concepts(unseen) if unseen else (), shard_objects)
    assets = find_assets(sources, select)
    bounds = Bounds(max_seconds, round(max_memory * 1e9))
    with _progress_line() as report:
        summary = render_dataset(assets, out, recipe, plan, workers=workers, bounds=bounds, report=report)
    listed = f" (listed in {out / 'skipped.csv'})" if summary.skipped else ""
    took = duration(time.monotonic() - started)
    say(f"drawn {summary.rendered}, skipped {summary.skipped}{listed}, {summary.shards_new} new shards, {took}")
    say(f"data set: {out}")


dataset.command()(info)
dataset.command()(images)


@contextmanager
def _progress_line() -> Iterator[Callable[[int, int, int], None]]:
    """A line that is rewritten on a terminal; in a log, a line now and then."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from dream3d.cli.console import make_console

    console = make_console()
    if not console.is_interactive:
        last = time.monotonic()

        def log(done: int, total: int, skipped: int) -> None:
            nonlocal last
            if done == total or time.monotonic() - last > 10:
                last = time.monotonic()
                say(f"{done} of {total} objects, {skipped} skipped")

        yield log
        return
    columns = (TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[skipped]} skipped"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None, skipped=0)
        yield lambda done, total, skipped: bar.update(task, completed=done, total=total, skipped=skipped)


@dataset.command()
def make(
    out: Annotated[Path | None, typer.Option(help="Folder for .glb files and assets.jsonl.")] = None,
    count: Annotated[int, typer.Option(help="Assets, the families in turn.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    families: Annotated[str, typer.Option(help="Only these: elk-skull,car.", show_default="all")] = "",
    list_families: Annotated[bool, typer.Option("--list", help="Show the families and make nothing.")] = False,
    debug: DebugOption = False,
) -> None:
    """Make captioned 3D models from a seed, as many as wanted."""
    from dream3d.dataset.assets.sources import MANIFEST
    from dream3d.dataset.procedural.families import CATEGORIES
    from dream3d.dataset.procedural.make import make_assets
    from dream3d.errors import UsageError

    if list_families:
        for slug, category in CATEGORIES.items():
            say(f"{slug:16} {category}")
        return
    if out is None:
        raise UsageError("say where to write with --out FOLDER, or --list to see the families")
    started = time.monotonic()
    assets = make_assets(out, count, seed, [name.strip() for name in families.split(",") if name.strip()])
    seconds = time.monotonic() - started
    say(f"made {len(assets)} assets in {seconds:.1f} s: {out / MANIFEST}")
