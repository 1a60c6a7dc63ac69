"""How the command line fails: one line on stderr and an exit code, and a traceback only with ``--debug``."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dream3d.errors import Dream3DError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
INTERRUPTED = 130
"""What shells give for a process that Ctrl-C ended (128 + SIGINT)."""


def _remember_debug(context: typer.Context, value: bool) -> bool:
    if value:
        context.ensure_object(dict)["debug"] = True
    return value


DebugOption = Annotated[
    bool,
    typer.Option("--debug", help="Show the whole traceback of an error.", callback=_remember_debug, is_eager=True),
]
"""``--debug``, understood before and after the command's name."""


class OneLineGroup(TyperGroup):
    """A command group that turns every exception into one line on stderr and an exit code.

    2: the request is wrong (nothing was written). 1: the work failed. 130: interrupted.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the command line and leaves by SystemExit, unless ``standalone_mode`` is off."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        _open_closed_streams()
        _never_fail_on_a_character()
        state = extra.setdefault("obj", {})
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except (Exception, KeyboardInterrupt) as error:
            if state.get("debug"):
                traceback.print_exception(error)
            code, line = _explain(error)
            typer.echo(line, err=True)
        else:
            if code == INTERRUPTED:  # typer turns Ctrl-C into this number before we can see it
                typer.echo("interrupted", err=True)
        sys.exit(code if isinstance(code, int) else 0)


def _explain(error: BaseException) -> tuple[int, str]:
    """The exit code of an exception and the line that the user reads."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, typer.Abort):
        return 1, "aborted"
    if isinstance(error, Dream3DError):
        return error.exit_code, f"error: {_one_line(str(error))}"
    # Typer's own usage errors. Their base class moved when typer took click in, so it is not named.
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        hint = f"; see '{context.command_path} --help'" if context else ""
        return getattr(error, "exit_code", 1), f"error: {_one_line(error.format_message()).rstrip('.')}{hint}"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = f" ({error.filename})" if error.filename else ""
        return 1, f"error: {error.strerror}{where}; make room and run it again"
    what = _one_line(str(error))
    return 1, f"error: {type(error).__name__}{': ' if what else ''}{what} (run again with --debug for the traceback)"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _open_closed_streams() -> None:
    """Python has None for a stream that was closed before the start (``>&-``); what is printed there goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process


def _never_fail_on_a_character() -> None:
    """A terminal that cannot show a character gets an escape for it instead of a UnicodeEncodeError."""
    if getattr(sys.stdout, "errors", None) == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
