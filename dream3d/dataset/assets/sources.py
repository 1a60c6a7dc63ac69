"""Which assets there are in files and folders: models, furniture catalogues and manifests, each with a unique key."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dream3d.dataset.assets.sh3f import read_catalogue
from dream3d.dataset.check.file import CHECKS
from dream3d.dataset.check.limits import is_inside
from dream3d.dataset.records import (
    IDENTITY,
    KEY_LENGTH,
    SourceAsset,
    json_lines,
    key_from,
    number_field,
    text_field,
    texts,
)
from dream3d.errors import DatasetError, UsageError
from dream3d.files import parse_json, read_regular

MANIFEST = "assets.jsonl"
FORMATS = tuple(CHECKS)
CATALOGUES = ".sh3f"
MAX_MANIFEST_BYTES = 256 * 2**20


def find_assets(sources: Sequence[Path], select: Path | None = None) -> list[SourceAsset]:
    """All assets of files and folders, each key once, in the order of the sources and of the names in them.

    A folder with an ``assets.jsonl`` is described by that alone. ``select`` picks and renames (see :func:`selected`).
    Raises :class:`UsageError` for a source that is not there or holds nothing, :class:`DatasetError` for a damaged one.
    """
    found: list[SourceAsset] = []
    for source in sources:
        some = list(_assets_of(source))
        if not some:
            raise UsageError(f"{source} holds no models ({', '.join(FORMATS)}), no {CATALOGUES} and no {MANIFEST}")
        found += some
    found = _with_unique_keys(found)
    return found if select is None else selected(found, select)


def selected(assets: Sequence[SourceAsset], file: Path) -> list[SourceAsset]:
    """The assets that a json list names, in its order and with its words.

    Each item is ``{"id": catalogue id or key}``, optionally with ``name``, ``captions``, ``turn`` (degrees) and
    ``category``. Raises :class:`UsageError` for a file that is no such list, or names an asset that is not there.
    """
    try:
        items = parse_json(read_regular(file, MAX_MANIFEST_BYTES))
        if not isinstance(items, list):
            raise TypeError("it is not a list")
        by_key = {asset.key: asset for asset in assets}
        picked = []
        for item in items:
            asset = by_key.get(str(item["id"])) or by_key.get(key_from(str(item["id"])))
            if asset is None:
                raise UsageError(f"--select {file}: {str(item['id'])[:90]!r} is not among the {len(assets)} assets")
            picked.append(
                dataclasses.replace(
                    asset,
                    name=text_field(item.get("name", asset.name)),
                    captions=texts(item.get("captions", asset.captions)),
                    category=text_field(item.get("category", asset.category)),
                    turn_deg=number_field(item.get("turn", asset.turn_deg)),
                )
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--select {file} is no list of {{'id', 'name', ...}} ({type(error).__name__}: {error})"
        ) from error
    return _with_unique_keys(picked)


def read_manifest(file: Path) -> list[SourceAsset]:
    """The assets of an ``assets.jsonl``: each line a JSON object, the fields of a :class:`SourceAsset`; relative paths.

    Raises :class:`DatasetError` that names the line which does not fit.
    """
    return [_asset(row, file.parent, where) for where, row in json_lines(file, MAX_MANIFEST_BYTES)]


def _assets_of(source: Path) -> Iterable[SourceAsset]:
    if source.is_dir():
        if (source / MANIFEST).is_file():
            return read_manifest(source / MANIFEST)
        files = sorted(file for file in source.rglob("*") if file.suffix.lower() in (*FORMATS, CATALOGUES))
        return [asset for file in files if file.is_file() for asset in _assets_of(file)]
    if not source.is_file():
        raise UsageError(f"{source}: no such file or folder")
    if source.name == MANIFEST or source.suffix == ".jsonl":
        return read_manifest(source)
    alone = SourceAsset(key_from(source.stem), source, words_of_stem(source.stem))
    if source.suffix.lower() != CATALOGUES:
        return [dataclasses.replace(alone, source=source.parent.resolve().name)]
    try:
        return read_catalogue(source)
    except DatasetError as error:  # listed with the other assets that cannot be used
        return [dataclasses.replace(alone, reason=str(error))]


def words_of_stem(stem: str) -> str:
    """A model file's stem in words: "oakChair_02" is "oak chair"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem)
    return " ".join(re.findall(r"[^\W\d_]+", spaced)).lower() or stem.lower()


def _with_unique_keys(assets: Sequence[SourceAsset]) -> list[SourceAsset]:
    taken: set[str] = set()
    unique = []
    for asset in assets:
        key, number = asset.key, 1
        while key in taken:
            number += 1
            key = f"{asset.key[:KEY_LENGTH]}-{number}"
        taken.add(key)
        unique.append(asset if key == asset.key else dataclasses.replace(asset, key=key))
    return unique


def _asset(data: dict[str, Any], folder: Path, where: str) -> SourceAsset:
    try:
        rotation = tuple(number_field(number) for number in data.get("rotation") or IDENTITY)
        if len(rotation) != 9:
            raise ValueError(f"a rotation has 9 numbers, not {len(rotation)}")
        if data.get("up", "y") not in ("y", "z"):
            raise ValueError(f"up is 'y' or 'z', not {text_field(data['up'])[:20]!r}")
        path = text_field(data["path"])
        names = ("member", "category", "licence", "author", "source", "reason")
        asset = SourceAsset(
            key=key_from(text_field(data.get("key") or Path(path).stem)),
            path=folder / path,
            name=text_field(data.get("name") or words_of_stem(Path(path).stem)),
            captions=texts(data.get("captions", ())),
            colors=texts(data.get("colors", ())),
            materials=texts(data.get("materials", ())),
            rotation=rotation,
            up=data.get("up", "y"),
            turn_deg=number_field(data.get("turn_deg", 0.0)),
            **{name: text_field(data.get(name, "")) for name in names},
        )
        outside = f"its path {path[:90]!r} lies outside the folder of the manifest"
        return asset if is_inside(path) else dataclasses.replace(asset, reason=outside)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{where}: not an asset ({type(error).__name__}: {error})") from error
