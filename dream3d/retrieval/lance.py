"""Corpora in LanceDB: a local folder, or an object store by its address. Needs the extra ``retrieve``."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream3d.errors import DatasetError, Dream3DError, UsageError, one_line
from dream3d.retrieval.encoder import Vectors
from dream3d.retrieval.pictures import MAX_KEPT_BYTES
from dream3d.retrieval.store import Row, VectorTable

VERSION = 1
"""Of the table's columns."""
TABLE = "pictures"
REMOTE = ("s3", "gs", "az")
"""Addresses that LanceDB opens; credentials come from the environment, as its own documentation says."""
ROWS_IN_MEMORY = 200_000
"""Up to which the vectors are read into memory, 2.6 kB a row, and compared there; above, LanceDB compares them."""
OLD_AFTER = timedelta(hours=1)
"""Files that newer ones replace stay so long, for searches that have just begun."""
KEY = re.compile(r"[0-9a-f]{32}")
GUESSED = "guessed_by"
"""Column that says what a caption was guessed by; "" for one that somebody gave."""
_RECAPTIONED = ("key", "caption", "terms", GUESSED)
_SHOWN = ("key", "image", "caption", "source", "author", "licence", "look")


@dataclass(frozen=True)
class NewRow:
    """A picture as it is stored."""

    row: Row
    terms: str
    """The caption's terms, with blanks between: what full text search reads."""
    width: int
    height: int
    caption_vector: Vectors
    picture_vector: Vectors


@dataclass(frozen=True)
class NewCaption:
    """A caption for a row that is there."""

    key: str
    caption: str
    terms: str
    """See :class:`NewRow`."""
    guessed_by: str
    caption_vector: Vectors


