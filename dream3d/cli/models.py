"""``dream3d models``: which priors there are, and how they come to this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dream3d.cli.group import DebugOption, command_group, say
from dream3d.errors import Dream3DError, UsageError, escaped
from dream3d.prior.layout import PACKAGED, Dtype
from dream3d.weights.catalogue import PriorInfo, catalogue
from dream3d.weights.records import read_record
from dream3d.weights.store import download_path, is_downloaded, is_offline, prior_folder
from dream3d.weights.table import Entry, Source, find_entry, mirrored

if TYPE_CHECKING:
    from dream3d.weights.verify import Finding

models = command_group("List, fetch, check and convert diffusion priors.")

NameArgument = Annotated[str, typer.Argument(help="Name that 'dream3d models list' shows.", metavar="NAME")]


@models.command("list")
def list_models(debug: DebugOption = False) -> None:
    """Show every known prior, and whether it is installed."""
    from rich import box
    from rich.table import Table

    from dream3d.cli.console import make_console, memory

    table = Table(box=box.SIMPLE, padding=(0, 1))
    for title in ("name", "present", "size", "licence"):
        table.add_column(title, no_wrap=True)
    table.add_column("note")
    for info in catalogue():
        cells = (info.name, _presence(info), memory(info.size) if info.size else "", info.licence, info.note)
        table.add_row(*map(escaped, cells))
    make_console().print(table)


@models.command()
def info(name: NameArgument, debug: DebugOption = False) -> None:
    """Show a prior's licence, the files it comes from, and where they go."""
    from dream3d.cli.console import memory

    known, entry = _known(name), find_entry(name)
    for title, value in (
        ("name", known.name),
        ("note", known.note),
        ("licence", known.licence),
        ("present", _presence(known)),
        ("folder", str(known.path or (prior_folder(entry) if entry else PACKAGED / name))),
    ):
        say(f"{title:<9}{value}")
    if entry is None:
        say(f"{'size':<9}{memory(known.size)}, inside the package")
        return
    say(f"{'size':<9}about {memory(entry.converted_bytes)} as fp16, twice that as fp32")
    for number, source in enumerate(entry.sources, 1):
        say(f"source {number} {source.title}, about {memory(source.about_bytes)}")
        for line in _file_lines(entry, source):
            say(f"  {line}")


@models.command()
def pull(
    name: NameArgument,
    offline: Annotated[bool, typer.Option("--offline", help="Use files of this machine only; no network.")] = False,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Number format of the converted weights.", show_default="fp16")
    ] = None,
    discard_download: Annotated[
        bool, typer.Option("--discard-download", help="Remove the downloaded files once they are converted.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Download a prior, check it and convert it, so that '--prior NAME' works. Resumes interrupted downloads."""
    known, entry = _known(name), find_entry(name)
    if entry is None:
        if known.path is None:
            raise Dream3DError(known.absence())
        say(f"{name} is inside the package; there is nothing to pull")
        return

    from dream3d.cli.console import make_console
    from dream3d.cli.transfer import transferring
    from dream3d.weights.pull import PullOptions
    from dream3d.weights.pull import pull as run_pull

    options = PullOptions(dtype, offline or is_offline(), discard_download)
    with transferring(make_console()) as reporter:
        folder = run_pull(entry, options, reporter)
    say(f"{name} is in {folder} (licence: {entry.licence})")


@models.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="Only this prior.", metavar="[NAME]", show_default=False)] = None,
    debug: DebugOption = False,
) -> None:
    """Read every file again and verify its SHA-256. Exit code 1 if one is damaged or missing."""
    from dream3d.weights.verify import verify_entry, verify_packaged

    bad: list[Finding] = []
    for one in [name] if name else [info.name for info in catalogue()]:
        known, entry, count = _known(one), find_entry(one), 0
        for finding in verify_entry(entry) if entry else verify_packaged():
            count += 1
            if finding.state != "sound":
                say(f"{finding.path}: {finding.detail}")
            if finding.state == "bad":
                bad.append(finding)
        if count:
            say(f"{one}: files checked: {count}")
        elif name:
            raise Dream3DError(known.absence())
        else:
            say(f"{one}: not installed")
    if bad:
        raise Dream3DError(
            f"{len(bad)} damaged or missing, first {bad[0].path}; 'dream3d models pull NAME' fetches or converts again"
        )


@models.command()
def path(name: NameArgument, debug: DebugOption = False) -> None:
    """Print a prior's folder and nothing else; exit code 1 if it is not installed."""
    known = _known(name)
    if not known.present:
        raise Dream3DError(known.absence())
    say(known.path)


@models.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Official checkpoint file, or diffusers folder.", metavar="SRC")],
    destination: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.", metavar="DST")],
    dtype: Annotated[Dtype, typer.Option(help="Number format of the converted weights.")] = "fp16",
    debug: DebugOption = False,
) -> None:
    """Convert weights that you have to a folder that '--prior DST' loads."""
    if not source.exists():
        raise UsageError(f"{source} does not exist; give a checkpoint file or a diffusers folder")
    if destination.exists():
        raise UsageError(f"{destination} exists already; name a folder that does not")
    if destination.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{destination} lies inside {source}; name a folder elsewhere")

    from dream3d.prior.official.convert import convert as run_convert

    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{destination} cannot be written ({error.strerror or error}); choose another place"
        ) from error
    run_convert(source, destination, dtype)
    say(destination)


@models.command()
def adapter(
    source: Annotated[
        Path, typer.Argument(help="MV-RAG's or ImageDream's weights: a file or a folder.", metavar="SRC")
    ],
    prior: Annotated[Path, typer.Argument(help="Folder of the prior that gets the adapter.", metavar="PRIOR")],
    dtype: Annotated[Dtype, typer.Option(help="Number format of the converted weights.")] = "fp16",
    debug: DebugOption = False,
) -> None:
    """Give a converted prior an official image adapter, so that it draws by pictures, or trains from there."""
    if not source.exists():
        raise UsageError(f"{source} does not exist; give a file or a folder with an image adapter")

    from dream3d.prior.official.convert import add_adapter

    say(add_adapter(source, prior, dtype))


def _known(name: str) -> PriorInfo:
    """The catalogue's entry; UsageError with the known names."""
    found = {info.name: info for info in catalogue()}
    if name not in found:
        raise UsageError(f"unknown prior {name!r}; known: {', '.join(found)}")
    return found[name]


def _presence(info: PriorInfo) -> str:
    if info.present:
        return "yes"
    entry = find_entry(info.name)
    downloaded = entry is not None and any(is_downloaded(entry, source) for source in entry.sources)
    return "not converted" if downloaded else "no"


def _file_lines(entry: Entry, source: Source) -> Iterator[str]:
    """What is known of each file of a source."""
    from dream3d.cli.console import memory

    for file in source.files:
        place = download_path(entry, file)
        record = read_record(place)
        digest = file.sha256 or (record and f"{record.sha256} (first download)") or "recorded at the first download"
        about = f"about {memory(file.about_bytes)}" if file.about_bytes >= 1e6 else "a few kB"
        size = about if file.size is None else f"{file.size} bytes"
        for url in file.urls:
            yield f"from   {mirrored(url)}"
        yield f"to     {place}{'' if place.is_file() else ' (not downloaded)'}"
        yield f"size   {size}, sha256 {digest}"
