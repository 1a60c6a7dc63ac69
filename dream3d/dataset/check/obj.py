"""What can be known of an OBJ file and its materials without loading it."""

from __future__ import annotations

import re
from pathlib import Path

from dream3d.dataset.check.limits import Limits, beside, check_texture, check_triangles
from dream3d.errors import DatasetError

MAX_LINE = 2**20
MAX_REFERENCES = 1000
_NOT_A_NUMBER = re.compile(rb"^v[ \t].*?(?:nan|inf)", re.I)


def check(path: Path, limits: Limits) -> None:
    """Count faces and vertices, and look at the material files and textures; :class:`DatasetError` with a reason."""
    triangles, vertices, libraries = 0, 0, list[str]()
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE):
            if len(line) == MAX_LINE:
                raise DatasetError(f"a line of it has more than {MAX_LINE} characters")
            start = line[:2].rstrip()
            if start == b"f":
                triangles += max(len(line.split()) - 3, 1)
            elif start == b"v":
                vertices += 1
                if _NOT_A_NUMBER.match(line):
                    raise DatasetError(f"vertex {vertices} is not finite")
            elif line.startswith(b"mtllib"):
                libraries.append(_text(line[6:]))
            if max(triangles, vertices // 3) > limits.max_triangles or len(libraries) > MAX_REFERENCES:
                raise DatasetError(f"it has more than {limits.max_triangles} triangles (or as many vertices)")
    if vertices == 0:
        raise DatasetError("it has no vertices; it is no OBJ file, or an empty one")
    check_triangles(triangles, limits)
    for name in libraries:
        check_materials(beside(path, name, "material file", limits), limits)


def check_materials(path: Path, limits: Limits) -> None:
    """Look at the textures of an MTL file; :class:`DatasetError` for one that is missing, outside or too large.

    Only ``map_Kd``, the colour, is drawn; files for bumps and reflections are never opened.
    """
    seen: set[str] = set()
    for line in path.read_bytes().splitlines():
        color = re.match(rb"\s*K[ads]\s+(?:\S+\s+){0,2}[-+]?(?:nan|inf|[\d.]+e\+?\d{3})", line, re.I)
        if color is not None:
            raise DatasetError(f"a colour of its materials is not finite: {_text(line)[:60]!r}")
        match = re.match(rb"\s*map_Kd\s+(.+)", line, re.I)
        if match is None:
            continue
        name = texture_name(_text(match.group(1)))
        if name in seen:
            continue
        seen.add(name)
        if len(seen) > MAX_REFERENCES:
            raise DatasetError(f"its materials name more than {MAX_REFERENCES} textures")
        file = beside(path, name, "texture", limits)
        check_texture(file, name, limits)


def texture_name(arguments: str) -> str:
    """The file in the arguments of ``map_Kd``, which may begin with options such as ``-s 1 1 1``."""
    if not arguments.startswith("-"):
        return arguments
    return re.sub(r"^(?:-[a-z]+(?:\s+(?:on|off|[-+.\d][-+.\de]*))*\s+)+", "", arguments, flags=re.I).strip()


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").strip()
