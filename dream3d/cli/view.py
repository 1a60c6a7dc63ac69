"""``dream3d view``: a run or a mesh in the browser, from a server of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dream3d.cli import options
from dream3d.cli.group import DebugOption, say
from dream3d.errors import UsageError

PortOption = Annotated[int, typer.Option(help="Port of the server; 0: any that is free.")]
NoOpenOption = Annotated[bool, typer.Option("--no-open", help="Do not open a browser; print the address alone.")]


def view(
    what: Annotated[Path, typer.Argument(help="Folder of a run, or a mesh made by dream3d.", metavar="RUN|MESH")],
    port: PortOption = 0,
    no_open: NoOpenOption = False,
    quiet: options.QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a run or a mesh in the browser, to be turned; Ctrl-C ends. Nothing is written.

    Example: dream3d view runs/a-wooden-chair-0
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port is 0 to 65535, got {port}")
    page = _page(what).encode()

    from dream3d.report.server import PageServer, open_browser

    try:
        server = PageServer(page, port)
    except OSError as error:
        raise UsageError(f"port {port} cannot be used ({error.strerror}); choose another --port, or none") from error
    with server:
        say(server.address if quiet else f"view        {server.address} (Ctrl-C ends)")
        if not no_open and not open_browser(server.address) and not quiet:
            say("note: no browser with a window was found; open the address yourself", err=True)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:  # the way to end it, not an accident
            if not quiet:
                say("ended")


def _page(what: Path) -> str:
    """The page of a run, which may still be at work, or of a mesh file. UsageError if it is neither."""
    if not os.path.exists(what):  # Path.exists raises for a name that is too long
        raise UsageError(f"{what} does not exist; give the folder of a run, or a mesh")

    from dream3d.run.folder import RunFolder
    from dream3d.run_report import page_of, page_of_mesh

    try:
        if what.is_dir():
            run = RunFolder.seen(what)
            return page_of(run, run.facts).html()
        return page_of_mesh(what).html()
    except OSError as error:
        raise UsageError(f"{what} cannot be read ({error.strerror or error})") from error
