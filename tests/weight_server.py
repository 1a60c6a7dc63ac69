"""A web server on this machine that misbehaves as told, for downloads."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How the server treats one path."""

    body: bytes = b""
    status: int = 200
    etag: str | None = '"v1"'
    ranges: bool = True
    heeds_if_range: bool = True
    cuts: list[int | None] = field(default_factory=list)
    """For each request in turn: close after this many bytes of the body, or None; the last one stays."""
    location: str | None = None
    length: bool = True
    chunked: bool = False
    encoding: str | None = None
    span: int | None = None
    """Most bytes of an answer to a Range request."""
    wait: threading.Event | None = None
    """Nothing is answered before this."""
    hold: threading.Event | None = None
    """After the body the connection stays open until this."""
    raw: Callable[[], Iterable[bytes]] | None = None
    """All that is sent, head included, in place of anything above; as long as somebody listens."""
    pause: float = 0.0
    """Seconds between two pieces of it."""


@dataclass
class WeightServer:
    """Paths, their behaviour, and what was asked."""

    base: str
    files: dict[str, Behaviour] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Range header) of each request, in order."""

    def url(self, path: str) -> str:
        return f"{self.base}/{path}"

    def put(self, path: str, body: bytes, **behaviour: object) -> Behaviour:
        made = Behaviour(body, **behaviour)  # type: ignore[arg-type]
        self.files[f"/{path}"] = made
        return made

    def ranges_of(self, path: str) -> list[str | None]:
        return [asked for name, asked in self.requests if name == f"/{path}"]


@contextmanager
def serving() -> Iterator[WeightServer]:
    """A server on a free port of 127.0.0.1 for as long as the context is open."""

    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            state.requests.append((self.path, self.headers.get("Range")))
            file = state.files.get(self.path, Behaviour(b"no such file", 404))
            self.close_connection = True
            if file.wait is not None:
                file.wait.wait(10)
            if file.raw is not None:
                with contextlib.suppress(ConnectionError):
                    for piece in file.raw():
                        self.wfile.write(piece)
                        if closing.wait(file.pause):
                            return
                return
            start = self._start(file)
            self.send_response(206 if start else file.status)
            self.send_header("Connection", "close")
            if file.location:
                self.send_header("Location", file.location)
            body = file.body[start : start + file.span if start and file.span else None]
            if start:
                self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(file.body)}")
            if file.encoding:
                self.send_header("Content-Encoding", file.encoding)
            if file.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif file.length:
                self.send_header("Content-Length", str(len(body)))
            if file.etag:
                self.send_header("ETag", file.etag)
            self.end_headers()
            if file.cuts:
                body = body[: file.cuts.pop(0) if len(file.cuts) > 1 else file.cuts[0]]
            if file.chunked:
                body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            self.wfile.write(body)
            if file.hold is not None:
                self.wfile.flush()
                file.hold.wait(10)

        def _start(self, file: Behaviour) -> int:
            asked = self.headers.get("Range")
            if asked is None or not file.ranges or file.status != 200:
                return 0
            if file.heeds_if_range and self.headers.get("If-Range") != file.etag:
                return 0
            return int(asked.removeprefix("bytes=").removesuffix("-"))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state = WeightServer(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            closing.set()
            server.shutdown()
            thread.join()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
