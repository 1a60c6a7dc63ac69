"""Furniture catalogues of Sweet Home 3D: a ``.sh3f`` is a zip of models and of a Java properties file about them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path, PurePosixPath

from dream3d.dataset.check.limits import LIMITS, Limits, archive_size, is_inside
from dream3d.dataset.records import IDENTITY, SourceAsset, key_from
from dream3d.errors import DatasetError

CATALOGUE = "PluginFurnitureCatalog.properties"
MAX_CATALOGUE_BYTES = 16 * 2**20


def read_catalogue(archive: Path) -> list[SourceAsset]:
    """The entries of a ``.sh3f`` file, in its order; their keys are the slugs of their ids, perhaps not unique.

    An entry that cannot be drawn (no model, a rotation that is none) has its ``reason`` set. Raises
    :class:`DatasetError` for a file that is no catalogue.
    """
    entries = properties(_catalogue_text(archive))
    numbers = [name.partition("#")[2] for name in entries if re.fullmatch(r"id#\d+", name)]
    if not numbers:
        raise DatasetError(f"{archive}: its {CATALOGUE} lists no furniture")
    return [_entry(archive, entries, number) for number in numbers]


def properties(text: str) -> dict[str, str]:
    """Java properties as a dict: ``key=value`` lines, comments, unicode escapes and continued lines."""
    text = re.sub(r"\\\r?\n[ \t]*", "", text)
    pairs = re.findall(r"^[ \t]*(\w[\w#]*)[ \t]*[=:][ \t]*([^\r\n]*)", text, re.M)
    return {key: _unescaped(value).strip() for key, value in pairs}


def extract(asset: SourceAsset, folder: Path, limits: Limits = LIMITS) -> Path:
    """Unpack the folder of one model and return the path of the model in it.

    Raises :class:`DatasetError` if it is missing, would leave ``folder``, or unpacks to more than the limits.
    """
    try:
        with zipfile.ZipFile(asset.path) as archive:
            parent = asset.member.rpartition("/")[0]
            members = [i for i in archive.infolist() if not i.is_dir() and i.filename.rpartition("/")[0] == parent]
            names = {info.filename for info in members}
            if asset.member not in names:
                raise DatasetError(f"the archive has no member {asset.member[:90]!r}")
            archive_size(members, limits)
            for info in members:
                if not is_inside(info.filename):
                    raise DatasetError(f"member {info.filename[:90]!r} would be unpacked outside its folder")
                target = folder / PurePosixPath(info.filename).name
                target.write_bytes(archive.read(info))
    except DatasetError:
        raise
    except Exception as error:  # a damaged table raises errors of text, numbers, places and versions
        raise DatasetError(f"the archive is damaged ({error})") from error
    return folder / PurePosixPath(asset.member).name


def _catalogue_text(archive: Path) -> str:
    try:
        with zipfile.ZipFile(archive) as content:
            info = content.getinfo(CATALOGUE)
            if info.file_size > MAX_CATALOGUE_BYTES:
                raise DatasetError(f"{archive}: its {CATALOGUE} has {info.file_size} bytes")
            return content.read(info).decode("latin-1")
    except KeyError as error:
        raise DatasetError(f"{archive} is no furniture catalogue: it has no {CATALOGUE}") from error
    except DatasetError:
        raise
    except Exception as error:  # a damaged table raises errors of text, numbers, places and versions
        raise DatasetError(f"{archive} is damaged or not a zip file ({error})") from error


def _unescaped(value: str) -> str:
    value = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match.group(1), 16)), value)
    value = re.sub(r"[\ud800-\udfff]", "\ufffd", value)  # half a surrogate pair cannot be written as UTF-8
    return re.sub(r"\\(.)", r"\1", value)


def _entry(archive: Path, entries: dict[str, str], number: str) -> SourceAsset:
    def field(name: str) -> str:
        return entries.get(f"{name}#{number}", "")[:200]

    member, reason = field("model").lstrip("/"), ""
    rotation: tuple[float, ...] = IDENTITY
    if not member:
        reason = "the catalogue names no model for it"
    elif not is_inside(member):
        reason = f"its model {member[:90]!r} lies outside the archive"
    try:
        rotation = tuple(float(number) for number in field("modelRotation").split()) or IDENTITY
    except ValueError:
        rotation = ()
    if len(rotation) != 9 or not all(abs(number) <= 1.001 for number in rotation):
        reason, rotation = f"its modelRotation {field('modelRotation')[:90]!r} is no rotation", IDENTITY
    return SourceAsset(
        key=key_from(field("id")),
        path=archive,
        name=field("name").lower() or key_from(field("id")),
        member=member,
        category=field("category"),
        rotation=rotation,
        licence=field("license") or entries.get("license", "")[:200],
        author=field("creator"),
        source=entries.get("name", archive.stem)[:200],
        reason=reason,
    )
