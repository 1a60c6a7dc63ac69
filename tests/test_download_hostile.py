"""Downloads from servers that lie, dawdle or never end: refused in one line, in time, and nothing else is touched."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from downloads import BODY, names, refuse, wanted
from hypothesis import given, settings
from hypothesis import strategies as st
from weight_server import WeightServer, serving, sha256

from dream3d.errors import DownloadError
from dream3d.weights import transport
from dream3d.weights.download import DownloadSpec, RetryPolicy, download_file

IMPATIENT = RetryPolicy(attempts=2, first_attempts=2, first_wait=0.0, timeout=0.3)
SECONDS = 5.0
"""For two attempts of IMPATIENT, each of which ends within three timeouts; generous, for busy machines."""
OK = b"HTTP/1.1 200 OK\r\n"
SILENT = "the server is silent or too slow"


@pytest.fixture(scope="module")
def server() -> Iterator[WeightServer]:
    with serving() as running:
        yield running


def answer(*lines: bytes, body: Iterable[bytes] = (BODY,), start: bytes = OK) -> Callable[[], Iterable[bytes]]:
    return lambda: itertools.chain([start, *(line + b"\r\n" for line in lines), b"\r\n"], body)


def endless(piece: bytes) -> Iterable[bytes]:
    return itertools.repeat(piece)


def told(length: int) -> bytes:
    return b"Content-Length: %d" % length


CHUNKED = b"Transfer-Encoding: chunked"
PARTIAL = b"HTTP/1.1 206 Partial Content\r\n"
LIARS: dict[str, tuple[Callable[[], Iterable[bytes]], str]] = {
    "longer than told": (answer(told(1000)), "offers 1000 bytes, should be 262144"),
    "shorter than told": (answer(told(262144), body=(BODY[:5],)), "the connection broke off|ended at 5 of"),
    "nothing": (answer(told(0), body=()), "offers 0 bytes, should be"),
    "chunked nothing": (answer(CHUNKED, body=(b"0\r\n\r\n",)), "sent 0 bytes, should be 262144"),
    "chunked page": (answer(CHUNKED, body=(b"5\r\nhello\r\n0\r\n\r\n",)), "sent 5 bytes, should be 262144"),
    "chunked for ever": (answer(CHUNKED, body=endless(b"1000\r\n" + bytes(4096) + b"\r\n")), "sends more than 262144"),
    "chunk of 2**64": (answer(CHUNKED, body=(b"f" * 16 + b"\r\n", BODY, BODY)), "sends more than 262144"),
    "endless chunk mark": (answer(CHUNKED, body=endless(b"1" * 4096)), "the connection broke off"),
    "negative chunk": (answer(CHUNKED, body=(b"-5\r\nhello\r\n0\r\n\r\n",)), "malformed answer"),
    "endless trailers": (
        answer(CHUNKED, body=itertools.chain([b"0\r\n"], endless(b"a: b\r\n" * 99))),
        "the server is silent|the connection broke off",
    ),
    "endless heads": (lambda: endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 99), SILENT),
    "endless header": (lambda: itertools.chain([OK, b"A: "], endless(b"a" * 4096)), "no connection"),
    "many headers": (lambda: itertools.chain([OK], endless(b"A: b\r\n" * 99)), "no connection"),
    "no head": (lambda: [b"\0" * 5000], "no connection"),
    "negative length": (answer(told(-5)), "does not say how long"),
    "huge length": (answer(told(10**30)), "does not say how long"),
    "two lengths": (answer(told(262144), told(5)), "malformed address or answer"),
    "gzip": (answer(told(9), b"Content-Encoding: gzip"), "sends gzip data"),
    "gzip and escapes": (answer(told(9), b"Content-Encoding: \x1b[31m"), r"sends \\x1b\[31m data"),
    "range of 5000 digits": (
        answer(told(9), b"Content-Range: bytes 0-1/" + b"9" * 5000, start=PARTIAL),
        "the server's Content-Range is 'bytes 0-1/999",
    ),
    "range not asked for": (
        answer(told(9), b"Content-Range: bytes 5-13/262144", start=PARTIAL),
        "the file changed on the server",
    ),
    "several ranges": (answer(told(9), b"Content-Type: multipart/byteranges", start=PARTIAL), "Content-Range is ''"),
    "reason with escapes": (answer(told(9), start=b"HTTP/1.1 404 " + b"\x1b[2J" * 900 + b"\r\n"), "answers 404"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIARS)
def test_a_server_that_lies_is_refused_in_time(server: WeightServer, target: Path, name: str) -> None:
    raw, message = LIARS[name]
    server.put("w", b"", raw=raw)
    began = time.monotonic()
    with pytest.raises(DownloadError, match=message) as caught:
        download_file(wanted(server.url("w"), size=len(BODY)), target, retries=IMPATIENT)
    assert time.monotonic() - began < SECONDS
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()
    assert names(target.parent) <= {"weights.pt.part"}


@pytest.mark.parametrize(
    "raw",
    [
        lambda: endless(b""),
        lambda: itertools.chain([OK], endless(b"")),
        lambda: itertools.chain([OK, b"A: "], endless(b"a")),
        lambda: itertools.chain([OK, told(262144), b"\r\n\r\n"], endless(b"a")),
        lambda: itertools.chain([OK, CHUNKED, b"\r\n\r\n"], endless(b"1\r\na\r\n")),
        lambda: itertools.chain([OK, CHUNKED, b"\r\n\r\n0\r\n"], endless(b"a: b\r\n")),
    ],
    ids=["silent", "silent head", "slow head", "slow body", "slow chunks", "slow trailers"],
)
def test_a_server_that_dawdles_counts_as_silent(
    server: WeightServer, target: Path, raw: Callable[[], Iterable[bytes]]
) -> None:
    server.put("w", b"", raw=raw, pause=0.05)
    began = time.monotonic()
    with pytest.raises(DownloadError, match=SILENT):
        download_file(wanted(server.url("w")), target, retries=IMPATIENT)
    assert time.monotonic() - began < SECONDS


def test_a_default_that_waits_no_longer_than_people_do() -> None:
    assert RetryPolicy().timeout <= 10


def test_a_chunked_page_is_no_weight_file(server: WeightServer, target: Path) -> None:
    server.put("w", b"<html>Please log in</html>", chunked=True)
    asked = DownloadSpec((server.url("w"),), limit=10**6, at_least=1000)
    assert "sent 26 bytes, should be at least 1000" in refuse(target, asked)
    server.put("w", b"", chunked=True)
    assert "sent 0 bytes, should be at least 1" in refuse(target, wanted(server.url("w")))
    assert names(target.parent) == set()


FRAGMENTS = ["http", "https", "file", "ftp", "://", "//", "/", "[", "]", "::1", ":", "99999", "@", "%", "%2e", "..",
             "?", "#", "\\", " ", "\t", "\x1b", "\xe9", "a" * 70, "xn--", "localhost", "127.0.0.1", "x.invalid",
             "\r\n "]  # fmt: skip


@settings(max_examples=60)
@given(location=st.lists(st.sampled_from(FRAGMENTS), max_size=7).map("".join))
def test_whatever_a_redirect_says_it_ends_in_one_line(
    server: WeightServer, tmp_path_factory: pytest.TempPathFactory, location: str
) -> None:
    target = tmp_path_factory.mktemp("redirect") / "w"
    head = b"Location: " + location.encode("latin-1")
    server.put("w", b"", raw=answer(head, told(0), start=b"HTTP/1.1 302 Found\r\n", body=()))
    with pytest.raises(DownloadError) as caught:
        download_file(wanted(server.url("w")), target, retries=IMPATIENT)
    assert str(caught.value).isprintable()
    assert names(target.parent) == set()


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ("file:///etc/passwd", "leads to file:///etc/passwd, which is not https"),
        ("ftp://example.org/w", "leads to ftp://example.org/w, which is not https"),
        ("http://[::1", "malformed address or answer"),
        ("https://" + "a" * 300 + ".org", "malformed address or answer"),
        ("//example.org:99999/w", "leads to http://example.org:99999/w, which is not https"),
    ],
)
def test_redirects_that_are_not_followed(server: WeightServer, target: Path, there: str, reason: str) -> None:
    server.put("w", b"", status=302, location=there)
    assert reason in refuse(target, wanted(server.url("w")))


def test_no_server_elsewhere_reaches_into_this_machine(monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    class Response:
        status_code, headers = 302, {"Location": "http://localhost:8080/private"}

        def close(self) -> None: ...

    asked = list[str]()

    def get(session: object, url: str, **options: object) -> Response:
        asked.append(url)
        return Response()

    monkeypatch.setattr("requests.Session.get", get)
    assert "leads to http://localhost:8080/private, which is not https" in refuse(target, wanted("https://x.invalid/w"))
    assert asked == ["https://x.invalid/w"]


STRANGE = ['"\x1b"', '"' + "a" * 5000 + '"', '"\u00e9"', "W/", ""]


@pytest.mark.parametrize("etag", STRANGE)
def test_a_mark_that_cannot_be_sent_back_is_none(server: WeightServer, target: Path, etag: str) -> None:
    server.put("w", BODY, etag=etag, cuts=[150_000, None])
    download_file(wanted(server.url("w"), digest=sha256(BODY)), target, retries=IMPATIENT)
    assert server.ranges_of("w")[-2:] == [None, None]


def test_a_file_that_changes_with_every_request_is_never_mixed(server: WeightServer, target: Path) -> None:
    bodies = [bytes([number]) * len(BODY) for number in range(1, 4)]
    file = server.put("w", bodies[0], etag='"0"', cuts=[150_000, 150_000, None], heeds_if_range=False)
    served = iter(enumerate(bodies[1:], 1))

    def change(line: str) -> None:
        number, body = next(served)
        file.body, file.etag = body, f'"{number}"'

    with pytest.raises(DownloadError, match="gave up"):
        download_file(wanted(server.url("w")), target, notify=change, retries=IMPATIENT)
    download_file(wanted(server.url("w")), target, retries=IMPATIENT)
    assert target.read_bytes() in bodies


json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\x1b]0;x\x07")


@settings(max_examples=30)
@given(validator=json_values, total=json_values)
def test_a_strange_state_of_a_part_is_not_trusted(
    server: WeightServer, tmp_path_factory: pytest.TempPathFactory, validator: object, total: object
) -> None:
    target = tmp_path_factory.mktemp("state") / "w"
    target.with_name("w.part").write_bytes(bytes(1000))
    target.with_name("w.part.json").write_text(json.dumps({"validator": validator, "total": total}))
    server.put("w", BODY)
    download_file(wanted(server.url("w"), digest=sha256(BODY)), target, retries=IMPATIENT)
    assert target.read_bytes() == BODY


def test_a_pause_of_ours_is_not_the_servers(
    monkeypatch: pytest.MonkeyPatch, server: WeightServer, target: Path
) -> None:
    """A disk that takes longer than the server does not make the server slow."""
    monkeypatch.setattr(transport, "_SLOWEST", 2**40)  # any byte is too slow, if our own time counted
    server.put("w", BODY)
    download_file(wanted(server.url("w")), target, lambda done, total: time.sleep(0.3), retries=IMPATIENT)
    assert target.read_bytes() == BODY
