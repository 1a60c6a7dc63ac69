"""``dream3d report``: pages of runs, with the model to turn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dream3d.cli import options
from dream3d.cli.group import DebugOption, say
from dream3d.errors import Dream3DError


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", metavar="RUN...")],
    quiet: options.QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the page of each run, report.html in its folder: the model to turn, its views, how it came about.

    Example: dream3d report runs/a-wooden-chair-0
    """
    from dream3d.run.folder import RunFolder, read_run
    from dream3d.run_report import write_report

    for path in runs:
        read_run(path)  # all are looked at before the first is written
    for path in runs:
        with RunFolder.reopen(path) as run:
            try:
                page = write_report(run, run.facts)
            except OSError as error:
                raise Dream3DError(f"cannot write into {path}: {error.strerror}; make it writable") from error
        say(page if quiet else f"report      {page}")
