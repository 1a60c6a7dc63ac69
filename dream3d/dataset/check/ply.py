"""What can be known of a PLY file from its header."""

from __future__ import annotations

import re
from pathlib import Path

from dream3d.dataset.check.limits import Limits, beside, check_texture, check_triangles
from dream3d.errors import DatasetError

MAX_HEADER = 64 * 2**10
SIZES = {
    "char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2, "int": 4,
    "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4, "double": 8, "float64": 8,
}  # fmt: skip


def check(path: Path, limits: Limits) -> None:
    """Hold the header's counts against the limits and the file's size; :class:`DatasetError` with a reason."""
    with path.open("rb") as file:
        start = file.read(MAX_HEADER)
    header, end, _ = start.partition(b"end_header")
    if not start.startswith(b"ply") or not end:
        raise DatasetError("it is no PLY file: its header does not begin with 'ply' or does not end")
    text = header.decode("latin-1")
    counts, least = _elements(text, binary="format ascii" not in text)
    body = path.stat().st_size - len(header) - len(end)
    check_triangles(counts.get("face", 0), limits)
    if counts.get("vertex", 0) > 3 * limits.max_triangles:
        raise DatasetError(f"it has {counts['vertex']} vertices, more than {3 * limits.max_triangles}")
    if body < least:
        raise DatasetError(f"it is cut off: its header promises at least {least} bytes, {body} are there")
    for name in re.findall(r"^comment\s+TextureFile\s+(.+?)\s*$", text, re.M | re.I):
        check_texture(beside(path, name, "texture", limits), name, limits)


def _elements(header: str, binary: bool) -> tuple[dict[str, int], int]:
    """Count of every element, and the fewest bytes that they can take."""
    counts, least, current = dict[str, int](), 0, 0
    for line in header.splitlines():
        fields = line.split()
        if fields[:1] == ["element"]:
            if len(fields) != 3 or not fields[2].isdigit() or len(fields[2]) > 18:
                raise DatasetError(f"its header has a line that is no element: {line[:60]!r}")
            current = int(fields[2])
            counts[fields[1]] = counts.get(fields[1], 0) + current
        elif fields[:1] == ["property"] and len(fields) >= 3:
            # As text, a number takes a digit and a blank; a list has at least its length.
            size = SIZES.get(fields[2] if fields[1] == "list" else fields[1])
            if size is None:
                raise DatasetError(f"its header has a property of an unknown type: {line[:60]!r}")
            least += current * (size if binary else 2)
    return counts, least - (0 if binary else 2)
