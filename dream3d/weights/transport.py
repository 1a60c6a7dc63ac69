"""The HTTP that a download needs: one GET, from an offset, over https, with every failure in two classes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from dream3d.version import __version__
from dream3d.weights.table import is_allowed

if TYPE_CHECKING:
    from requests import Response, Session

CHUNK_BYTES = 2**16
"""What has been received of a chunk is lost when the connection breaks, so chunks are not large."""

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 10
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
def opened(url: str, offset: int, validator: str | None, timeout: float) -> Iterator[Reply]:
    """GET a file from ``offset`` on, if it is still the version of ``validator``.

    The server may answer with the whole file: see :attr:`Reply.start`. ``timeout`` is seconds of silence.
    Raises :class:`Dropped` or :class:`Refused`.
    """
    import requests
    import urllib3

    # identity: a compressed body has other offsets and another length than the file.
    headers = {"User-Agent": f"dream3d/{__version__}", "Accept-Encoding": "identity"}
    if offset and validator:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    try:
        with requests.Session() as session:
            try:
                response = _follow(session, url, headers, timeout)
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
                raise Refused(f"{url}: not an address ({error})") from error
            except requests.ConnectionError as error:  # before the head: told apart from one in the body
                raise NoConnection(f"{url}: {_reason(error)}") from error
            with response:
                yield _reply(url, response)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise Dropped(f"{url}: {_reason(error)}") from error


def _follow(session: Session, url: str, headers: dict[str, str], timeout: float) -> Response:
    """The answer at the end of the redirects; each hop is held to https."""
    here = url
    for _ in range(_MAX_REDIRECTS):
        if not is_allowed(here):
            raise Refused(f"{url}: leads to {here.split('?')[0]}, which is not https")
        response = session.get(here, headers=headers, stream=True, allow_redirects=False, timeout=timeout)
        target = response.headers.get("Location")
        if response.status_code not in _REDIRECTS or not target:
            return response
        response.close()
        here = urljoin(here, target)
    raise Refused(f"{url}: more than {_MAX_REDIRECTS} redirects")


def _reply(url: str, response: Response) -> Reply:
    status, headers = response.status_code, response.headers
    if status == 416:  # the part is longer than the file: only a fresh start helps
        return Reply(-1, None, None, iter(()))
    if status in _TRY_AGAIN:
        raise Dropped(f"{url}: the server answers {status} {response.reason}")
    if status not in (200, 206):
        hint = " (the repository is gone, private, or asks for a login)" if status == 401 else ""
        raise Refused(f"{url}: the server answers {status} {response.reason}{hint}")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise Refused(f"{url}: the server sends {headers['Content-Encoding']} data, which was not asked for")
    start, total = 0, _number(headers.get("Content-Length"))
    if status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if found is None:
            raise Refused(f"{url}: the server's Content-Range is {headers.get('Content-Range')!r}")
        start, total = int(found[1]), int(found[2])
    elif total is None and headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise Refused(f"{url}: the server does not say how long the file is, so a cut could not be noticed")
    return Reply(
        start, total, _validator(headers.get("ETag"), headers.get("Last-Modified")), response.iter_content(CHUNK_BYTES)
    )


def _validator(etag: str | None, modified: str | None) -> str | None:
    """What If-Range may name; a weak ETag may not stand there."""
    if etag:
        return None if etag.startswith("W/") else etag
    return modified


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text) else None


def _reason(error: Exception) -> str:
    """A short cause: the libraries' own texts nest several exceptions."""
    name = type(error).__name__
    if "Timeout" in name:
        return "the server is silent"
    if name in ("ChunkedEncodingError", "IncompleteRead", "ProtocolError"):
        return "the connection broke off"
    if name == "SSLError":
        return "the secure connection cannot be made (certificate?)"
    return f"no connection ({name})"
