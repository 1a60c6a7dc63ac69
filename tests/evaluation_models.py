"""Small coloured models for the tests of ``dream3d evaluate``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dream3d.mesh.appearance import VertexColors
from dream3d.mesh.export import Asset, export


def colored_box(*sides: tuple[float, float, float]) -> Asset:
    """A cube whose front, left, back and right have these colours; top and bottom are grey."""
    vertices, faces, colors = [], [], []
    for number, color in enumerate([*sides, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)]):
        axis, sign = ((0, 1), (1, 1), (0, -1), (1, -1), (2, 1), (2, -1))[number]
        corners = np.zeros((4, 3))
        others = [index for index in range(3) if index != axis]
        corners[:, others[0]], corners[:, others[1]] = [-1, 1, 1, -1], [-1, -1, 1, 1]
        corners[:, axis] = sign
        vertices.append(corners)
        is_outward = (sign > 0) != (axis == 1)  # x to z turns the other way round y than x to y does round z
        faces.append(np.array([[0, 1, 2], [0, 2, 3]])[:, :: 1 if is_outward else -1] + 4 * number)
        colors.append(np.tile(np.array(color, np.float32), (4, 1)))
    appearance = VertexColors(np.concatenate(colors))
    return Asset(np.concatenate(vertices).astype(np.float32), np.concatenate(faces), appearance, {})


RED, GREEN, WHITE, YELLOW = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0, 1.0), (1.0, 1.0, 0.0)


def models(folder: Path, **named: Asset) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, asset in named.items():
        export(asset, folder / f"{name.replace('_', '-')}.glb")
    return folder
