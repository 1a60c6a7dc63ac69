"""The HTTP that a download needs: one GET, from an offset, over https, with every failure in two classes."""

from __future__ import annotations

import http.client
import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from dream3d.errors import one_line
from dream3d.version import __version__
from dream3d.weights.table import is_allowed

if TYPE_CHECKING:
    from requests import Response, Session

CHUNK_BYTES = 2**16
"""What has been received of a chunk is lost when the connection breaks, so chunks are not large."""

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 10
_MAX_TEXT = 200
"""Characters of an ETag or of a server's reason that are of use; a head may have megabytes of them."""
_SLOWEST = 1024
"""Bytes per second that a server must send on average, or it counts as silent."""
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class Dropped(Exception):
    """The attempt broke off; another one may succeed."""


class NoConnection(Dropped):
    """The server was not even reached."""


class Refused(Exception):
    """This address will not give the file, however often it is asked."""


@dataclass(frozen=True)
class Reply:
    """The head of an answer, and its body still to be read."""

    start: int
    """Offset in the file of the first byte of the body."""
    total: int | None
    """Size of the whole file in bytes, None where the server does not say."""
    validator: str | None
    """Mark of the file's version that a later request can name (strong ETag or date)."""
    chunks: Iterator[bytes]
    """The body; raises :class:`Dropped`."""


@contextmanager
def opened(url: str, offset: int, validator: str | None, timeout: float, limit: int) -> Iterator[Reply]:
    """GET a file from ``offset`` on, if it is still the version of ``validator``.

    The server may answer with the whole file: see :attr:`Reply.start`. ``timeout`` is seconds of silence; ``limit``
    is the most bytes that the file may have. Raises :class:`Dropped` or :class:`Refused`.
    """
    import requests
    import urllib3

    # identity: a compressed body has other offsets and another length than the file.
    headers = {"User-Agent": f"dream3d/{__version__}", "Accept-Encoding": "identity"}
    if offset and validator:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    try:
        with _session(timeout, limit) as session:
            try:
                response = _follow(session, url, headers, timeout)
            except ValueError as error:  # of urllib and requests alike, most often for where a redirect leads
                raise Refused(f"{url}: malformed address or answer ({one_line(str(error), _MAX_TEXT)})") from error
            except requests.ConnectionError as error:  # before the head: told apart from one in the body
                raise NoConnection(f"{url}: {_reason(error)}") from error
            with response:
                yield _reply(url, response)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise Dropped(f"{url}: {_reason(error)}") from error


def _session(timeout: float, limit: int) -> Session:
    """A session whose connections end by themselves: see :class:`_Paced`."""
    import requests

    class Adapter(requests.adapters.HTTPAdapter):
        def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
            pool = super().get_connection_with_tls_context(*args, **kwargs)
            paced = staticmethod(partial(_paced_response, seconds=3 * timeout, most=2 * limit + 2**20))
            pool.ConnectionCls = type("Paced", (type(pool).ConnectionCls,), {"response_class": paced})
            return pool

    session = requests.Session()
    session.mount("https://", Adapter())
    session.mount("http://", Adapter())
    return session


def _paced_response(*args: Any, seconds: float, most: int, **kwargs: Any) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(*args, **kwargs)
    response.fp = io.BufferedReader(_Paced(response.fp.detach(), seconds, most))
    return response


class _Paced(io.RawIOBase):
    """All that a connection sends, head and chunk marks included, ended by TimeoutError if it dawdles or never ends.

    A timeout alone is for one read: a server that sends a byte now and then would hold us for years.
    """

    def __init__(self, raw: io.RawIOBase, seconds: float, most: int) -> None:
        self._raw, self._seconds, self._left = raw, seconds, most
        self._waited, self._came = 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        began = time.monotonic()
        count = self._raw.readinto(buffer)
        self._waited += time.monotonic() - began  # what we do between two reads does not count
        self._came, self._left = self._came + (count or 0), self._left - (count or 0)
        if self._waited > self._seconds:
            if self._came < self._seconds * _SLOWEST:
                raise TimeoutError("too slow")
            self._waited, self._came = 0.0, 0
        if self._left < 0:
            raise TimeoutError("too long")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _follow(session: Session, url: str, headers: dict[str, str], timeout: float) -> Response:
    """The answer at the end of the redirects; each hop is held to https."""
    here = url
    for _ in range(_MAX_REDIRECTS):
        # A server elsewhere has no business with what listens on this machine.
        if not is_allowed(here) or (url.startswith("https:") and not here.startswith("https:")):
            raise Refused(f"{url}: leads to {one_line(here.split('?')[0], _MAX_TEXT)}, which is not https")
        response = session.get(here, headers=headers, stream=True, allow_redirects=False, timeout=timeout)
        target = response.headers.get("Location")
        if response.status_code not in _REDIRECTS or not target:
            return response
        response.close()
        here = urljoin(here, target)
    raise Refused(f"{url}: more than {_MAX_REDIRECTS} redirects")


def _reply(url: str, response: Response) -> Reply:
    status, headers, reason = response.status_code, response.headers, one_line(response.reason or "", _MAX_TEXT)
    if status == 416:  # the part is longer than the file: only a fresh start helps
        return Reply(-1, None, None, iter(()))
    if status in _TRY_AGAIN:
        raise Dropped(f"{url}: the server answers {status} {reason}")
    if status not in (200, 206):
        hint = " (the repository is gone, private, or asks for a login)" if status == 401 else ""
        raise Refused(f"{url}: the server answers {status} {reason}{hint}")
    coding = one_line(headers.get("Content-Encoding", "identity"), _MAX_TEXT)
    if coding != "identity":
        raise Refused(f"{url}: the server sends {coding} data, which was not asked for")
    start, total = 0, _number(headers.get("Content-Length"))
    if status == 206:
        stated = headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", stated)
        if found is None:
            raise Refused(f"{url}: the server's Content-Range is {one_line(stated, _MAX_TEXT)!r}")
        start, total = int(found[1]), int(found[2])
    elif total is None and headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise Refused(f"{url}: the server does not say how long the file is, so a cut could not be noticed")
    return Reply(start, total, _validator(headers.get("ETag"), headers.get("Last-Modified")), _body(url, response))


def _body(url: str, response: Response) -> Iterator[bytes]:
    try:
        yield from response.iter_content(CHUNK_BYTES)
    except ValueError as error:  # what the standard library says of a chunk of negative length
        raise Dropped(f"{url}: malformed answer ({one_line(str(error), _MAX_TEXT)})") from error


def _validator(etag: str | None, modified: str | None) -> str | None:
    """What If-Range may name; a weak ETag may not stand there."""
    mark = etag or modified
    return mark if mark and is_validator(mark) and not mark.startswith("W/") else None


def is_validator(mark: str) -> bool:
    """Whether a mark can be sent back in a header: short, and nothing but printable ASCII."""
    return re.fullmatch(rf"[!-~]([ -~]{{0,{_MAX_TEXT}}}[!-~])?", mark) is not None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text) else None


def _reason(error: Exception) -> str:
    """A short cause: the libraries' own texts nest several exceptions."""
    name = type(error).__name__
    if any("Timeout" in type(one).__name__ for one in (error, *error.args)):
        return "the server is silent or too slow"
    if name in ("ChunkedEncodingError", "IncompleteRead", "ProtocolError"):
        return "the connection broke off"
    if name == "SSLError":
        return "the secure connection cannot be made (certificate?)"
    return f"no connection ({name})"
