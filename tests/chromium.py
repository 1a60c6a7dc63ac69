"""A headless Chromium without a network, driven over a pipe by its DevTools protocol: nothing else needs installing."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    PROGRAM is None or sys.platform != "linux", reason="Chromium is not installed (Debian: apt-get install chromium)"
)
SECONDS = 120.0
"""For any one answer; the software renderer is slow on a busy machine."""
OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which a container has not the rights for; only our own pages are opened
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # this machine alone
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--no-first-run",
)


MOVE = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The protocol's pipe is at the numbers 3 and 4."""


class FrameChanged(AssertionError):
    """A frame took on another document between two commands about it."""


class Page:
    """A tab. ``problems`` has what the console or an exception complains of, ``addresses`` all that was asked for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._buffer, self._number = to_browser, from_browser, b"", 0
        self._session = ""
        self.problems: list[str] = []
        self.addresses: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self.call("Browser.close")

    def call(self, method: str, **arguments: Any) -> Any:
        """The answer to a command of the protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            for heard in self._heard(until - time.monotonic()):
                if heard.get("id") == self._number:
                    if "Cannot find context" in heard.get("error", {}).get("message", ""):
                        raise FrameChanged(heard["error"])
                    assert "error" not in heard, heard["error"]
                    return heard["result"]
                self._note(heard)
        raise AssertionError(f"Chromium did not answer {method} in {SECONDS:g} s")

    def _heard(self, seconds: float) -> list[dict[str, Any]]:
        if not select.select([self._from], [], [], max(seconds, 0))[0]:
            return []
        piece = os.read(self._from, 1 << 20)
        assert piece, "Chromium has ended"
        *whole, self._buffer = (self._buffer + piece).split(b"\0")
        return [json.loads(one) for one in whole]

    def _note(self, event: dict[str, Any]) -> None:
        method, about = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(about["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            self.problems.append(json.dumps(about["args"])[:500])
        elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.problems.append(about["entry"]["text"][:500])
        elif method == "Network.requestWillBeSent":
            self.addresses.append(about["request"]["url"])

    def open(self, path: Path, *, width: int = 1200, height: int = 900, dark: bool = False, anchor: str = "") -> None:
        """Show a file."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri() + anchor)

    def value(self, expression: str, frame: int | None = None) -> Any:
        """What a JavaScript expression, or the promise that it is, comes to; in the page or one of its frames."""
        where = {}
        if frame is not None:
            inside = self.call("Page.getFrameTree")["frameTree"].get("childFrames", [])
            if len(inside) <= frame:
                return None
            world = self.call("Page.createIsolatedWorld", frameId=inside[frame]["frame"]["id"])
            where = {"contextId": world["executionContextId"]}
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, **where)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, frame: int | None = None) -> None:
        """Until an expression is true; AssertionError, with the page's complaints, if it takes too long."""
        until = time.monotonic() + SECONDS
        while True:
            with suppress(FrameChanged):
                if self.value(
                    f"(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()", frame
                ):
                    return
            assert time.monotonic() < until, f"{expression} did not become true; {self.problems}"
            time.sleep(0.1)

    def screenshot(self, *, whole: bool = False) -> bytes:
        """A PNG of what is seen, or of the whole page."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A tab of a browser of its own, with its settings in an empty folder."""
    assert PROGRAM is not None
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    command = [PROGRAM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        [sys.executable, "-c", MOVE, str(theirs_in), str(theirs_out), *command],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # its processes are ended together
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        page = Page(ours_out, ours_in)
        yield page
        page.close()
        process.wait(SECONDS)  # with its processes, which would go on writing into its folder
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours_out)
        os.close(ours_in)
