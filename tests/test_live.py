"""``generate --live``: what the page is told and when, that nobody waits for a browser, and Chromium looking at it."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import browser, needs_chromium
from conftest import FakeEngine
from numpy.typing import NDArray
from small_pictures import small_pictures
from test_optimise import TINY
from tiny_prior import write_tiny_prior
from typer.testing import CliRunner

from dream3d.cli import browser as live
from dream3d.cli.app import app
from dream3d.cli.browser import BrowserView, in_browser
from dream3d.errors import CollapsedFieldError
from dream3d.generate import generate
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.recipe.mesh import MeshRecipe
from dream3d.report.live_server import LINGER_SECONDS, WATCHED_SECONDS, LiveServer, LiveState
from dream3d.run.progress import Progress

REPORT = Progress("optimise", 30, 120, 0.25, (20, 640), 0.125)
GREY = np.full((4, 64, 64, 3), 128, np.uint8)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[LiveServer]:
    with LiveServer("a <b>chair</b>", clock=clock) as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream3d.report.server.open_browser", lambda address: True)


def ask(address: str, path: str = "") -> bytes:
    with urllib.request.urlopen(f"{address}{path}", timeout=20) as answer:
        return bytes(answer.read())


def told(address: str) -> Any:
    return json.loads(ask(address, "state.json"))


def test_the_page_is_told_what_the_run_tells(server: LiveServer, clock: Clock) -> None:
    assert b"<h1>a &lt;b&gt;chair&lt;/b&gt;</h1>" in ask(server.address)
    assert told(server.address)["stage"] == "starting"
    view = BrowserView(server, clock)
    for step in (30, 31):
        clock.now += 0.5
        view.observe(replace(REPORT, step=step, message=f"<note {step}>"))
    state = told(server.address)
    assert (state["stage"], state["step"], state["steps"]) == ("optimise", 31, 120)
    assert state["figures"] == ["step 31/120, 2.0 it/s", "loss 0.25", "timesteps 20-640", "occupancy 12.5%"]
    assert state["messages"] == ["<note 30>", "<note 31>"]
    assert state["loss"].startswith("<svg")
    assert not state["ended"]
    view.observe(REPORT)  # the run has begun again
    assert server.state.loss == ((30, 0.25),)


def test_pictures_come_when_there_are_some(server: LiveServer, clock: Clock) -> None:
    for name in ("field.png", "targets.png", "report.html", "run.json", "field.png/.."):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(server.address, name)
    assert told(server.address)["pictures"] == {"field": 0, "targets": 0}
    view = BrowserView(server, clock)
    view.observe(replace(REPORT, preview=lambda views, size: GREY, targets=GREY[:, :16, :16]))
    assert told(server.address)["pictures"] == {"field": 1, "targets": 1}
    for name in ("field.png?1", "targets.png?1"):
        assert ask(server.address, name).startswith(b"\x89PNG")


def test_the_field_is_drawn_seldom_and_only_for_a_browser(server: LiveServer, clock: Clock) -> None:
    asked = list[tuple[int, int]]()

    def preview(views: int, size: int) -> NDArray[np.uint8]:
        asked.append((views, size))
        clock.now += 0.2
        return GREY

    view = BrowserView(server, clock)

    def work(seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            clock.now += 0.1
            view.observe(replace(REPORT, preview=preview))

    work(20)
    assert asked == []  # nobody has asked
    ask(server.address, "state.json")
    work(3)
    assert asked == [(4, 64)]  # 0.2 s are 5 % of 4 s: the next one waits 3.8 s
    for _ in range(10):
        ask(server.address, "state.json")
        work(1)
    assert len(asked) == 4
    clock.now += WATCHED_SECONDS
    work(20)
    assert len(asked) == 4  # it went away


def test_the_end_waits_for_a_browser_and_not_for_none(server: LiveServer) -> None:
    ended = LiveState("finished", ended=True)
    server.end(ended, None)  # at once: the test would take LINGER_SECONDS otherwise
    assert LINGER_SECONDS >= 10
    ask(server.address, "state.json")
    taken = threading.Thread(target=lambda: server.end(ended, b"<p>report</p>"))
    taken.start()
    taken.join(0.2)
    assert taken.is_alive()
    assert told(server.address)["report"] is True
    assert ask(server.address, "report.html") == b"<p>report</p>"
    taken.join(5)
    assert not taken.is_alive()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CollapsedFieldError("the field is empty"), "The run failed: the field is empty"),
        (ValueError("x"), "The run failed: ValueError"),
        (KeyboardInterrupt(), "The run was stopped; it can be resumed."),
    ],
)
def test_a_run_without_a_report_says_how_it_ended(error: BaseException, words: str, tmp_path: Path) -> None:
    ends = list[LiveState]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LiveServer, "end", lambda self, state, report: ends.append(state))
        with pytest.raises(type(error)), in_browser(tmp_path / "run", "x"):
            raise error
    assert [(state.stage, state.ended) for state in ends] == [(words, True)]


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["generate", "a chair", "--live", *words])


def address_in(output: str) -> str:
    return next(line.split()[1] for line in output.splitlines() if line.startswith("live "))


def test_the_server_ends_with_the_run(engine: FakeEngine) -> None:
    result = invoke()
    assert result.exit_code == 0, result.output
    assert address_in(result.stdout).startswith("http://127.0.0.1:")
    assert "note:" not in result.stderr
    with pytest.raises(urllib.error.URLError):
        ask(address_in(result.stdout))
    engine.failure = CollapsedFieldError("the field is empty")
    result = invoke("--quiet")
    assert result.exit_code == 1
    assert result.stdout == ""
    with pytest.raises(urllib.error.URLError):
        ask(address_in(result.stderr))


def test_no_browser_is_a_note(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream3d.report.server.open_browser", lambda address: False)
    result = invoke()
    assert result.exit_code == 0
    assert "open the address yourself" in result.stderr


def test_a_browser_that_breaks_off_is_no_matter(server: LiveServer, clock: Clock) -> None:
    server.put_picture("field", bytes(10_000_000))
    import socket

    with socket.create_connection(("127.0.0.1", server.server_port)) as one:
        one.sendall(f"GET /field.png HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode())
        one.recv(100)
    assert told(server.address)["ended"] is False


def tiny_run(folder: Path, observer: Callable[[Progress], None]) -> None:
    generate(
        "a red chair",
        prior=DiffusionPrior(write_tiny_prior(folder / "prior")),
        recipe=replace(TINY.with_steps(6), mesh=MeshRecipe(resolution=16, faces=200, texture=64)),
        seed=0,
        device="cpu",
        out=folder / "a.glb",
        run_dir=folder / "run",
        observer=observer,
        checkpoint_seconds=0,
    )


@needs_chromium
@pytest.mark.slow
def test_chromium_watches_a_run_and_then_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(live, "SHARE", 1.0)
    said, drawn = list[str](), list[Any]()
    monkeypatch.setattr(live, "say", lambda line, err=False: said.append(line))
    drawing = "(() => { const c = document.createElement('canvas'); c.width = c.height = 64; "
    drawing += "c.getContext('2d').drawImage(document.getElementById('field'), 0, 0); return c.toDataURL() })()"
    with browser(tmp_path / "profile") as page, small_pictures():
        with in_browser(tmp_path / "run", "a red chair") as shown:
            page.call("Page.navigate", url=address_in(said[0]))
            page.wait_for("document.getElementById('stage').textContent === 'starting'")

            def observe(progress: Progress) -> None:
                shown(progress)
                if progress.preview is not None:
                    page.wait_for(f"document.getElementById('field').dataset.shown >= {len(drawn) + 1}")
                    page.wait_for(f"document.getElementById('bar').value === {progress.step}")
                    drawn.append(page.value(drawing))

            tiny_run(tmp_path, observe)
            assert page.value("document.getElementById('targets').naturalWidth") > 0
            assert page.value("document.querySelectorAll('#loss svg').length") == 1
            assert page.problems == []
        page.wait_for("document.documentElement.dataset.model === 'loaded'")
        assert page.value("document.querySelector('h1').textContent") == "a red chair"
        assert page.problems == []
        assert {address.split("/")[2] for address in page.addresses if address.startswith("http")} == {
            address_in(said[0]).split("/")[2]
        }
    assert len(drawn) == 6
    assert len(set(drawn)) > 3
