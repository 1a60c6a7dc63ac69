"""Options of pictures that an asset is to look like."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dream3d.cli.group import say
from dream3d.retrieval.gathering import Gathered

picture_option = partial(typer.Option, rich_help_panel="Pictures")

RetrieveOption = Annotated[
    str | None,
    picture_option(
        "--retrieve",
        help="Draw by pictures of the prompt: from a corpus, or from the built-in one.",
        metavar="[CORPUS]",
        show_default="off",
    ),
]
ImagesOption = Annotated[
    list[Path] | None,
    picture_option("--images", help="Draw by these pictures.", metavar="FILE...", show_default="none"),
]
CountOption = Annotated[int, picture_option("--retrieve-count", help="Pictures of the corpus, at most.")]
FusionOption = Annotated[str, picture_option("--fusion", help="How far to trust the text: auto, or 0 to 1.")]

FusionEncoderOption = Annotated[
    Path | None,
    picture_option(
        "--fusion-encoder",
        help="Folder of DINOv2, to measure by how far to trust the text.",
        show_default="the adapter's encoder",
    ),
]


def tell_of(gathered: Gathered) -> None:
    """Say it, on stderr."""
    for line in gathered.lines:
        say(line, err=True)
