"""One page, served to the browsers of this machine and to nobody else."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """What a request gets."""

    kind: str
    """Its MIME type."""
    content: bytes


class PageServer(ThreadingHTTPServer):
    """Serves one page at ``/``; anything else is not there. A request that names another host is refused.

    The latter keeps out pages of the web whose names were made to lead here (DNS rebinding). Raises OSError for a
    port that is taken.
    """

    daemon_threads = True

    def __init__(self, page: bytes, port: int = 0) -> None:
        """``port`` 0: any that is free."""
        self.page = page
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"

    def answer(self, path: str) -> Answer | None:
        """What is at a path, if anything."""
        return Answer("text/html; charset=utf-8", self.page) if path == "/" else None

    def answered(self, path: str) -> None:
        """A browser has taken what is at a path."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no matter."""


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "dream3d", ""
    timeout = 30
    names: ClassVar[tuple[str, ...]] = (HOST, "localhost")

    def do_GET(self) -> None:
        self._answer(with_page=True)

    def do_HEAD(self) -> None:
        self._answer(with_page=False)

    def _answer(self, *, with_page: bool) -> None:
        if self.headers.get("Host") not in {f"{name}:{self.server.server_port}" for name in self.names}:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        answer = self.server.answer(self.path)
        if answer is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        for name, value in (
            ("Content-Type", answer.kind),
            ("Content-Length", str(len(answer.content))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if with_page:
            self.wfile.write(answer.content)
            self.server.answered(self.path)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody wants to read of every request."""


def open_browser(address: str) -> bool:
    """Open an address in a browser with a window; False if there is none. One in the terminal would take it over."""
    try:
        browser = webbrowser.get()
        return type(browser) is not webbrowser.GenericBrowser and browser.open(address)
    except (webbrowser.Error, OSError):
        return False
