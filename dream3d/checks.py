"""Checks of a request before anything is computed or written.

Every function raises :class:`dream3d.errors.UsageError` with one line that says what is wrong and what
to do, and leaves the disk as it was. Nothing here needs torch, so a typing error is answered at once.
Bounds of settings: :mod:`dream3d.bounds`.
"""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from pathlib import Path
from typing import Annotated

from dream3d.bounds import Between, Options, Seed, check_setting, check_text
from dream3d.errors import UsageError, one_line
from dream3d.files import is_read_only

MAX_PROMPT_CHARACTERS = 1000
"""Longer texts are pasted by accident; every text encoder stops reading long before."""

TEMPORARY_SUFFIX_BYTES = 32
"""Room that is kept in a file name for the temporary name it is written under."""


def check_prompt(prompt: str) -> str:
    """The prompt without surrounding blanks; raises UsageError when it is empty or not plain text.

    Its length is checked by :func:`check_prompt_length`, which needs to know what the prior reads.
    """
    text = check_text(prompt, "prompt")
    if not any(character.isprintable() and not character.isspace() for character in text):
        kind = {"Co": "for private use", "Cn": "not assigned"}.get(unicodedata.category(text[:1] or " "), "invisible")
        why = f": U+{ord(text[0]):04X} is {kind}" if text else ""
        raise UsageError(f'the prompt is empty{why}; describe the object, for example "a red armchair"')
    return text


def check_prompt_length(prompt: str, cut: int | None, what: str = "prompt") -> None:
    """Raises UsageError above :data:`MAX_PROMPT_CHARACTERS` characters.

    ``cut`` is the index of the first character that the prior's text encoder will not read, if known.
    """
    if len(prompt) <= MAX_PROMPT_CHARACTERS:
        return
    read = "" if cut is None else f"the text encoder stops reading at character {cut + 1}, {last_words(prompt, cut)}; "
    raise UsageError(
        f"the {what} has {len(prompt)} characters and the limit is {MAX_PROMPT_CHARACTERS}; {read}"
        "describe the object in a sentence or two"
    )


def last_words(prompt: str, cut: int, count: int = 5) -> str:
    """The phrase ``after "..."`` that quotes the last ``count`` words before index ``cut``."""
    words = " ".join(prompt[:cut].split()[-count:])
    # A text without blanks is one endless word; its end is enough to find the place.
    return f'after "{words if len(words) <= 60 else "..." + words[-57:]}"'


def check_seed(seed: int) -> int:
    """The seed; raises UsageError outside 0..2^63-1."""
    check_setting(seed, Seed, "seed", Options.spoken)
    return seed


def check_preview_seeds(count: int, first: int, limit: int = 64) -> int:
    """How many seeds to preview from ``first`` on, 0 for none; raises UsageError for 1, for many, and past the end."""
    if count == 0:
        return count
    if not 2 <= count <= limit:
        raise UsageError(f"there is a best seed among 2 to {limit}, got --preview-seeds {count}")
    check_seed(first + count - 1)
    return count


def parse_seeds(text: str, limit: int = 64) -> list[int]:
    """Seeds written as ``7``, ``0..7`` or ``0-7`` (both ends included) or ``1,4,9``, in that order and each once.

    Raises UsageError for anything else, and for more than ``limit`` seeds.
    """
    wrong = UsageError(f"--seeds {text[:60]!r} is not a list of seeds; write 7, 0..7, 0-7 or 1,4,9")
    seeds: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,19})(?:(?:\.\.|-)([0-9]{1,19}))?", part.strip())
        if match is None:
            raise wrong
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise wrong
        if last - first >= limit or len(seeds) + last - first >= limit:
            raise UsageError(f"--seeds {text[:60]} asks for more than {limit} seeds; ask for fewer at a time")
        seeds.update(dict.fromkeys(check_seed(seed) for seed in range(first, last + 1)))
    return list(seeds)


def check_address(engine: str, address: str | None) -> None:
    """UsageError for the address of a cluster that nothing is done on."""
    if address and engine != "ray":
        raise UsageError(f"--address goes with --engine ray; got --address {address}")


