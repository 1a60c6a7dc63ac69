"""Every field of what a download is told has an effect."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from recipe_effects import Runs, Table, assert_complete, falls, rises
from weight_server import WeightServer, serving, sha256

from dream3d.errors import DownloadError
from dream3d.weights.download import DownloadSpec, RetryPolicy, download_file

BODY = bytes(range(256)) * 1024  # 256 KiB
NOBODY = "http://127.0.0.1:9/nobody"


@pytest.fixture(scope="module")
def server() -> Iterator[WeightServer]:
    with serving() as running:
        yield running


@dataclass(frozen=True)
class Attempt:
    """How one download went."""

    message: str
    """Why it failed, or nothing."""
    requests: int
    waits: tuple[float, ...]
    """Seconds between attempts."""


def attempt(server: WeightServer, folder: Path, wanted: DownloadSpec, patience: RetryPolicy) -> Attempt:
    """A download into a folder, without the waiting."""
    waits, message = list[float](), ""
    server.requests.clear()
    with mock.patch("time.sleep", waits.append):
        try:
            download_file(wanted, folder / "w", retries=patience)
        except DownloadError as error:
            message = str(error)
    return Attempt(message, len(server.requests), tuple(waits))


@dataclass(frozen=True)
class Patient:
    """Somebody's patience, tried by servers of several kinds."""

    patience: RetryPolicy
    server: WeightServer
    folder: Path

    def _get(self, name: str, url: str | None = None) -> Attempt:
        wanted = DownloadSpec((url or self.server.url(name),), limit=len(BODY))
        return attempt(self.server, self.folder / name / str(hash(self.patience)), wanted, self.patience)

    def with_a_busy_server(self) -> Attempt:
        """One that answers 503."""
        self.server.put("busy", BODY, status=503)
        return self._get("busy")

    def with_nobody(self) -> Attempt:
        """An address where nobody listens."""
        return self._get("nobody", NOBODY)

    def with_a_slow_server(self) -> Attempt:
        """One that begins to answer after half a second."""
        gate = threading.Event()
        self.server.put("slow", BODY, wait=gate)
        timer = threading.Timer(0.5, gate.set)
        timer.start()
        try:
            return self._get("slow")
        finally:
            timer.join()

    def with_a_server_that_cuts(self) -> Attempt:
        """One that sends 100 kB of what is left, and ends the connection."""
        self.server.put("cuts", BODY, cuts=[100_000])
        return self._get("cuts")


PATIENCE = RetryPolicy(attempts=2, first_attempts=2, first_wait=0.5, timeout=20.0)
PATIENCE_TABLE: Table[Patient] = {
    "attempts": rises(lambda who: who.with_a_busy_server().requests, 3),
    "first_attempts": rises(lambda who: len(who.with_nobody().waits), 4),
    "first_wait": rises(lambda who: who.with_a_busy_server().waits, 0.75),
    "timeout": rises(lambda who: who.with_a_slow_server().requests, 0.05),
    # Three attempts are needed, each of which gains less than the default asks for.
    "worth_bytes": falls(lambda who: len(who.with_a_server_that_cuts().message), 1000),
}


@pytest.mark.parametrize("place", PATIENCE_TABLE)
def test_a_field_of_patience_has_its_effect(server: WeightServer, tmp_path: Path, place: str) -> None:
    runs = Runs[RetryPolicy, Patient](lambda patience: Patient(patience, server, tmp_path))
    runs.check(PATIENCE, place, PATIENCE_TABLE[place])


def says(words: str) -> Callable[[Attempt], bool]:
    return lambda attempt: words in attempt.message


WANTED = DownloadSpec(("w",), limit=10**6)
WRONG = {"sha256": "0" * 64}
WANTED_TABLE: Table[Attempt] = {
    "urls": rises(lambda attempt: attempt.requests, ("none", "w")),
    "limit": rises(says("at most 1000 are expected"), 1000),
    "size": rises(says("should be 1000"), 1000),
    "sha256": rises(says(f"sha256 is {sha256(BODY)}, should be 000"), WRONG["sha256"]),
    "hash_origin": rises(says("00, says its page; the file was removed"), ", says its page", WRONG),
    "at_least": rises(says("at least 1000000 are expected"), 10**6),
}


@pytest.mark.parametrize("place", WANTED_TABLE)
def test_a_field_of_what_is_wanted_has_its_effect(server: WeightServer, tmp_path: Path, place: str) -> None:
    server.put("w", BODY)

    def run(wanted: DownloadSpec) -> Attempt:
        asked = dataclasses.replace(wanted, urls=tuple(server.url(name) for name in wanted.urls))
        return attempt(server, tmp_path / str(abs(hash(wanted))), asked, RetryPolicy())

    Runs(run).check(WANTED, place, WANTED_TABLE[place])


@pytest.mark.parametrize(("table", "kind"), [(PATIENCE_TABLE, RetryPolicy), (WANTED_TABLE, DownloadSpec)])
def test_every_field_has_an_entry(table: Table[Any], kind: type) -> None:
    assert_complete(table, kind)
