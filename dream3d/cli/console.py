"""Consoles that use what the terminal can show, and the formats of durations, sizes and rates."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.segment import Segment

from dream3d.errors import escaped


class UnfailingConsole(Console):
    """A console that falls silent when it cannot be written (a full disk, a closed pipe): the run must not fail.

    All it prints is plain text: names, prompts and reasons are never markup, and cannot control the terminal.
    """

    def __init__(self, **options: Any) -> None:
        """Options are rich's."""
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | options)

    def on_broken_pipe(self) -> None:
        """Print nothing more."""
        self._fall_silent()

    def print(self, *objects: object, **options: Any) -> None:
        """As rich does; what cannot be written is left out, with all that would follow."""
        try:
            super().print(*objects, **options)
        except OSError:
            self._fall_silent()

    def render(self, *args: Any, **options: Any) -> Iterator[Segment]:
        """As rich does; control characters in texts are escaped, so that only rich's own reach the terminal."""
        for segment in super().render(*args, **options):
            yield segment if segment.control else segment._replace(text=escaped(segment.text, keep="\n"))

    def _fall_silent(self) -> None:
        self.quiet = True
        # What stdout still holds would fail again when the process ends, and turn its exit code into 120.
        with contextlib.suppress(OSError):  # a file in memory has no number
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class AsciiConsole(UnfailingConsole):
    """A console that draws boxes and bars in ASCII, for terminals that have nothing else."""

    @property
    def encoding(self) -> str:
        """What rich decides by; the file itself may accept more."""
        return "ascii"


def make_console(*, stderr: bool = False) -> Console:
    """A console on stdout, or stderr, that uses no more than the terminal and the locale offer."""
    # FORCE_COLOR asks for colours in a pipe, not for an animation that fills a log file.
    animate = None if (sys.stderr if stderr else sys.stdout).isatty() else False
    kind = AsciiConsole if _is_c_locale() else UnfailingConsole
    return kind(force_interactive=animate, stderr=stderr)


def _is_c_locale() -> bool:
    """Whether the user asked for the C locale; Python would write UTF-8 there all the same."""
    variables = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    return next((value for value in variables if value), "") in ("C", "POSIX")


def can_draw_images(console: Console) -> bool:
    """Whether half blocks in true colour (or 256 colours) will look like an image."""
    return (
        console.is_interactive
        and not console.no_color
        and not console.options.ascii_only
        and console.color_system in ("truecolor", "256", "windows")
    )


def duration(seconds: float) -> str:
    """Seconds as text: ``3.2 s``, ``4 min 12 s``, ``1 h 05 min``."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(size: int) -> str:
    """Bytes as ``812 MB`` or ``1.4 GB`` (decimal units)."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def rate(steps_per_second: float) -> str:
    """Speed of an optimisation: ``2.9 it/s``, or ``3.1 s/it`` when a step takes longer than a second."""
    return f"{steps_per_second:.1f} it/s" if steps_per_second >= 1 else f"{1 / steps_per_second:.1f} s/it"
