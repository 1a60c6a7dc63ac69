"""The table of weights that can be fetched: which files, from where, how large, under which licence."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from dream3d.errors import UsageError

HUB = "https://huggingface.co"
"""Host of every address in the table; ``DREAM3D_MIRROR`` replaces it."""

_SMALLEST_LIMIT = 2**20
_SAFE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a source."""

    path: str
    """Place in the download folder, with forward slashes."""
    urls: tuple[str, ...]
    """Addresses of the same bytes, tried in turn."""
    about_bytes: int
    """Roughly the size, for people and for the check of the disk."""
    size: int | None = None
    """Exact size in bytes where known."""
    sha256: str | None = None
    """Hash where known; otherwise the first download is recorded and later ones are held against it."""
    at_most: int | None = None
    """Roughly the largest size that it may have, where nobody noted its number format."""

    def __post_init__(self) -> None:
        check_relative(self.path)
        if not self.urls:
            raise ValueError(f"{self.path} has no address")

    @property
    def limit(self) -> int:
        """Most bytes that are accepted from a server: one that sends forever does not fill the disk."""
        return self.size if self.size is not None else max((self.at_most or self.about_bytes) * 5 // 4, _SMALLEST_LIMIT)

    @property
    def at_least(self) -> int:
        """Fewest bytes that can be this file; 1 for small ones, whose size nobody noted."""
        return self.about_bytes * 4 // 5 if self.about_bytes > _SMALLEST_LIMIT else 1


@dataclass(frozen=True)
class Source:
    """One complete way to get a prior: its files, and what of them the converter reads."""

    title: str
    files: tuple[RemoteFile, ...]
    convert_from: str
    """The file or folder that is converted, relative to the prior's download folder."""

    def __post_init__(self) -> None:
        check_relative(self.convert_from)

    @property
    def about_bytes(self) -> int:
        """Roughly what the whole source weighs."""
        return sum(file.about_bytes for file in self.files)


@dataclass(frozen=True)
class Entry:
    """A prior that can be fetched. Its sources are alternatives, tried in turn."""

    name: str
    sources: tuple[Source, ...]
    converted_bytes: int
    """Roughly the size of the converted folder in fp16; twice that in fp32."""
    licence: str
    note: str

    def __post_init__(self) -> None:
        check_relative(self.name)


def check_relative(path: str) -> None:
    """Raise ValueError unless ``path`` can only lie below the folder that it is joined to.

    Plain names only: no "..", no absolute path, no drive, no backslash, no leading dot.
    """
    parts = path.split("/")
    if not all(_SAFE_PART.fullmatch(part) for part in parts):
        raise ValueError(f"{path!r} is not a plain relative path")


def hub_base() -> str:
    """Host that replaces the hub's: ``DREAM3D_MIRROR`` without its last slash, or the hub itself.

    Raises :class:`UsageError` for something that is no https address.
    """
    mirror = os.environ.get("DREAM3D_MIRROR", "").rstrip("/")
    if mirror and not is_allowed(mirror):
        raise UsageError(f"DREAM3D_MIRROR is {mirror!r}; give an address that begins with https://")
    return mirror or HUB


def mirrored(url: str) -> str:
    """The address with the hub's host replaced by the chosen mirror; others are left alone."""
    return hub_base() + url.removeprefix(HUB) if url.startswith(f"{HUB}/") else url


def is_allowed(url: str) -> bool:
    """Whether an address may be read: https, or plain http on this very machine (tests, local mirrors)."""
    return re.match(r"https://[^/\s]+|http://(localhost|127\.0\.0\.1)(:\d+)?(/|$)", url) is not None


def _hub_file(repository: str, file: str, about_bytes: int, folder: str = "", at_most: int | None = None) -> RemoteFile:
    place = str(PurePosixPath(folder) / file)
    return RemoteFile(place, (f"{HUB}/{repository}/resolve/main/{file}",), about_bytes, at_most=at_most)


_WEIGHTS = "diffusion_pytorch_model.safetensors"
_OFFICIAL = "MVDream/MVDream"
_FOLDER = "ashawkey/mvdream-sd2.1-diffusers"
_FOLDER_NAME = "mvdream-sd2.1-diffusers"
_MVRAG = "yosepyossi/mvrag"
_MVRAG_NAME = "mvrag"

ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="mvdream-sd21",
        sources=(
            Source(
                "official checkpoint",
                (_hub_file(_OFFICIAL, "sd-v2.1-base-4view.pt", 5_221_000_000),),
                "sd-v2.1-base-4view.pt",
            ),
            Source(
                "diffusers folder",
                # The architecture is read from the tensors; tokenizer and scheduler are in the package.
                (
                    _hub_file(_FOLDER, "unet/diffusion_pytorch_model.safetensors", 1_735_200_000, _FOLDER_NAME),
                    _hub_file(_FOLDER, "vae/diffusion_pytorch_model.safetensors", 167_300_000, _FOLDER_NAME),
                    _hub_file(_FOLDER, "text_encoder/model.safetensors", 681_000_000, _FOLDER_NAME),
                ),
                _FOLDER_NAME,
            ),
        ),
        converted_bytes=2_590_000_000,
        licence="OpenRAIL",
        note="MVDream on Stable Diffusion 2.1: 4 views of 256x256; wants a GPU",
    ),
    Entry(
        name="mvdream-sd15",
        sources=(
            Source(
                "official checkpoint",
                (_hub_file(_OFFICIAL, "sd-v1.5-4view.pt", 4_272_000_000),),
                "sd-v1.5-4view.pt",
            ),
        ),
        converted_bytes=2_140_000_000,
        licence="OpenRAIL",
        note="MVDream on Stable Diffusion 1.5: 4 views of 256x256; wants a GPU",
    ),
    Entry(
        name="mvrag",
        sources=(
            Source(
                "diffusers folder",
                # The sizes of UNet, VAE and resampler are those of half precision; single precision has twice as much.
                (
                    _hub_file(_MVRAG, f"unet/{_WEIGHTS}", 1_786_300_000, _MVRAG_NAME, at_most=3_572_600_000),
                    _hub_file(_MVRAG, f"vae/{_WEIGHTS}", 167_300_000, _MVRAG_NAME, at_most=334_700_000),
                    _hub_file(_MVRAG, "text_encoder/model.safetensors", 681_000_000, _MVRAG_NAME),
                    _hub_file(_MVRAG, "image_encoder/model.safetensors", 2_520_000_000, _MVRAG_NAME),
                    _hub_file(_MVRAG, "resampler/model.safetensors", 97_100_000, _MVRAG_NAME, at_most=194_200_000),
                ),
                _MVRAG_NAME,
            ),
        ),
        converted_bytes=4_000_000_000,
        licence="not stated (its base: OpenRAIL)",
        note="MV-RAG: MVDream on Stable Diffusion 2.1 that also draws by pictures; wants a GPU",
    ),
)
"""Priors that can be fetched. Sizes are those published; no sha256 of these files is published."""


def find_entry(name: str) -> Entry | None:
    """The entry of this name, or None."""
    return next((entry for entry in ENTRIES if entry.name == name), None)
