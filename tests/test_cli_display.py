"""The live display and what is left of it where there is no terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from conftest import FakeEngine
from numpy.typing import NDArray
from rich.console import Console
from typer.testing import CliRunner

from dream3d.batch.work import JobProgress, Result
from dream3d.cli.app import app
from dream3d.cli.batch_view import watching_batch
from dream3d.cli.console import AsciiConsole, UnfailingConsole, can_draw_images, duration, make_console, memory, rate
from dream3d.cli.display import LogLines, watching
from dream3d.cli.half_blocks import UPPER_HALF, area_downsample, half_blocks
from dream3d.cli.live import LiveView
from dream3d.cli.pace import Pace
from dream3d.run.progress import Progress

PIXELS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], dtype=np.uint8)
REPORT = Progress("optimise", 30, 120, 0.1234, (20, 640), 0.125, preview=lambda views, size: PIXELS[None])


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "LC_ALL", "LC_CTYPE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Screen:
    """What a terminal of a given size received."""

    def __init__(self, width: int, height: int = 40, kind: type[Console] = Console, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        file = io.TextIOWrapper(self.bytes, encoding=encoding, write_through=True)
        self.console = kind(file=file, force_terminal=True, width=width, height=height, highlight=False)

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode()

    @property
    def lines(self) -> list[str]:
        """Every line ever drawn, without its colours."""
        return re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", self.text).replace("\r", "\n").splitlines()


def shown(screen: Screen, report: Progress = REPORT, title: str = "an elk skull") -> str:
    view = LiveView(screen.console, title, Clock())
    view.observe(report)
    with screen.console.capture() as capture:
        screen.console.print(view.render())
    return re.sub(r"\x1b\[[\d;]*m", "", capture.get())


def test_two_pixels_share_a_cell() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=20)
    console.print(half_blocks(PIXELS), end="")
    expected = "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m\x1b[38;2;0;255;0;48;2;9;9;9m▀\x1b[0m"
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == expected


def test_an_odd_row_has_no_lower_half() -> None:
    text = half_blocks(np.zeros((3, 2, 3), dtype=np.uint8))
    assert text.plain == "▀▀\n▀▀"
    assert text.spans[-1].style.bgcolor is None  # type: ignore[union-attr]


def test_downsampling_is_the_mean_over_areas() -> None:
    image: NDArray[np.uint8] = np.arange(3 * 3 * 3, dtype=np.uint8).reshape(3, 3, 3) * 9
    small = area_downsample(image, 1, 1)
    assert small[0, 0].tolist() == np.rint(image.reshape(-1, 3).mean(0)).tolist()
    # A row of 0, 100, 200 in two pixels: the middle one is shared, (0 + 50) / 1.5 and (50 + 200) / 1.5.
    row = np.repeat(np.array([[[0], [100], [200]]], dtype=np.uint8), 3, axis=2)
    assert area_downsample(row, 1, 2)[0, :, 0].tolist() == [33, 167]
    assert np.array_equal(area_downsample(image, 3, 3), image)
    assert np.array_equal(area_downsample(PIXELS, 4, 4)[::2, ::2], PIXELS)


@pytest.mark.parametrize("width", [100, 40])
def test_the_display_fits_and_says_it_all(width: int) -> None:
    screen = Screen(width)
    text = shown(screen, title="an elk skull with antlers that are very long indeed, on a table")
    assert all(len(line) <= width for line in text.splitlines())
    for words in ("an elk skull with", "optimise (2 of 5)", "step 30/120", "loss 0.1234", "timesteps 20-640"):
        assert words in text
    assert "occupancy 12.5%" in text
    assert text.count(UPPER_HALF) == 24 * 12


def test_a_wide_terminal_shows_what_the_prior_drew_beside_the_object() -> None:
    report = replace(REPORT, targets=np.zeros((4, 64, 64, 3), dtype=np.uint8))
    text = shown(Screen(100), report)
    assert text.count(UPPER_HALF) == 2 * 24 * 12
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "step 30/120" in text
    assert shown(Screen(80), report).count(UPPER_HALF) == 24 * 12


def test_a_short_terminal_has_no_room_for_an_image() -> None:
    assert UPPER_HALF not in shown(Screen(40, height=15))
    assert UPPER_HALF not in shown(Screen(100, height=10))
    assert "step 30/120" in shown(Screen(20, height=40))


def test_no_color_has_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen(100)
    assert UPPER_HALF not in shown(screen)
    assert "step 30/120" in shown(screen)


@pytest.mark.parametrize("screen", [Screen(100, encoding="ascii"), Screen(100, kind=AsciiConsole)], ids=["bytes", "C"])
def test_without_unicode_the_display_is_ascii(screen: Screen) -> None:
    assert not can_draw_images(screen.console)
    with watching(screen.console, "an elk skull") as observer:
        observer(REPORT)
    assert screen.text.isascii()
    assert "an elk skull" in screen.text


def test_few_colours_make_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLORTERM")
    assert not can_draw_images(Screen(100).console)


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Screen(100)
    with watching(screen.console, "x") as observer:
        observer(REPORT)
    assert "\x1b" not in screen.text
    assert "optimise" in screen.text


def test_the_c_locale_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(make_console(), AsciiConsole)
    monkeypatch.setenv("LC_ALL", "C")
    assert isinstance(make_console(), AsciiConsole)


def test_forced_colour_does_not_animate_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not make_console().is_interactive


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_the_terminal_is_restored_after_a_failure(failure: type[BaseException]) -> None:
    screen = Screen(100)

    def fail() -> None:
        with watching(screen.console, "x") as observer:
            observer(replace(REPORT, message="a fallback was taken"))
            raise failure

    with pytest.raises(failure):
        fail()
    assert screen.text.rfind("\x1b[?25h") > screen.text.rfind("\x1b[?25l") >= 0  # the cursor is back
    assert "optimise: a fallback was taken" in screen.lines
    assert not any(line.strip() == "done" for line in screen.lines)


def test_a_finished_display_says_done() -> None:
    screen = Screen(60)
    with watching(screen.console, "x") as observer:
        observer(Progress("prepare", 0, 1))
        observer(Progress("pictures", 1, 1))
    assert any(line.strip() == "done" for line in screen.lines)


def test_images_are_rendered_seldom() -> None:
    clock, asked = Clock(), [0]

    def preview(views: int, size: int) -> NDArray[np.uint8]:
        asked[0] += 1
        clock.now += 0.5
        return PIXELS[None]

    view = LiveView(Screen(100).console, "x", clock)
    for step in range(100):
        clock.now += 0.1
        view.observe(replace(REPORT, step=step, preview=preview))
    assert asked[0] == 5  # 0.1 s per step, and 0.5 s + 2 s from one image to the next


def lines_of(reports: Iterator[Progress], clock: Clock, seconds: float) -> list[str]:
    file = io.StringIO()
    log = LogLines(UnfailingConsole(file=file, width=40), clock)
    for report in reports:
        log.observe(report)
        clock.now += seconds
    return file.getvalue().splitlines()


def test_a_log_has_a_line_every_tenth() -> None:
    reports = (replace(REPORT, step=step, steps=1000, message=None) for step in range(1001))
    lines = lines_of(reports, Clock(), 0.5)
    assert len(lines) == 11
    assert lines[0] == "       [0.0 s] optimise"
    assert lines[1] == (
        "        [50 s] optimise: step 100/1000, 2.0 it/s, loss 0.1234, timesteps 20-640, occupancy 12.5%, "
        "ETA 7 min 30 s"
    )
    assert lines[-1].endswith("occupancy 12.5%")


def test_a_log_names_stages_and_messages() -> None:
    reports = [Progress("prepare", 0, 1), Progress("prepare", 1, 1, message="[b] kept"), Progress("extract", 0, 1)]
    lines = lines_of(iter(reports), Clock(), 1.0)
    assert [line.split("] ", 1)[1] for line in lines] == ["prepare", "prepare: [b] kept", "extract"]


def test_a_run_in_a_pipe_has_no_escape_codes(engine: FakeEngine) -> None:
    result = CliRunner().invoke(app, ["generate", "a chair"])
    assert "\x1b" not in result.stdout
    assert "optimise: step 10/20" in result.stdout
    assert "prepare: a fallback was taken" in result.stdout


def test_pace_follows_the_last_half_minute() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert (pace.steps_per_second, pace.eta_seconds) == (None, None)
    for step in range(101):
        pace.add(Progress("optimise", step, 1000))
        clock.now += 1.0
    assert pace.steps_per_second == pytest.approx(1.0)
    assert pace.eta_seconds == pytest.approx(900.0)
    for step in range(101, 201):  # now twice as fast
        pace.add(Progress("optimise", step, 1000))
        clock.now += 0.5
    assert pace.steps_per_second == pytest.approx(2.0)
    pace.add(Progress("extract", 0, 1))
    assert pace.steps_per_second is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (3.21, "3.2 s"), (9.96, "10 s"), (59.7, "1 min 0 s"), (252, "4 min 12 s"), (3900, "1 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_and_rates() -> None:
    assert (memory(1_400_000_000), memory(812_000_000)) == ("1.4 GB", "812 MB")
    assert (rate(2.94), rate(0.5)) == ("2.9 it/s", "2.0 s/it")


def test_a_batch_in_a_terminal_shows_what_is_being_made() -> None:
    screen = Screen(100)
    with watching_batch(screen.console, 2) as view:
        view.working(JobProgress("a-dog-0-1", "optimise", 3, 9))
        view.working(JobProgress("a-cat-0-2", "extract", 0, 1))
        view.ended(Result("a-dog-0-1", "", 61.0))
        view.ended(Result("a-cat-0-2", "the field is empty [1]"))
    for words in (
        "a-dog-0-1: optimise",
        "3/9",
        "a-cat-0-2: extract",
        "[2/2] a-cat-0-2: failed: the field is empty [1]",
    ):
        assert words in screen.text.replace("\x1b[0m", "").replace("\x1b[32m", ""), words
    assert any("a-dog-0-1: made in 1 min 1 s" in line for line in screen.lines)


def test_a_batch_in_a_log_is_a_line_for_each_asset() -> None:
    file = io.StringIO()
    with watching_batch(UnfailingConsole(file=file, width=40), 2) as view:
        view.working(JobProgress("a", "optimise", 3, 9))
        view.ended(Result("a", "", 2.0))
        view.ended(Result("b", "no"))
    first, second = file.getvalue().splitlines()
    assert re.fullmatch(r"\[1/2, .* left\] a: made in 2\.0 s", first)
    assert second == "[2/2] b: failed: no"
