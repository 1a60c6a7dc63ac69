"""``dream3d view``: what is served, to whom, and how it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mascot_run import mascot_run
from mesh_assets import axis_object, textured_quad
from small_pictures import small_pictures
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.locks import held
from dream3d.mesh.export import export
from dream3d.report.server import PageServer, open_browser
from dream3d.run.folder import LOCK, RunFolder
from dream3d.run_report import page_of_mesh

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_pictures():
        yield mascot_run(tmp_path_factory.mktemp("finished"), prompt="a <b>mascot</b>")


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer(b"<p>page</p>") as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def ask(server: PageServer, path: str = "/", host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_one_page_and_nothing_else_is_served(server: PageServer) -> None:
    assert server.address == f"http://127.0.0.1:{server.server_port}/"
    assert ask(server) == (200, b"<p>page</p>")
    assert ask(server, method="HEAD") == (200, b"")
    assert ask(server, host=f"localhost:{server.server_port}")[0] == 200
    for path in ("/run.json", "/../run.json", "/?x", "/etc/passwd"):
        assert ask(server, path)[0] == 404
    assert ask(server, method="POST")[0] == 501


def test_a_name_of_the_web_that_leads_here_is_refused(server: PageServer) -> None:
    for host in (f"evil.example:{server.server_port}", "127.0.0.1", f"127.0.0.1.evil.example:{server.server_port}"):
        status, content = ask(server, host=host)
        assert status == 421
        assert b"page" not in content


def test_only_this_machine_is_listened_to(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def served(words: list[str], patch: pytest.MonkeyPatch) -> tuple[int, str, list[bytes]]:
    """Exit code and output of the command, which Ctrl-C ends at once, and the pages it would have served."""
    pages: list[bytes] = []

    def end(self: PageServer, poll_interval: float) -> None:
        pages.append(self.page)
        raise KeyboardInterrupt

    patch.setattr(PageServer, "serve_forever", end)
    result = CliRunner().invoke(app, ["view", *words])
    return result.exit_code, result.output, pages


def test_a_run_at_work_is_shown_and_left_as_it_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def opens(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr("dream3d.report.server.open_browser", opens)
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    with held(run / LOCK, "busy"):
        code, output, (page,) = served([str(run)], monkeypatch)
    (run / LOCK).unlink(missing_ok=True)
    assert code == 0, output
    assert f"view        {opened[0]} (Ctrl-C ends)\nended\n" == output
    assert b"<h1>a &lt;b&gt;mascot&lt;/b&gt;</h1>" in page
    assert b"<model-viewer" in page
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


@pytest.mark.parametrize("extension", [".glb", ".obj", ".ply", ".stl", ".usdz"])
def test_a_mesh_of_every_format_is_shown(extension: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"<i>{extension}"
    asset = textured_quad() if extension in (".glb", ".usdz", ".obj") else axis_object()
    export(asset, path)
    code, output, (page,) = served([str(path), "--no-open", "--quiet"], monkeypatch)
    assert code == 0, output
    assert output.startswith("http://127.0.0.1:")
    assert output.count("\n") == 1
    title = b"a quad" if extension == ".glb" else f"&lt;i&gt;{extension}".encode()
    assert b"<h1>" + title + b"</h1>" in page
    assert page_of_mesh(path).glb is not None


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nothing.glb"], 2, "nothing.glb does not exist"),
        (["text"], 2, "use one of .glb"),
        (["."], 2, "holds no run"),
        (["text.glb"], 1, "not a GLB"),
        (["text.usdz"], 1, "is not a mesh"),
        ([".", "--port", "65536"], 2, "--port is 0 to 65535, got 65536"),
        ([".", "--port", "-1"], 2, "--port is 0 to 65535, got -1"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    words: list[str], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("text", "text.glb", "text.usdz"):
        (tmp_path / name).write_text("text")
    result = CliRunner().invoke(app, ["view", *words])
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_said(run: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = CliRunner().invoke(app, ["view", str(run), "--port", str(port), "--no-open"])
    assert result.exit_code == 2
    assert f"port {port} cannot be used" in result.stderr


def test_a_browser_in_the_terminal_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    class Window(webbrowser.BaseBrowser):
        def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
            opened.append(url)
            return True

    def none() -> Any:
        raise webbrowser.Error

    for browser, found in ((lambda: webbrowser.GenericBrowser("false"), False), (Window, True), (none, False)):
        monkeypatch.setattr(webbrowser, "get", browser)
        assert open_browser("http://127.0.0.1:1/") is found
    assert opened == ["http://127.0.0.1:1/"]


def test_seeing_a_run_neither_locks_nor_writes(run: Path) -> None:
    before = sorted(path.name for path in run.iterdir())
    assert RunFolder.seen(run).facts["status"] == "finished"
    assert sorted(path.name for path in run.iterdir()) == before


def test_ctrl_c_ends_a_real_process_with_0(run: Path) -> None:
    # A shell's background jobs ignore Ctrl-C, and so would their children here.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [sys.executable, "-c", heard + "from dream3d.cli.app import main; main()"]
    started = subprocess.Popen(
        [*command, "view", str(run), "--no-open"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        assert started.stdout is not None
        address = started.stdout.readline().split()[1]
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert b"<model-viewer" in answer.read()
        started.send_signal(signal.SIGINT)
        output, errors = started.communicate(timeout=20)
    assert (started.returncode, output, errors) == (0, "ended\n", "")
