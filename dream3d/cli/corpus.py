"""``dream3d corpus``: named pictures to draw by, and their search."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dream3d import checks
from dream3d.cli.group import DebugOption, command_group, say
from dream3d.cli.options import DeviceOption, file_option
from dream3d.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from dream3d.retrieval.ingest import Summary
    from dream3d.retrieval.records import Retrieved

corpus = command_group("Collect named pictures, and find those of a prompt.")

SourcesArgument = Annotated[
    list[Path], typer.Argument(help="Folders of pictures, .csv, .tsv, .parquet or webdataset .tar.", metavar="SRC...")
]
PlaceArgument = Annotated[str, typer.Argument(help="Folder of the corpus, or s3://bucket/folder.", metavar="DIR")]
OptionalPlace = Annotated[
    str | None, typer.Option("--corpus", help="Folder of a corpus, or its address.", show_default="the built-in one")
]


@corpus.command()
def add(
    place: PlaceArgument,
    sources: SourcesArgument,
    workers: Annotated[int, typer.Option(help="Processes, or tasks of --engine ray.")] = 1,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="This machine, or a Ray cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Address of the Ray cluster.", show_default="a local one")] = None,
    captions_only: Annotated[
        bool, typer.Option("--captions-only", help="Make no vectors of pictures: faster, found by caption alone.")
    ] = False,
    uncaptioned: Annotated[
        bool, typer.Option("--uncaptioned", help="Also pictures without a caption, for 'corpus caption' to guess.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Add pictures with captions to a corpus. A second call adds only what is new.

    Example: dream3d corpus add corpus/ photos/ more.csv shards/0000.tar
    """
    from dream3d.retrieval.readers.read import check_sources

    checks.check_address(engine, address)
    check_sources(sources)

    from dream3d.cli.console import duration
    from dream3d.retrieval.cluster import add_on_ray
    from dream3d.retrieval.ingest import AddOptions
    from dream3d.retrieval.ingest import add as add_here
    from dream3d.retrieval.lance import create_store
    from dream3d.retrieval.opening import ENCODER, corpus_encoder
    from dream3d.weights.loading import find_folder

    started = time.monotonic()
    options, encoder = AddOptions(workers, not captions_only, uncaptioned), corpus_encoder()
    store = create_store(place, encoder.fingerprint, (encoder.caption_width, encoder.picture_width))
    folder = find_folder(ENCODER)
    if engine == "ray":
        summary = add_on_ray(sources, place, folder, options, address, _log())
    else:
        summary = add_here(sources, store, encoder, folder, options, report=_log())
    store.finish()
    for reason in summary.skipped.reasons:
        say(f"skipped {reason}")
    if summary.skipped.count > len(summary.skipped.reasons):
        say(f"and {summary.skipped.count - len(summary.skipped.reasons)} more")
    took = duration(time.monotonic() - started)
    say(f"added {summary.added}, already there {summary.known}, skipped {summary.skipped.count}, {took}")
    say(f"{place} holds {len(store)} pictures")
    if not len(store):
        raise DatasetError("no picture could be used; each needs a caption, see docs/corpus.md")


@corpus.command()
def caption(
    place: PlaceArgument,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of BLIP or GIT.", metavar="FOLDER", show_default="nearest name by the image encoder"),
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="Names to choose from, one a line.", show_default="the built-in prior's")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Guess anew also where there is a caption.")] = False,
    device: DeviceOption = "auto",
    debug: DebugOption = False,
) -> None:
    """Guess captions for the pictures of a corpus that have none. Guesses are labelled as such.

    Example: dream3d corpus caption corpus/ --names names.txt
    """
    if model is not None and names is not None:
        raise UsageError("--model writes its own words and --names gives some to choose from; give one of them")
    checks.check_device_name(device)

    from dream3d.cli.device import resolve_device
    from dream3d.dataset.captions.concepts import read_concepts
    from dream3d.prior.folder import read_settings
    from dream3d.retrieval.captioning import Captioner, NearestName, caption_store
    from dream3d.retrieval.lance import open_store
    from dream3d.retrieval.opening import ENCODER, corpus_encoder
    from dream3d.weights.loading import find_folder

    encoder = corpus_encoder()
    store = open_store(place, encoder.fingerprint)
    if model is not None:
        from dream3d.retrieval.caption_model import CaptionModel

        captioner: Captioner = CaptionModel(model, resolve_device(device))
    else:
        known = read_settings(find_folder(ENCODER)).names if names is None else read_concepts(names)
        captioner = NearestName(encoder, known, ENCODER)
    done = caption_store(store, encoder, captioner, replace=replace)
    store.finish()
    for reason in done.skipped.reasons:
        say(f"skipped {reason}")
    say(f"guessed {done.written} captions ({captioner.name}), kept {done.kept}, skipped {done.skipped.count}")


