"""Names, prompts and reasons are only text on a terminal: no markup, no control characters, one line."""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.cli.batch_view import watching_batch
from dream3d.cli.console import UnfailingConsole
from dream3d.cli.display import LogLines, watching
from dream3d.cli.group import EscapingStream, say
from dream3d.errors import Dream3DError, escaped, one_line, shown
from dream3d.run.progress import Progress

EVIL = "a\x1b]0;title\x07 [/foo] [b]x[/b] \x9b31m\u202etxt\u2028y\r\nz :cat: \ud800"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What rich writes for colours and for its displays."""


def assert_harmless(printed: str) -> None:
    """Only text and line breaks."""
    found = [c for c in printed if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c != "\n"]
    assert found == [], printed
    assert not set(printed) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@given(st.text(st.characters(exclude_categories=()), max_size=60), st.integers(20, 100))
def test_any_text_is_one_harmless_line(text: str, limit: int) -> None:
    for line in (escaped(text), one_line(text), str(Dream3DError(text)), one_line(text * 30, limit), shown(text)):
        assert_harmless(line)
        assert len(line.splitlines()) <= 1
    assert len(one_line(text * 30, limit)) <= limit
    plain = "".join(c for c in text if c.isprintable())
    assert escaped(plain) == plain


def test_a_long_error_keeps_its_beginning_and_its_advice() -> None:
    said = str(Dream3DError("the network cannot be built:\n" + "x" * 300_000 + "\n  use another"))
    assert len(said) <= 1000
    assert said.startswith("the network cannot be built: xxx")
    assert said.endswith("xxx use another")


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_every_printer_escapes(text: str) -> None:
    file = io.StringIO()
    console = UnfailingConsole(file=file, width=200)
    table = Table("name")
    table.add_row(text)
    table.add_row(Text(text))
    console.print(text, Text(text), table)
    EscapingStream(file).write(text.replace("\t", ""))
    assert_harmless(file.getvalue())


def test_lines_of_every_command_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    say(Path(EVIL), err=True)
    printed = capsys.readouterr()
    for said in (printed.out, printed.err):
        assert_harmless(said)
        assert said.count("\n") == 1


def test_displays_show_texts_and_obey_none() -> None:
    progress = Progress("prepare", 1, 2, message=EVIL)
    for terminal in (True, False):
        file = io.StringIO()
        console = UnfailingConsole(file=file, force_terminal=terminal, width=200)
        with watching(console, EVIL) as observe:
            observe(progress)
        with watching_batch(console, 2), Live(Text(EVIL), console=console):
            console.print(EVIL)
        said = ANSI.sub("", file.getvalue()).replace("\r", "")
        assert_harmless(said)
        assert "[/foo] [b]x[/b]" in said
        assert ":cat:" in said
    file = io.StringIO()
    LogLines(UnfailingConsole(file=file, width=200), lambda: 0.0).observe(progress)
    assert "[/foo] [b]x[/b]" in file.getvalue()


@pytest.mark.parametrize(
    "args",
    [
        ["resume", EVIL],
        ["generate", "x", "--run-dir", f"/dev/null/{EVIL}"],
        ["generate", "x", "--prior", EVIL],
        ["views", EVIL],
        ["models", "info", EVIL],
        ["models", "convert", EVIL, "x"],
        ["dataset", "info", EVIL],
        ["train", EVIL],
        ["batch", f"{EVIL}.txt", "--out-dir", "x"],
        [EVIL],
        ["generate", f"--{EVIL}"],
        ["generate", "x", "--steps", EVIL],
        ["batch", "list.txt", "--out-dir", EVIL, "--set", f"{EVIL}=1"],
    ],
    ids=lambda args: args[0][:9],
)
def test_what_a_user_types_cannot_control_the_terminal(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("a chair\n")
    for debug in ([], ["--debug"]):
        result = CliRunner().invoke(app, [*debug, *args])
        assert result.exit_code == 2
        assert_harmless(result.output + result.stderr)
        assert bool(debug) or len(result.stderr.splitlines()) == 1


def test_what_libraries_print_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(*_: object) -> None:
        sys.stdout.write(f"{EVIL}\n")
        sys.stderr.write(f"{EVIL}\n")

    monkeypatch.setattr("dream3d.cli.views.checks.check_prompt", noisy)
    before = sys.stdout
    result = CliRunner().invoke(app, ["views", "x"])
    assert r"\x1b]0;title\x07" in result.stdout
    assert_harmless(result.output + result.stderr)
    assert sys.stdout is before
