"""The half of a download that is here already: ``<name>.part`` and what is known of the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from dream3d.files import parse_json, read_regular, write_json
from dream3d.weights.records import CHUNK_BYTES, MAX_RECORD_BYTES, checked_size, checked_text
from dream3d.weights.transport import is_validator


class Partial:
    """Bytes from the start of a file, with their hash, and the server's mark of the version they belong to.

    Without such a mark nothing is resumed: half of one version and half of another would be a file of no use.
    """

    def __init__(self, destination: Path) -> None:
        self.path = destination.with_name(f"{destination.name}.part")
        self._state_path = destination.with_name(f"{destination.name}.part.json")
        self.offset = 0
        self.validator: str | None = None
        self._total: int | None = None
        self._digest = hashlib.sha256()

    @property
    def resumable_bytes(self) -> int:
        """Bytes that a next attempt can build on."""
        self.load()
        return self.offset

    @property
    def complete(self) -> bool:
        """Whether every byte is here (a process may end between the last byte and the renaming)."""
        return self._total is not None and self.offset == self._total

    @property
    def sha256(self) -> str:
        """Hash of the bytes so far, hexadecimal."""
        return self._digest.hexdigest()

    def load(self) -> None:
        """Resume what an earlier attempt or process left; what cannot be trusted counts as nothing."""
        if self.validator:  # the bytes are known already
            return
        self._reset()
        known = self.path.is_file() and self._read_state()
        if not known or (self._total is not None and self.path.stat().st_size > self._total):
            self._reset()
            return
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                self._digest.update(chunk)
                self.offset += len(chunk)

    def _reset(self) -> None:
        self.offset, self.validator, self._total, self._digest = 0, None, None, hashlib.sha256()

    def _read_state(self) -> bool:
        try:
            state = parse_json(read_regular(self._state_path, MAX_RECORD_BYTES))
            self.validator, self._total = checked_text(state["validator"]), checked_size(state["total"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return is_validator(self.validator)

    def matches(self, validator: str | None, total: int | None) -> bool:
        """Whether a server's reply belongs to the version that the bytes here come from."""
        return self.validator is not None and validator == self.validator and total == self._total

    def restart(self, validator: str | None, total: int | None) -> None:
        """Throw the bytes away and begin a version. The state is on disk before its first byte."""
        self.discard()
        self._total = total
        if validator is not None and total is not None:
            self.validator = validator
            write_json(self._state_path, {"validator": validator, "total": total})

    def discard(self) -> None:
        """Remove the part and its state."""
        self._reset()
        self._state_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def receive(self, chunks: Iterable[bytes], limit: int, progress: Callable[[int], object]) -> bool:
        """Append bytes, telling the offset; False as soon as there are more than ``limit``. Raises OSError."""
        with self.path.open("ab") as file:
            for chunk in chunks:
                if self.offset + len(chunk) > limit:
                    return False
                file.write(chunk)
                self._digest.update(chunk)
                self.offset += len(chunk)
                progress(self.offset)
        return True
