"""What is known of an asset before it is rendered, and of an object after: plain records, to and from json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from dream3d.errors import DatasetError
from dream3d.files import json_table, read_regular
from dream3d.names import slug

Split = Literal["train", "heldout", "unseen"]
"""``train`` is learnt from; ``heldout`` are other objects of the same concepts; ``unseen`` are concepts that no
training object or caption contains."""
SPLITS: tuple[Split, ...] = ("train", "heldout", "unseen")

KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")
"""Keys name files inside shards; a dot would end the key there."""
KEY_LENGTH = 72
"""Of a key made of a text: room for a number that makes it unique."""
ATTRIBUTION = ("name", "key", "author", "licence", "source")
"""Columns of a data set's ``attribution.csv``; fields of :class:`SourceAsset`."""
MAX_CAPTIONS = 64
MAX_TEXT = 500
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class SourceAsset:
    """A 3D model that could be rendered, and what is said of it."""

    key: str
    """Unique in a data set; matches :data:`KEY`."""
    path: Path
    """Model file (.glb, .gltf, .obj, .ply), or the ``.sh3f`` archive that holds it."""
    name: str
    """The concept in everyday words: "chair", "elk skull"."""
    member: str = ""
    """Path of the model inside the archive; empty for a plain file."""
    category: str = ""
    captions: tuple[str, ...] = ()
    """Captions written by hand or by the generator; if there are none, they are made from the other fields."""
    colors: tuple[str, ...] = ()
    """Dominant colours in words, most of the surface first; measured on the views if empty."""
    materials: tuple[str, ...] = ()
    rotation: tuple[float, ...] = IDENTITY
    """3x3 row-major, applied to the model's own coordinates first (Sweet Home 3D's ``modelRotation``)."""
    up: Literal["y", "z"] = "y"
    """The model's vertical axis. glTF, OBJ and Sweet Home 3D: y up and front towards +z."""
    turn_deg: float = 0.0
    """Rotation about the vertical axis, counter-clockwise from above, that brings its front to +x."""
    licence: str = ""
    author: str = ""
    source: str = ""
    """Title of the catalogue or collection."""
    reason: str = ""
    """Why it cannot be used, if that is known before rendering (a broken catalogue entry): it is listed as skipped."""


@dataclass(frozen=True)
class Pass:
    """One orbit around an object: its views share everything but the azimuth (MVDream, Shi et al. 2023)."""

    elevation_deg: float
    fovy_deg: float
    distance: float
    """From the origin, in radii of the object's bounding sphere."""
    azimuths_deg: tuple[float, ...]
    """Evenly spaced over the whole turn; a multiple of four, so that view i and i + n/4 are at right angles."""
    light: str = "studio"


@dataclass(frozen=True)
class ObjectRecord:
    """What a shard says of one object, besides its images."""

    key: str
    name: str
    category: str
    captions: tuple[str, ...]
    colors: tuple[str, ...]
    materials: tuple[str, ...]
    split: Split
    licence: str
    author: str
    source: str
    passes: tuple[Pass, ...]
    extra: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of json."""
        return json.dumps(asdict(self), ensure_ascii=False)


def key_from(text: str) -> str:
    """A key made of any text: it matches :data:`KEY`."""
    return slug(text, KEY_LENGTH, ascii_only=True)


def object_from_json(text: str | bytes, where: str) -> ObjectRecord:
    """The record of one object from a shard, checked; ``where`` names the place in a :class:`DatasetError`."""
    data: Any = json_table(text, where, DatasetError)
    try:
        text_field(data["split"])
        passes = tuple(
            Pass(
                number_field(p["elevation_deg"]),
                number_field(p["fovy_deg"]),
                number_field(p["distance"]),
                tuple(number_field(a) for a in p["azimuths_deg"]),
                text_field(p.get("light", "")),
            )
            for p in data["passes"]
        )
        record = ObjectRecord(
            key=text_field(data["key"]),
            name=text_field(data["name"]),
            captions=texts(data["captions"]),
            colors=texts(data.get("colors", ())),
            materials=texts(data.get("materials", ())),
            split=data["split"],
            passes=passes,
            **{name: text_field(data.get(name, "")) for name in ("category", "licence", "author", "source")},
            extra={text_field(k): text_field(v) for k, v in dict(data.get("extra", {})).items()},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{where}: not the record of an object ({type(error).__name__}: {error})") from error
    if not KEY.fullmatch(record.key) or record.split not in SPLITS or not record.captions or not record.passes:
        raise DatasetError(
            f"{where}: key {record.key[:90]!r}, split {record.split[:20]!r}, captions or passes do not fit"
        )
    return record


def json_lines(path: Path, max_bytes: int) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a file with a JSON object a line, each with its place for messages; blank lines are none.

    :class:`DatasetError` for a file that cannot be read or is larger than ``max_bytes``, and for any other line.
    """
    try:
        text = read_regular(path, max_bytes).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read ({error})") from error
    lines = re.split(r"\r\n?|\n", text)  # not at the line separators in a text
    places = ((f"{path} line {number}", line) for number, line in enumerate(lines, 1) if line.strip())
    return [(where, json_table(line, where, DatasetError)) for where, line in places]


def text_field(value: object) -> str:
    """A text, cut at :data:`MAX_TEXT` characters; TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where a text should be")
    return value[:MAX_TEXT]


def number_field(value: object) -> float:
    """A number; TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a {type(value).__name__} where a number should be")
    return float(value)


def texts(values: object) -> tuple[str, ...]:
    """A list of texts, cut at :data:`MAX_CAPTIONS`; TypeError for anything else."""
    if not isinstance(values, list | tuple):
        raise TypeError(f"a {type(values).__name__} where a list of texts should be")
    return tuple(text_field(value) for value in values[:MAX_CAPTIONS])
