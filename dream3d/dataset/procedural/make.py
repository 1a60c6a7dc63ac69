"""Writing procedural assets and their manifest."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dream3d.dataset.assets.sources import MANIFEST
from dream3d.dataset.procedural.families import CATEGORIES, FAMILIES
from dream3d.dataset.procedural.sketch import Design
from dream3d.dataset.records import SourceAsset
from dream3d.errors import UsageError
from dream3d.files import write_atomically, write_text
from dream3d.mesh.appearance import VertexColors
from dream3d.mesh.formats.glb import glb_bytes

MAX_COUNT = 1_000_000


def check_families(names: Sequence[str]) -> tuple[str, ...]:
    """The slugs asked for, all of them if none is; UsageError with the list for an unknown one."""
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        raise UsageError(f"no family {unknown[0]!r}; there are {', '.join(FAMILIES)}")
    return tuple(dict.fromkeys(names)) or tuple(FAMILIES)


def design(family: str, seed: int, index: int) -> Design:
    """Asset ``index`` (from 0) of a family; it depends on these three alone. KeyError for an unknown family."""
    return FAMILIES[family](np.random.default_rng([seed, zlib.crc32(family.encode()), index]))


def make_asset(folder: Path, family: str, seed: int, index: int) -> SourceAsset:
    """Makes one asset, writes ``folder``/KEY.glb and describes it, with a path relative to ``folder``."""
    made = design(family, seed, index)
    *arrays, faces = made.sketch.mesh()
    vertices, normals, colors = (array.astype(np.float32) for array in arrays)
    key = f"{family}-{seed:05d}-{index:05d}"
    origin = {"family": family, "seed": seed, "index": index}
    data = glb_bytes(vertices, normals, VertexColors(colors), faces, origin, {})
    write_atomically(folder / f"{key}.glb", lambda path: path.write_bytes(data))
    return SourceAsset(
        key=key,
        path=Path(f"{key}.glb"),
        name=made.name,
        category=CATEGORIES[family],
        captions=made.captions(),
        colors=made.sketch.colours(),
        materials=made.materials,
        licence="CC0-1.0",
        author="dream3d",
        source="procedural",
    )


def make_assets(folder: Path, count: int, seed: int, families: Sequence[str] = ()) -> list[SourceAsset]:
    """Writes ``count`` assets, the families in turn, and the manifest, which is written last.

    UsageError for a count outside 1 to a million, a seed outside 0 to 2^32 - 1, an unknown family, or a folder that
    cannot be made.
    """
    names = check_families(families)
    if not 1 <= count <= MAX_COUNT:
        raise UsageError(f"the number of assets is 1 to {MAX_COUNT}, got --count {count}")
    if not 0 <= seed < 2**32:
        raise UsageError(f"the seed is 0 to 4294967295, got --seed {seed}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder} cannot be made a folder ({error.strerror}); choose another") from error
    assets = [make_asset(folder, names[i % len(names)], seed, i // len(names)) for i in range(count)]
    lines = "".join(json.dumps({**asdict(asset), "path": asset.path.as_posix()}) + "\n" for asset in assets)
    write_text(folder / MANIFEST, lines)
    return assets