@corpus.command()
def search(
    prompt: Annotated[str, typer.Argument(help="What to look for, in quotes.", metavar="PROMPT")],
    place: OptionalPlace = None,
    count: Annotated[int, typer.Option(help="Pictures at most.")] = 4,
    threshold: Annotated[
        float | None, typer.Option(help="Similarity of prompt and caption from which a picture is used, -1 to 1.")
    ] = None,
    out: Annotated[Path | None, file_option(help="Contact sheet, .png.", show_default="<words>-pictures.png")] = None,
    debug: DebugOption = False,
) -> None:
    """Show the pictures of a prompt: a table, and a contact sheet. Exit code 0 also if nothing passes.

    Example: dream3d corpus search "a red fox" --count 6
    """
    from dream3d.names import slug

    sheet = out or Path(f"{slug(prompt)}-pictures.png")
    checks.check_output_file(sheet, "--out", (".png",))

    from dream3d.images import write_png
    from dream3d.retrieval.fusion import THRESHOLD
    from dream3d.retrieval.opening import open_corpus
    from dream3d.retrieval.sheet import contact_sheet

    opened = open_corpus(place)
    found = opened.search(prompt, count, THRESHOLD if threshold is None else threshold)
    say(f"{opened.name}: {found.explanation}")
    if not found.results and found.below:
        say("nearest, not used:")
    shown = found.results or found.below
    if not shown:
        return
    _print_table(shown)
    sheet.parent.mkdir(parents=True, exist_ok=True)
    attribution = {"prompt": found.prompt, "pictures": [one.attribution for one in shown]}
    write_png(sheet, contact_sheet(shown), attribution)
    say(f"wrote {sheet}")


@corpus.command()
def info(
    place: Annotated[
        str | None, typer.Argument(help="Folder of a corpus, or its address.", metavar="[DIR]", show_default=False)
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Count what a corpus holds, by licence and source; the built-in one if no folder is given."""
    from dream3d.retrieval.figures import figures
    from dream3d.retrieval.opening import open_corpus

    opened = open_corpus(place)
    say(f"{opened.name}")
    for line in figures(opened.store):
        say(line)


def _print_table(results: tuple[Retrieved, ...]) -> None:
    """A table for people, whose columns a narrow terminal cuts."""
    from rich import box
    from rich.table import Table

    from dream3d.cli.console import make_console
    from dream3d.retrieval.records import UNKNOWN

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "caption", "similarity", "found by", "author", "licence"):
        table.add_column(name, justify="right" if name in ("", "similarity") else "left", overflow="ellipsis")
    for number, one in enumerate(results, start=1):
        by = " ".join(f"{name} {rank}" for name, rank in one.ranks)
        caption = f"{one.caption} (guess)" if one.guessed_by else one.caption
        values = (caption, f"{one.similarity:.2f}", by, one.author or UNKNOWN, one.licence or UNKNOWN)
        table.add_row(str(number), *values)
    make_console().print(table)


def _log() -> Callable[[Summary], None]:
    """Prints a line now and then."""
    last = time.monotonic()

    def log(summary: Summary) -> None:
        nonlocal last
        if time.monotonic() - last > 10:
            last = time.monotonic()
            say(f"added {summary.added}, already there {summary.known}, skipped {summary.skipped.count}")

    return log
