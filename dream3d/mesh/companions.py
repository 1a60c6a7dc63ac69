"""Files beside a mesh's that belong to it: an OBJ's material and images, which are found by their names in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dream3d.errors import ExportError
from dream3d.files import write_atomically

_OURS = re.compile(rb"# dream3d [^\n]*\nmtllib ([A-Za-z0-9_][A-Za-z0-9_-]{0,60}-[0-9a-f]{12})\.mtl\n")
_HEAD_BYTES = 4096
NORMAL_MAP = "-normal.png"
"""How the name of a normal map ends."""


def companion_stem(path: Path) -> str:
    """What the names of a mesh's companions begin with: plain words of its own, since OBJ readers stop at blanks."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", path.stem)[:40].strip("-") or "mesh"


def companions_of(path: Path) -> list[Path]:
    """The companions of a mesh that dream3d wrote, as far as they are there; none of any other file."""
    try:
        with path.open("rb") as file:
            found = _OURS.match(file.read(_HEAD_BYTES))
    except OSError:
        return []
    if found is None:
        return []
    stem = found[1].decode()
    endings = [".png", *([NORMAL_MAP] if _names_normal_map(path.with_name(f"{stem}.mtl")) else []), ".mtl"]
    companions = [path.with_name(f"{stem}{ending}") for ending in endings]
    return [companion for companion in companions if companion.is_file()]


def _names_normal_map(material: Path) -> bool:
    """Whether a material names the normal map that would be its own; any other file of that name is somebody else's."""
    try:
        with material.open("rb") as file:
            return f"\nnorm {material.stem}{NORMAL_MAP}\n".encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False


@contextmanager
def written_beside(path: Path, files: Mapping[str, bytes]) -> Iterator[None]:
    """Write a mesh's companions, for the mesh to be written in this context; if that fails, they go again.

    What is there under such a name stays, if it is the same. In the end those of an older mesh at ``path`` are removed
    that neither the new one nor another mesh in the folder uses, such as a copy of the older one. ExportError for
    another file of that name, which is not replaced. Raises OSError.
    """
    old, made = companions_of(path), list[Path]()
    try:
        for name, data in files.items():
            companion = path.with_name(name)
            if os.path.lexists(companion) and companion not in old:
                if not companion.is_file() or companion.read_bytes() != data:
                    raise ExportError(f"cannot write {path}: {companion} is there and is another file; move it away")
                continue
            if companion not in old:
                made.append(companion)
            write_atomically(companion, lambda temporary, data=data: temporary.write_bytes(data))  # type: ignore[misc]
        yield
    except BaseException:
        for companion in made:
            companion.unlink(missing_ok=True)
        raise
    unused = [companion for companion in old if companion.name not in files]
    if unused:
        others = (other for other in path.parent.iterdir() if other.suffix.lower() == ".obj" and other != path)
        used = {companion for other in others for companion in companions_of(other)}
        for companion in unused:
            if companion not in used:
                companion.unlink(missing_ok=True)
