"""How the command line shows help and errors: sections without rich; one line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from dream3d.cli.open_ended import spelled_out
from dream3d.errors import Dream3DError, UsageError, escaped, one_line, shown

if TYPE_CHECKING:
    from dream3d.prior.diffusion import DiffusionPrior
    from dream3d.prior.vocabulary import Unfamiliar

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
INTERRUPTED = 130
"""What shells give for a process that Ctrl-C ended (128 + SIGINT)."""


def say(line: object, err: bool = False) -> None:
    """Print a line, on stderr if ``err``; what names and texts of users could do to a terminal is escaped."""
    typer.echo(escaped(line), err=err)


def warn_unfamiliar(prior: DiffusionPrior, prompt: str) -> Unfamiliar | None:
    """Say on stderr what of a prompt the prior was never taught; returns it."""
    unfamiliar = prior.unfamiliar(prompt)
    if unfamiliar is not None:
        say(f"warning: {unfamiliar.warning(prior.name)}", err=True)
    return unfamiliar


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
        extra = super().parse_args(ctx, spelled_out(args))
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
        with _prepared_streams():
            code = self._run(*args, **options)
        sys.exit(code if isinstance(code, int) else 0)

    def _run(self, *args: Any, **options: Any) -> Any:
        """The exit code, after one line about an error."""
        state = options.setdefault("obj", {})
        try:
            code = super().main(*args, **options)
        except (Exception, KeyboardInterrupt) as error:
            if state.get("debug"):
                traceback.print_exception(error)
            code, line = _explain(error)
            say(line, err=True)
        else:
            if code == INTERRUPTED:  # typer turns Ctrl-C into this number before we can see it
                say("interrupted", err=True)
        return code

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
            _, command, _ = found = super().resolve_command(ctx, args)
            hints = get_type_hints(getattr(command, "callback", None) or say)
            for param in command.params if command else ():
                if {int, float} & {hints.get(param.name), *get_args(hints.get(param.name))}:
                    _without_blanks(param)
            return found
        near = [known for known in self.commands if known.startswith(name)] or get_close_matches(name, self.commands)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"see '{ctx.command_path} --help'"
        raise UsageError(f"no such command: {name!r}; {hint}")


def _without_blanks(param: Any) -> None:
    """Let a parameter take numbers only as people write them, not with Python's blanks and underscores."""
    process = param.process_value

    def processed(ctx: Any, value: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(r"[A-Za-z0-9.+-]+", value):
            raise typer.BadParameter(f"{shown(value)} is not a number.", ctx=ctx, param=param)
        return process(ctx, value)

    param.process_value = processed


def command_group(text: str, kind: type[OneLineGroup] = OneLineGroup) -> typer.Typer:
    """A group of commands whose help begins with ``text``; without a command it shows its help."""

    def show_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    options: dict[str, Any] = {"invoke_without_command": True, "rich_markup_mode": None}
    return typer.Typer(cls=kind, callback=show_help, help=text, pretty_exceptions_enable=False, **options)


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
        return error.exit_code, f"error: {error}"
    # Typer's own usage errors. Their base class moved when typer took click in, so it is not named.
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        hint = f"; see '{context.command_path} --help'" if context else ""
        what = one_line(error.format_message()).rstrip(".").replace("Value error, ", "")  # pydantic's words
        return getattr(error, "exit_code", 1), f"error: {what}{hint}"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = f" ({error.filename})" if error.filename else ""
        return 1, f"error: {error.strerror}{where}; make room and run it again"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return 2, f"error: the path {shown(str(error.filename))} has a name that is too long"
    what = one_line(str(error))
    return 1, f"error: {type(error).__name__}{': ' if what else ''}{what} (run again with --debug for the traceback)"


class EscapingStream:
    """Stdout or stderr for all that is not ours: libraries, warnings, tracebacks. See :func:`dream3d.errors.escaped`.

    Rich finds ``rich_proxied_file`` and writes its colours there; :mod:`dream3d.cli.console` escapes what is in them.
    """

    def __init__(self, file: Any) -> None:
        self.rich_proxied_file = file

    def write(self, text: str) -> int:
        """As text files do, so TypeError for bytes; line breaks and tabs stay."""
        return int(self.rich_proxied_file.write(escaped("" + text, keep="\n\t")))

    def __getattr__(self, name: str) -> Any:
        """All else is the file's."""
        return getattr(self.rich_proxied_file, name)


@contextmanager
def _prepared_streams() -> Iterator[None]:
    """Output to a closed stream (``>&-``) goes nowhere; what a terminal cannot show is escaped. Neither fails."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process
    if getattr(sys.stdout, "errors", None) == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with redirect_stdout(EscapingStream(sys.stdout)), redirect_stderr(EscapingStream(sys.stderr)):
        yield