class LanceStore:
    """A :class:`dream3d.retrieval.store.Store` that grows. Every append is there whole or not at all."""

    def __init__(self, location: str, table: Any) -> None:
        self.location = location
        self._table = table
        self._vectors: VectorTable | None = None

    def __len__(self) -> int:
        """Rows."""
        with _told(self.location):
            return int(self._table.count_rows())

    def by_words(self, terms: Sequence[str], count: int) -> list[str]:
        """See :class:`dream3d.retrieval.store.Store`."""
        text = " ".join(term for term in terms if term.isalnum() or "'" in term)
        with _told(self.location):
            found = self._table.search(text, query_type="fts", fts_columns="terms").limit(count)
            table = found.select(["key", "_score"]).to_arrow()
        # Of equal scores the order of the rows is not said; ours is that of the keys.
        pairs = zip(table["key"].to_pylist(), table["_score"].to_pylist(), strict=True)
        return [key for key, _ in sorted(pairs, key=lambda pair: (-pair[1], pair[0]))]

    def by_caption(self, vector: Vectors, count: int) -> list[str]:
        """See :class:`dream3d.retrieval.store.Store`."""
        if self._fits():
            return self._in_memory().by_caption(vector, count)
        return self._nearest("caption_vector", vector, count)

    def by_picture(self, vector: Vectors, count: int) -> list[str]:
        """See :class:`dream3d.retrieval.store.Store`."""
        if self._fits():
            return self._in_memory().by_picture(vector, count)
        return self._nearest("picture_vector", vector, count)

    def similarities(self, keys: Sequence[str], vector: Vectors) -> list[float]:
        """See :class:`dream3d.retrieval.store.Store`."""
        if self._fits():
            return self._in_memory().similarities(keys, vector)
        found = self._select(keys, ("key", "caption_vector"))
        vectors = dict(zip(found["key"].to_pylist(), _matrix(found["caption_vector"]), strict=True))
        return [float(vectors[key].astype(np.float32) @ vector) for key in keys]

    def rows(self, keys: Sequence[str]) -> list[Row]:
        """See :class:`dream3d.retrieval.store.Store`."""
        names = (*_SHOWN, *((GUESSED,) if self.has_guesses else ()))
        found = {row["key"]: Row(**row) for row in self._select(keys, names).to_pylist()}
        return [found[key] for key in keys if key in found and len(found[key].image) <= MAX_KEPT_BYTES]

    def keys(self) -> set[str]:
        """Of all rows."""
        with _told(self.location):
            return set(self._table.search().select(["key"]).limit(None).to_arrow()["key"].to_pylist())

    def append(self, rows: Sequence[NewRow]) -> None:
        """Add rows whose keys are new; others stay as they are, also those that another process adds meanwhile."""
        if not rows:
            return
        import pyarrow as pa

        columns: dict[str, list[Any]] = {name: [getattr(one.row, name) for one in rows] for name in _SHOWN}
        columns |= {name: [getattr(one, name) for one in rows] for name in ("terms", "width", "height")}
        columns |= {GUESSED: [one.row.guessed_by for one in rows]} if self.has_guesses else {}
        arrays = {name: pa.array(values, self._table.schema.field(name).type) for name, values in columns.items()}
        for name in ("caption_vector", "picture_vector"):
            stacked = np.stack([getattr(one, name) for one in rows]).astype(np.float16)
            arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(stacked.reshape(-1)), stacked.shape[1])
        names = self._table.schema.names
        batch = pa.table([arrays[name] for name in names], schema=self._table.schema)
        with _told(self.location):
            self._table.merge_insert("key").when_not_matched_insert_all().execute(batch)
        self._vectors = None

    @property
    def has_guesses(self) -> bool:
        """Whether captions were ever guessed: until then no column tells of it."""
        return GUESSED in self._table.schema.names

    def recaption(self, rows: Sequence[NewCaption], *, replace: bool) -> None:
        """Write guessed captions into rows that are there; those that have a caption keep it unless ``replace``."""
        if not rows:
            return
        import pyarrow as pa

        with _told(self.location):
            if not self.has_guesses:
                self._table.add_columns({GUESSED: "cast('' as string)"})
            columns = {name: pa.array([getattr(one, name) for one in rows], pa.string()) for name in _RECAPTIONED}
            stacked = np.stack([one.caption_vector for one in rows]).astype(np.float16)
            columns["caption_vector"] = pa.FixedSizeListArray.from_arrays(
                pa.array(stacked.reshape(-1)), stacked.shape[1]
            )
            where = None if replace else "target.caption = ''"
            self._table.merge_insert("key").when_matched_update_all(where=where).execute(pa.table(columns))
        self._vectors = None

    def finish(self) -> None:
        """Bring the index of the captions up to date and join small files; a search without it is only slower."""
        with _told(self.location):
            self._table.optimize(cleanup_older_than=OLD_AFTER)

    def columns(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """Whole columns, for figures about the corpus."""
        with _told(self.location):
            table = self._table.search().select(list(names)).limit(None).to_arrow()
        return {name: table[name].to_pylist() for name in names}

    def _fits(self) -> bool:
        return self._vectors is not None or len(self) <= ROWS_IN_MEMORY

    def _in_memory(self) -> VectorTable:
        if self._vectors is None:
            with _told(self.location):
                found = self._table.search().select(["key", "caption_vector", "picture_vector"]).limit(None).to_arrow()
            vectors = (_matrix(found[name]) for name in ("caption_vector", "picture_vector"))
            self._vectors = VectorTable.of(found["key"].to_pylist(), *vectors)
        return self._vectors

    def _nearest(self, column: str, vector: Vectors, count: int) -> list[str]:
        with _told(self.location):
            query = self._table.search(vector, vector_column_name=column).distance_type("dot").limit(count)
            found = query.select(["key", "_distance"]).to_arrow()
        pairs = zip(found["key"].to_pylist(), found["_distance"].to_pylist(), strict=True)
        return [key for key, distance in pairs if distance < 1]  # 1 - dot: a picture without a vector has 1

    def _select(self, keys: Sequence[str], names: Sequence[str]) -> Any:
        wanted = ", ".join(f"'{key}'" for key in keys if KEY.fullmatch(key))
        with _told(self.location):
            return self._table.search().where(f"key in ({wanted or 'NULL'})").select(list(names)).to_arrow()


def open_store(location: str, fingerprint: str) -> LanceStore:
    """The corpus of a folder or an address, for an encoder with this fingerprint.

    Raises UsageError if there is none or LanceDB is not installed, DatasetError for one that is damaged, of a newer
    version, or made by another encoder.
    """
    lancedb = _lancedb()
    advice = f"make it with: dream3d corpus add {location} PICTURES"
    _check_location(location)
    if not is_remote(location) and not (Path(location) / f"{TABLE}.lance").is_dir():
        raise UsageError(f"{location} holds no corpus; {advice}")
    with _told(location):
        database = lancedb.connect(location)
        if is_remote(location) and TABLE not in _names(database):
            raise UsageError(f"{location} holds no corpus; {advice}")
        table = database.open_table(TABLE)
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    version = metadata.get("dream3d_corpus", "")
    if not version.isdecimal():
        raise DatasetError(
            f"{location} holds a LanceDB table {TABLE!r} that is no corpus of dream3d; name another place"
        )
    if int(version) > VERSION:
        raise DatasetError(
            f"{location} is a corpus of version {version}; this dream3d knows {VERSION}: install a newer one"
        )
    if metadata.get("encoder") != fingerprint:
        raise DatasetError(
            f"{location} was made with another encoder than this dream3d's; make it again in another place"
        )
    return LanceStore(location, table)


def create_store(location: str, fingerprint: str, widths: tuple[int, int]) -> LanceStore:
    """The corpus of a place, made if there is none; ``widths`` are those of caption and picture vectors."""
    lancedb = _lancedb()
    import pyarrow as pa

    _check_location(location)
    if not is_remote(location):
        folder = Path(location)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{location} is a file; name a folder for the corpus")
        if (folder / f"{TABLE}.lance").is_dir():
            return open_store(location, fingerprint)
    text, blob = pa.string(), pa.binary()
    kinds = {"key": text, "image": blob, "caption": text, "source": text, "author": text, "licence": text, "look": blob}
    fields = [*kinds.items(), ("terms", text), ("width", pa.int32()), ("height", pa.int32())]
    fields += [
        ("caption_vector", pa.list_(pa.float16(), widths[0])),
        ("picture_vector", pa.list_(pa.float16(), widths[1])),
    ]
    schema = pa.schema(fields, metadata={"dream3d_corpus": str(VERSION), "encoder": fingerprint})
    with _told(location):
        database = lancedb.connect(location)
        if TABLE in _names(database):
            return open_store(location, fingerprint)
        table = database.create_table(TABLE, schema=schema)
        # Our own terms, compared as they are: every corpus ranks alike. Made now, it finds what a killed ingest left.
        index = importlib.import_module("lancedb.index").FTS(base_tokenizer="whitespace", **_AS_IT_IS)
        table.create_index("terms", config=index)
    return open_store(location, fingerprint)


_AS_IT_IS: dict[str, Any] = {
    "with_position": False,
    "lower_case": False,
    "stem": False,
    "remove_stop_words": False,
    "ascii_folding": False,
}


def is_remote(location: str) -> bool:
    """Whether a location is an address of an object store."""
    return "://" in location


def _check_location(location: str) -> None:
    scheme, found, rest = location.partition("://")
    if found and (scheme not in REMOTE or not rest.strip("/")):
        known = ", ".join(f"{name}://bucket/folder" for name in REMOTE)
        raise UsageError(f"{location!r} is no place for a corpus; give a folder, or one of {known}")
    if found and "@" in rest:
        raise UsageError("no keys in the address of a corpus; put them where the store's own tools look")


def _names(database: Any) -> list[str]:
    found = database.list_tables()
    return list(getattr(found, "tables", found))


def _matrix(column: Any) -> NDArray[np.float16]:
    """(N, width) of a column of lists of one length."""
    if not len(column):
        return np.zeros((0, column.type.list_size), np.float16)
    parts = [np.asarray(chunk.flatten().to_numpy(zero_copy_only=False)) for chunk in column.chunks]
    return np.concatenate(parts).reshape(len(column), -1)


@contextlib.contextmanager
def _told(location: str) -> Iterator[None]:
    """LanceDB raises nearly anything for a damaged table or a store that cannot be reached: one line of ours."""
    try:
        yield
    except Dream3DError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(str(error), 300)}"
        raise DatasetError(f"the corpus {location} cannot be used ({reason})") from error


def _lancedb() -> Any:
    os.environ.setdefault("LANCE_LOG", "error")  # its warnings are for those who call it
    try:
        return importlib.import_module("lancedb")
    except ImportError as error:
        raise UsageError(
            "a corpus of your own needs LanceDB; install it with: pip install 'dream3d[retrieve]'"
        ) from error
