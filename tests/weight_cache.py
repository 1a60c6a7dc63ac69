"""A cache of weights in an empty folder: a table of one small prior, a pretend converter, and the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner, Result

from dream3d.cli.app import app
from dream3d.prior.layout import files_of
from dream3d.weights import download, table
from dream3d.weights.table import Entry, RemoteFile, Source

WEIGHTS = bytes(range(256)) * 1024
FILES = files_of(Path("a linear codec"))
"""Of the folder that the pretend converter writes."""
CONVERTED = {f"priors/big/{name}" for name in FILES} | {"priors/big.files.json"}
DOWNLOADED = {"downloads/big/big.pt", "downloads/big/big.pt.sha256.json"}

ENTRY = Entry(
    "big",
    (
        Source("one file", (RemoteFile("big.pt", (f"{table.HUB}/a/big.pt",), len(WEIGHTS)),), "big.pt"),
        Source(
            "a folder",
            tuple(
                RemoteFile(f"dir/{name}", (f"{table.HUB}/b/resolve/main/{name}",), 100)
                for name in ("unet/config.json", "unet/w.safetensors")
            ),
            "dir",
        ),
    ),
    1000,
    "OpenRAIL",
    "a large one",
)


@dataclass
class FakeConverter:
    """Plans conversions that write a few bytes into each file of a prior folder, and remembers what was asked."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    failure: Exception | None = None
    forgets: str | None = None

    def plan(self, source: Path, dtype: torch.dtype) -> Callable[[Path], None]:
        short = {torch.float16: "fp16", torch.float32: "fp32"}[dtype]
        self.calls.append((source.name, short))
        return lambda folder: self.fill(folder, short)

    def fill(self, folder: Path, dtype: str) -> None:
        for name in FILES:
            if name == self.forgets:
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(dtype.encode() + name.encode())
            if self.failure is not None:
                raise self.failure


def fake_converter(monkeypatch: pytest.MonkeyPatch) -> FakeConverter:
    fake = FakeConverter()
    monkeypatch.setattr("dream3d.prior.official.convert.plan", fake.plan)
    return fake


def empty_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no mirror, a network that nobody forbade, and a table of small files on the hub."""
    monkeypatch.setenv("DREAM3D_CACHE", str(folder))
    for name in ("DREAM3D_MIRROR", "DREAM3D_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(table, "ENTRIES", (ENTRY,))
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=lambda seconds: None))
    return folder


def models(*args: str) -> Result:
    return CliRunner().invoke(app, ["models", *args])


def fails(code: int, *args: str) -> str:
    """The one line of a command that fails."""
    result = models(*args)
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("error: ")


def tree(folder: Path) -> set[str]:
    """Every file below a folder, lock files aside."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }
