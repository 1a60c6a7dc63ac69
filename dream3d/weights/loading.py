"""A prior by name or path: found in the catalogue or on the disk, converted if it is official, and loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from dream3d.errors import Dream3DError, PriorError, UsageError
from dream3d.prior.adapter import Adapter, is_adapter, read_adapter
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.folder import PriorSettings, check_files, digest_of, read_settings
from dream3d.prior.memory import MemoryPlan
from dream3d.prior.official.convert import convert, detect
from dream3d.prior.text import PromptEncoder
from dream3d.prior.vocabulary import Unfamiliar, unfamiliar
from dream3d.weights.cache import cache_root
from dream3d.weights.catalogue import catalogue


def load_prior(
    name_or_path: str, device: torch.device | str = "cpu", memory: MemoryPlan | None = None
) -> DiffusionPrior:
    """A prior by catalogue name, folder or official file, on a device; ``memory`` is the fastest plan by default.

    An adapter is loaded onto its base. Raises :class:`dream3d.errors.PriorError` that says in one line what is wrong.
    """
    path = locate(name_or_path)
    if is_adapter(path):
        adapter = read_adapter(path)
        return DiffusionPrior(base_of(adapter), device, memory, adapter)
    return DiffusionPrior(find_folder(name_or_path), device, memory)


def base_of(adapter: Adapter) -> Path:
    """Folder of the prior that an adapter was made for; :class:`PriorError` if it is not here, or another one."""
    settings, record = adapter.settings, adapter.folder / "prior.json"
    try:
        folder = find_folder(settings.base)
        check_files(folder)
    except PriorError as error:
        raise PriorError(f"{record}: no base ({error}); correct 'base' if it lies elsewhere") from error
    found = digest_of(folder)
    if found != settings.base_digest:
        raise PriorError(
            f"{adapter.folder} is an adapter of another prior than {settings.base!r} is now: it was made for digest "
            f"{settings.base_digest[:12]}..., not {found[:12]}...; put that one back, or correct 'base' in {record}"
        )
    return folder


def find_whole(name_or_path: str) -> tuple[Path, str]:
    """Folder with a prior's networks (that of the base for an adapter), and the prior's SHA-256.

    Nothing else of it is read. :class:`PriorError` if files are missing.
    """
    path = locate(name_or_path)
    if is_adapter(path):
        adapter = read_adapter(path)
        return base_of(adapter), adapter.digest
    folder = find_folder(name_or_path)
    check_files(folder)
    return folder, digest_of(folder)


def digest_of_prior(name_or_path: str) -> str:
    """The SHA-256 of :func:`find_whole`."""
    return find_whole(name_or_path)[1]


def _text_of(path: Path) -> tuple[PromptEncoder, PriorSettings]:
    """Text encoder and settings of a prior that needs no conversion."""
    folder = base_of(read_adapter(path)) if is_adapter(path) else path
    check_files(folder)
    settings = read_settings(path)
    return PromptEncoder(folder, settings.text_tokens), settings


def prompt_cut(name_or_path: str, prompt: str) -> int | None:
    """Index of the first character of a prompt that a prior's text encoder does not read, or None if it reads all.

    Reads no more of the prior than that takes and converts nothing: official weights are a
    :class:`dream3d.errors.PriorError` here, as is what :func:`load_prior` refuses.
    """
    return _text_of(locate(name_or_path))[0].cut(prompt)


def unfamiliar_in(name_or_path: str, prompts: Sequence[str]) -> list[Unfamiliar | None]:
    """:func:`dream3d.prior.vocabulary.unfamiliar` for a prior of which nothing else is loaded.

    Official weights have no names, and are not converted for it.
    """
    folder = locate(name_or_path)
    if detect(folder) != "converted":
        return [None] * len(prompts)
    text, settings = _text_of(folder)
    return unfamiliar(settings.names, text, prompts, torch.device("cpu"))


def find_folder(name_or_path: str) -> Path:
    """Folder of a prior given by catalogue name or path; :class:`PriorError` lists what is known.

    Official weights (a file, or a folder with official names) are converted once, into the cache. An adapter is no such
    folder.
    """
    path = locate(name_or_path)
    if is_adapter(path):
        raise PriorError(f"{path} is an adapter, not a whole prior; give its base here (see its prior.json)")
    return path if detect(path) == "converted" else converted_copy(path)


def locate(name_or_path: str) -> Path:
    """Where a prior lies, given by catalogue name or path, as it is; raises like :func:`find_folder`."""
    known = {info.name: info for info in catalogue()}
    if name_or_path in known:
        info = known[name_or_path]
        if info.path is None:
            raise PriorError(info.absence())
        return info.path
    path = Path(name_or_path)
    if not os.path.exists(path):  # Path.exists raises for a name that is too long
        names = ", ".join(known)
        raise PriorError(
            f"unknown prior {name_or_path!r}: neither a catalogue name ({names}) nor an existing file or folder"
        )
    return path


def lasting_name(name_or_path: str) -> str:
    """What :func:`locate` finds from any working directory: a catalogue name as it is, else the absolute path."""
    known = any(info.name == name_or_path for info in catalogue())
    return name_or_path if known else str(Path(name_or_path).absolute())


def converted_copy(source: Path) -> Path:
    """Folder in the cache with the fp16 conversion of official weights, made at the first call.

    Named after the source's name, size and time of change, so that other weights get another folder.
    """
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    stats = [path.stat() for path in files]
    size, changed = sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)
    target = cache_root() / "converted" / f"{source.resolve().name}-{size}-{changed}-fp16"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cache folder {target.parent} cannot be made ({error.strerror}); set DREAM3D_CACHE to a folder you own"
        ) from error
    try:
        return convert(source, target)
    except Dream3DError:
        if target.is_dir():  # another process was faster
            return target
        raise
