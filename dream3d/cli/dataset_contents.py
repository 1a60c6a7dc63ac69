"""``dream3d dataset info`` and ``dream3d dataset images``: what shards hold, and shards of captioned images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dream3d import checks
from dream3d.cli.group import DebugOption, say
from dream3d.cli.options import file_option
from dream3d.errors import DatasetError, UsageError

MOST_LINES = 50
"""Findings of one kind that are printed; the rest is counted."""


def info(
    folder: Annotated[Path, typer.Argument(help="Folder with shards.", metavar="DIR")],
    held_out: Annotated[
        Path | None, typer.Option(help="File of concepts, one a line, that no training object may name.")
    ] = None,
    sheet: Annotated[Path | None, file_option(help="Write a contact sheet of the objects to this PNG.")] = None,
    debug: DebugOption = False,
) -> None:
    """Count what a data set holds, and look for damage and held-out concepts. Exit code 1 if there are any."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give one with shards")
    if sheet is not None:
        checks.check_output_file(sheet, "--sheet", (".png",))

    from dream3d.dataset.captions.concepts import read_concepts
    from dream3d.dataset.info import report, summarise, write_sheet

    concepts = read_concepts(held_out) if held_out is not None else ()
    summary = summarise(folder, concepts, sheet=sheet is not None)
    for line in report(summary):
        say(line)
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        write_sheet(sheet, summary.tiles)
        say(f"wrote {sheet} ({len(summary.tiles)} of {len(summary.records)} objects)")
    _echo_some([f"damaged: {line}" for line in summary.damaged])
    _echo_some([f"leak: {leak.key} names {leak.concept!r}: {leak.text!r}" for leak in summary.leaks])
    if summary.damaged or summary.leaks:
        raise DatasetError(
            f"{folder}: {len(summary.damaged)} damages and {len(summary.leaks)} objects that name a held-out concept; "
            "render what is damaged again, and leave such objects out"
        )
    if held_out is not None:
        say(f"none of {len(concepts)} held-out concepts is named outside the split unseen")


def images(
    out: Annotated[Path, typer.Option(help="Folder for the shards.", show_default=False)],
    source: Annotated[
        Path | None, typer.Argument(help="Folder of images with captions.", metavar="[SRC]", show_default=False)
    ] = None,
    from_shards: Annotated[
        Path | None, typer.Option(help="Folder of multi-view shards whose training objects become images.")
    ] = None,
    size: Annotated[int, typer.Option(help="Pixels along a side.")] = 256,
    per_object: Annotated[int, typer.Option(help="Images of each object of --from-shards.")] = 4,
    per_shard: Annotated[int, typer.Option(help="Images in a shard.")] = 1000,
    seed: Annotated[int, typer.Option(help="Random seed of views and backgrounds.")] = 0,
    debug: DebugOption = False,
) -> None:
    """Make shards of captioned images without cameras, from any images or from rendered objects."""
    if (source is None) == (from_shards is None):
        raise UsageError("give a folder of images or --from-shards, one of the two")

    from dream3d.dataset.images import (
        ImageOptions,
        Skipped,
        images_from_folder,
        images_from_objects,
        training_objects,
        write_image_shards,
    )

    options, skipped = ImageOptions(size, per_shard, seed, per_object), Skipped()
    if source is not None:
        found = images_from_folder(source, options.size, skipped)
    elif from_shards is not None:
        found = images_from_objects(training_objects(from_shards), options)
    try:
        count = write_image_shards(found, out, options.per_shard)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror or error}); choose another place") from error
    _echo_some([f"skipped {reason}" for reason in skipped.reasons])
    if not count:
        raise DatasetError(f"{source or from_shards} holds no image that can be used ({len(skipped.reasons)} skipped)")
    say(f"{count} images of {options.size} x {options.size} pixels in {out}, {len(skipped.reasons)} skipped")


def _echo_some(lines: list[str]) -> None:
    for line in lines[:MOST_LINES]:
        say(line)
    if len(lines) > MOST_LINES:
        say(f"and {len(lines) - MOST_LINES} more")