def check_checkpoint_minutes(minutes: float) -> float:
    """Minutes between two checkpoints, 0 for none; raises UsageError below 0 and above a year."""
    check_setting(minutes, Annotated[float, Between(0, 525_600)], "checkpoint_minutes", Options.spoken)
    return minutes


def check_device_name(name: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``; raises UsageError for anything else.

    Whether such a device exists is another question: see :mod:`dream3d.cli.device`.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", name):
        raise UsageError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    return name


def check_output_file(path: Path, option: str = "--out", extensions: tuple[str, ...] = ()) -> Path:
    """The path, when a file could be written there; raises UsageError, which names the ``option``, when not.

    Of a symbolic link, the path of the file that it leads to.

    An existing regular file is fine (it is replaced at the end of a run); missing folders are fine when they could be
    created. Tests that the folder is writable with a file that has no name. ``extensions`` (``".png"``): none for any.
    """
    if extensions and path.suffix.lower() not in extensions:
        raise UsageError(f"{option} {path}: the file extension must be {' or '.join(extensions)}")
    if os.path.islink(path):
        path = Path(os.path.realpath(path))
    parent = _check_place(path, option, TEMPORARY_SUFFIX_BYTES)
    if os.path.isdir(path):
        raise UsageError(f"{option} {path} is a folder; name a file in it, such as {path / ('asset' + path.suffix)}")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise UsageError(f"{option} {path} is not a regular file; choose another name")
    if is_read_only(path):
        raise UsageError(f"{option} {path} is read-only; choose another name, or make it writable")
    _check_writable(parent, f"{option} {path}")
    return path


def check_run_dir(path: Path, option: str = "--run-dir") -> Path:
    """The path, when it is a folder that can be written or made; raises UsageError naming the option when not."""
    parent = _check_place(path, option, 0)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UsageError(f"{option} {path} is a file; name a folder")
    _check_writable(path if os.path.isdir(path) else parent, f"{option} {path}")
    return path


def check_apart(out: Path, run_dir: Path) -> None:
    """Raises UsageError when the mesh would have to be the run folder, or a folder above it."""
    mesh, folder = out.resolve(), run_dir.resolve()
    if mesh == folder or mesh in folder.parents:
        raise UsageError(f"--out {out} and the run folder {run_dir} collide; choose another --out or --run-dir")


def _check_place(path: Path, option: str, reserve: int) -> Path:
    """The nearest existing folder above ``path``; UsageError when ``path`` could not be made below it."""
    if "\0" in str(path):
        raise UsageError(f"{option} contains a NUL character; choose another name")
    whole, what = path.absolute(), f"{option} {one_line(str(path), 100)}"
    try:
        os.fsencode(str(whole).encode().decode())
    except UnicodeEncodeError as error:
        raise UsageError(f"{option} contains a character that file names cannot have here; choose another") from error
    # os.path answers "no" where pathlib raises: a folder that may not be looked into is found out below.
    parent = next((folder for folder in whole.parents if os.path.lexists(folder)), whole)
    if not os.path.isdir(parent):
        raise UsageError(f"{what}: {one_line(str(parent), 100)} is not a folder; choose another place")
    name_limit, path_limit = (os.pathconf(parent, f"PC_{kind}_MAX") for kind in ("NAME", "PATH"))
    sizes = [len(os.fsencode(part)) for part in whole.relative_to(parent).parts]
    if sizes and max([*sizes[:-1], sizes[-1] + reserve]) > name_limit:
        raise UsageError(f"{what}: a name in it is too long; use at most {name_limit - reserve} bytes")
    if len(os.fsencode(whole)) + reserve > path_limit:
        raise UsageError(f"{what}: the whole path is too long; use at most {path_limit - reserve} bytes")
    return parent


def _check_writable(folder: Path, what: str) -> None:
    # Permission bits do not tell the truth for root, network disks and read-only mounts: try it.
    # The file has no name where the system offers that, and is gone when closed everywhere else.
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{what}: the folder {folder} cannot be written ({error.strerror}); choose another") from error
