"""How the command line shows help and errors: sections without rich; one line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from dream3d.errors import Dream3DError, UsageError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
INTERRUPTED = 130
"""What shells give for a process that Ctrl-C ended (128 + SIGINT)."""


def _remember_debug(context: typer.Context, value: bool) -> bool:
    if value:
        context.ensure_object(dict)["debug"] = True
    return value


DebugOption = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", callback=_remember_debug, is_eager=True)
]
"""``--debug``, understood before and after the command's name."""


class SectionedCommand(TyperCommand):
    """A command whose help has one section per ``rich_help_panel``, which typer offers only with rich (0.1 s)."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and options by section, in the order of their first appearance."""
        _write_sections(formatter, [(param, param.get_help_record(ctx)) for param in self.get_params(ctx)])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does; further words after a prompt raise UsageError that shows the prompt in quotes."""
        ctx.allow_extra_args = any(param.name == "prompt" for param in self.params)
        extra = super().parse_args(ctx, args)
        if extra and not ctx.resilient_parsing:
            prompt = shlex.quote(" ".join([ctx.params["prompt"], *extra]))
            raise UsageError(f"the prompt must be one argument; put it in quotes: {ctx.command_path} {prompt}")
        return extra


class OneLineGroup(TyperGroup):
    """A command group that turns every exception into one line on stderr and an exit code.

    2: the request is wrong (nothing was written). 1: the work failed. 130: interrupted.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs the command line and leaves by SystemExit, unless ``standalone_mode`` is off."""
        standalone, options["standalone_mode"] = options.get("standalone_mode", True), False
        if not standalone:
            return super().main(*args, **options)
        _prepare_streams()
        state = options.setdefault("obj", {})
        try:
            code = super().main(*args, **options)
        except (Exception, KeyboardInterrupt) as error:
            if state.get("debug"):
                traceback.print_exception(error)
            code, line = _explain(error)
            typer.echo(line, err=True)
        else:
            if code == INTERRUPTED:  # typer turns Ctrl-C into this number before we can see it
                typer.echo("interrupted", err=True)
        sys.exit(code if isinstance(code, int) else 0)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The commands by section, each with its whole first sentence; typer cuts sentences to one line."""
        rows = [(command, (name, command.get_short_help_str(999))) for name, command in self.commands.items()]
        _write_sections(formatter, rows)

    def get_params(self, ctx: Any) -> Any:
        """As typer does; a flag whose default is None would make it import pydantic before every command (0.15 s)."""
        params = super().get_params(ctx)
        for param in params:
            if getattr(param, "is_flag", False) and param.default is None:
                param.default = False
        return params

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer does; an unknown command raises UsageError with the commands that come nearest."""
        name = args[0]
        if name in self.commands or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        near = [known for known in self.commands if known.startswith(name)] or get_close_matches(name, self.commands)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"see '{ctx.command_path} --help'"
        raise UsageError(f"no such command: {name!r}; {hint}")


def command_group(text: str) -> typer.Typer:
    """A group of commands whose help begins with ``text``; without a command it shows its help."""

    def show_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    options: dict[str, Any] = {"invoke_without_command": True, "rich_markup_mode": None}
    return typer.Typer(cls=OneLineGroup, callback=show_help, help=text, pretty_exceptions_enable=False, **options)


def _write_sections(formatter: Any, rows: Iterable[tuple[Any, Any]]) -> None:
    """One section per ``rich_help_panel`` of the (parameter or command, row of its help) pairs."""
    sections: dict[str, list[Any]] = {}
    for item, row in rows:
        if row is not None:  # a hidden option
            title = item.rich_help_panel or f"{getattr(item, 'param_type_name', 'command')}s".capitalize()
            sections.setdefault(title, []).append(row)
    for title, section in sections.items():
        with formatter.section(title):
            formatter.write_dl(section)


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
        what = _one_line(error.format_message()).rstrip(".").replace("Value error, ", "")  # pydantic's words
        return getattr(error, "exit_code", 1), f"error: {what}{hint}"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = f" ({error.filename})" if error.filename else ""
        return 1, f"error: {error.strerror}{where}; make room and run it again"
    what = _one_line(str(error))
    return 1, f"error: {type(error).__name__}{': ' if what else ''}{what} (run again with --debug for the traceback)"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _prepare_streams() -> None:
    """Output to a closed stream (``>&-``) goes nowhere; what a terminal cannot encode is escaped. Neither fails."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process
    if getattr(sys.stdout, "errors", None) == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
