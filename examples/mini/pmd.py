"""0 A.D.'s mesh files (PMD, versions 1 to 4): https://trac.wildfiregames.com/wiki/PMD_File_Format."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from glb import Triangles
from numpy.typing import NDArray

RELATIVE_TO_ROOT = 255


@dataclass(frozen=True)
class Mesh(Triangles):
    """A mesh in its rest pose."""

    points: dict[str, NDArray[np.float64]]
    """Where props are attached: 4x4 to the mesh's own frame."""


def read_pmd(data: bytes) -> Mesh:
    """The mesh of a file's bytes. Raises ValueError or struct.error for what is none."""
    if data[:4] != b"PSMD":
        raise ValueError("not a PMD file")
    version, at = struct.unpack_from("<I", data, 4)[0], 12

    def numbers(form: str) -> tuple[Any, ...]:
        nonlocal at
        start, at = at, at + struct.calcsize("<" + form)
        return struct.unpack_from("<" + form, data, start)

    (count,) = numbers("I")
    sets = numbers("I")[0] if version >= 4 else 1
    stride = 24 + 8 * sets + 20  # position, normal, texture coordinates, four bones and their weights
    raw = np.frombuffer(data, np.uint8, count * stride, at).reshape(count, stride)
    at += count * stride
    (triangles,) = numbers("I")
    faces = np.frombuffer(data, "<u2", triangles * 3, at).reshape(-1, 3)
    at += triangles * 6
    bones = [_placed(numbers("7f")) for _ in range(numbers("I")[0])]
    points: dict[str, NDArray[np.float64]] = {}
    for _ in range(numbers("I")[0] if version >= 2 else 0):
        name = numbers(f"{numbers('I')[0]}s")[0].decode()
        place, bone = _placed(numbers("7f")), numbers("B")[0]
        points[name] = place if bone == RELATIVE_TO_ROOT or bone >= len(bones) else bones[bone] @ place
    return Mesh(
        raw[:, :12].copy().view("<f4").astype(np.float64),
        raw[:, 24:32].copy().view("<f4").astype(np.float64),
        faces[:, ::-1].astype(np.int64),  # as the normals say: the file's order is clockwise
        raw[:, 12:24].copy().view("<f4").astype(np.float64),
        points,
    )


def _placed(numbers: tuple[float, ...]) -> NDArray[np.float64]:
    """4x4 of a translation and a quaternion x, y, z, w."""
    x, y, z, w = numbers[3:]
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = numbers[:3]
    return matrix
