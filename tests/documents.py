"""Markdown documents as programs: their blocks, the marks above them, and the shell commands inside.

A mark is an HTML comment directly above a fenced block, which readers do not see:

``<!-- not run: REASON -->``      the commands need a network, a GPU, a cluster; they are only parsed
``<!-- stopped by Ctrl-C -->``    the command is interrupted after its first step
``<!-- file: NAME -->``           the block is the content of a file, which the commands after it may use
``<!-- test-command -->``         for ``.ci/run``
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token

from dream3d.cli.app import app

ROOT = Path(__file__).parent.parent
LANGUAGES = ("sh", "python", "toml", "text")
"""Of fenced blocks; ``text`` is what a program prints, or a layout."""
MARKS = ("not run", "file", "stopped by Ctrl-C", "test-command")
SETUP = ("cd", "git", "mypy", "lint-imports", "python -m pip", "python -m pytest", "python -m venv", "ruff")
"""Commands of setting up and of developing, which no test runs, besides those that :func:`check_setup` knows."""
_COMMENT = re.compile(r"<!--\s*([^:]+?)(?:\s*:\s*(.*?))?\s*-->", re.DOTALL)
_HIDDEN = re.compile(r"^\s*(?:\$ )?(?:dream3d|pip|python) ", re.MULTILINE)
_OPERATORS = re.compile(r"(?:^|\s)(?:&&|\|\||\||;|>|>>)(?:\s|$)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: Path
    line: int
    """Of the opening fence, from 1."""
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.document.name}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block."""
        return [words for line in self._lines() if (words := shlex.split(line, comments=True))]

    def _lines(self) -> list[str]:
        lines = self.text.replace("\\\n", " ").splitlines()
        for line in lines:
            assert not _OPERATORS.search(line.partition(" #")[0]), f"{self.where}: one command a line, not {line!r}"
        return lines


def tokens_of(document: Path) -> list[Token]:
    """The Markdown of a document, parsed."""
    return MarkdownIt("commonmark").enable("table").parse(document.read_text("utf-8"))


def blocks_of(document: Path) -> Iterator[Block]:
    """The blocks of a document, checked: a known language, known marks, no commands in a block of plain text."""
    marks: dict[str, str] = {}
    for token in tokens_of(document):
        line = token.map[0] + 1 if token.map else 0
        where = f"{document.name}:{line}"
        assert token.type != "code_block", f"{where}: an indented block; use ``` and a language"
        if token.type == "html_block":
            marks |= dict(_COMMENT.findall(token.content))
            continue
        if token.type == "fence":
            language = token.info.strip()
            assert language in LANGUAGES, f"{where}: language {language!r}; use one of {', '.join(LANGUAGES)}"
            assert not marks.keys() - set(MARKS), f"{where}: unknown mark {sorted(marks)}"
            hidden = _HIDDEN.search(token.content) if language == "text" else None
            assert not hidden, f"{where}: commands belong into a block of sh"
            yield Block(document, line, language, token.content, marks)
        marks = {}


def inline_commands(document: Path) -> Iterator[list[str]]:
    """Commands of dream3d that the prose names: code spans that begin with "dream3d " and an option or a command."""
    for token in _inline(document):
        if token.type == "code_inline" and re.match(r"dream3d [a-z-]", token.content):
            yield shlex.split(token.content)


def mentioned_files(document: Path) -> Iterator[str]:
    """Python files, and folders of the package, that code spans name: ``mesh/formats/``, ``dream3d/distill.py``."""
    for token in _inline(document):
        if token.type == "code_inline" and re.fullmatch(r"[\w./-]+\.py|(?:[\w-]+/)+", token.content):
            yield token.content


def links_of(document: Path) -> Iterator[str]:
    """Targets of links and images."""
    for token in _inline(document):
        target = token.attrs.get("href") or token.attrs.get("src")
        if target is not None:
            yield str(target)


def anchors_of(document: Path) -> set[str]:
    """Names of the headings as GitHub makes them."""
    tokens = tokens_of(document)
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _inline(document: Path) -> Iterator[Token]:
    for token in tokens_of(document):
        yield from token.children or ()


def parse(words: list[str]) -> None:
    """Parse a command line of dream3d without running it; AssertionError for what it would refuse."""
    problem = refusal(words)
    assert not problem, f"{shlex.join(words)}: {problem}"


def refusal(words: list[str]) -> str:
    """Why a command line of dream3d would be refused before it does anything; empty if it would not be."""
    command: Any = typer.main.get_command(app)
    context: Any = None
    name, rest = "dream3d", words[1:]
    try:
        while True:
            context = command.make_context(name, list(rest), parent=context)
            rest = [*getattr(context, "_protected_args", ()), *context.args]
            if not hasattr(command, "resolve_command") or not rest:
                return ""
            name, command, rest = command.resolve_command(context, rest)
    except Exception as error:
        return str(getattr(error, "message", error)) or repr(error)


def check_setup(words: list[str], where: str) -> None:
    """Check a command that no test runs; AssertionError for an unknown one, extra, script or option of a script."""
    if words[0] == "pip":
        assert words[1] == "install", f"{where}: {words}"
        for word in words[2:]:
            name, bracket, extras = word.rstrip("]").partition("[")
            if bracket:
                assert name in (".", "dream3d"), f"{where}: {word}"
                assert set(extras.split(",")) <= extras_of_setup(), f"{where}: no extra {extras}"
    elif words[0] == "python" and words[1].endswith(".py"):
        script = ROOT / words[1]
        assert script.is_file(), f"{where}: no file {words[1]}"
        source = script.read_text("utf-8")
        unknown = [word for word in words if word.startswith("--") and f'"{word}"' not in source]
        assert not unknown, f"{where}: {words[1]} has no option {unknown}"
    elif words[0] == "." or words[0].endswith(".sh"):
        assert words[0] == "." or (ROOT / words[0]).is_file(), f"{where}: no file {words[0]}"
    else:
        known = words[0] in SETUP or " ".join(words[:3]) in SETUP
        assert known, f"{where}: {shlex.join(words)} is neither run nor marked as not run"


def extras_of_setup() -> set[str]:
    """Names of the optional dependencies."""
    source = (ROOT / "setup.py").read_text("utf-8").partition("extras_require")[2]
    return set(re.findall(r'^\s+"(\w+)": \[', source, re.MULTILINE))
