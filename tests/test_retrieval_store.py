"""Corpora in LanceDB: adding, going on after a kill, searching, and stores that cannot be used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_retrieval_readers import png

from dream3d.errors import DatasetError, UsageError
from dream3d.prior.layout import PACKAGED
from dream3d.retrieval import ingest, lance
from dream3d.retrieval.encoder import CorpusEncoder
from dream3d.retrieval.ingest import AddOptions, Summary, add
from dream3d.retrieval.lance import LanceStore, create_store, open_store
from dream3d.retrieval.memory import Entry, MemoryStore
from dream3d.retrieval.search import Corpus
from dream3d.retrieval.terms import terms

lancedb = pytest.importorskip("lancedb")
MINI = PACKAGED / "mini"
CAPTIONS = ("a red fox", "foxes in the snow", "an old brass astrolabe", "a barn owl", "a tawny owl", "red red wine")


@pytest.fixture(scope="module")
def encoder() -> CorpusEncoder:
    return CorpusEncoder(MINI)


def fill(folder: Path, captions: tuple[str, ...] = CAPTIONS, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, caption in enumerate(captions, start=first):
        (folder / f"{i}.png").write_bytes(png(i, (32, 24)))
        (folder / f"{i}.txt").write_text(caption, "utf-8")
        (folder / f"{i}.json").write_text(f'{{"author": "A{i}", "licence": "CC0", "source": "test"}}', "utf-8")
    return folder


def make(place: Path, encoder: CorpusEncoder) -> LanceStore:
    return create_store(str(place), encoder.fingerprint, (encoder.caption_width, encoder.picture_width))


def add_to(store: LanceStore, source: Path, encoder: CorpusEncoder, **options: Any) -> Summary:
    return add([source], store, encoder, MINI, AddOptions(**options))


def test_what_is_added_is_found_with_author_and_licence(tmp_path: Path, encoder: CorpusEncoder) -> None:
    store = make(tmp_path / "c", encoder)
    (fill(tmp_path / "src") / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "src" / "bad.txt").write_text("a fox")
    summary = add_to(store, tmp_path / "src", encoder)
    store.finish()
    assert (summary.added, summary.known, summary.skipped.count) == (len(CAPTIONS), 0, 1)
    found = Corpus(store, encoder, "c").search("a fox", 4)
    assert {one.caption for one in found.results} == {"a red fox", "foxes in the snow"}
    first = next(one for one in found.results if one.caption == "a red fox")
    assert (first.author, first.licence, first.source, first.image) == ("A0", "CC0", "test", png(0, (32, 24)))
    assert first.similarity >= found.threshold
    nothing = Corpus(store, encoder, "c").search("a submarine", 4)
    assert not nothing.passes
    assert nothing.best < nothing.threshold
    assert nothing.best_caption in CAPTIONS
    assert len(nothing.below) == 4


def test_adding_again_doubles_nothing(tmp_path: Path, encoder: CorpusEncoder) -> None:
    store = make(tmp_path / "c", encoder)
    add_to(store, fill(tmp_path / "src"), encoder)
    (tmp_path / "src" / "0.png").rename(tmp_path / "src" / "elsewhere.png")
    (tmp_path / "src" / "0.txt").rename(tmp_path / "src" / "elsewhere.txt")
    fill(tmp_path / "src", ("a new one",), first=50)
    again = add_to(make(tmp_path / "c", encoder), tmp_path / "src", encoder)
    assert (again.added, again.known) == (1, len(CAPTIONS))
    assert len(open_store(str(tmp_path / "c"), encoder.fingerprint)) == len(CAPTIONS) + 1


def test_both_kinds_of_store_rank_alike(tmp_path: Path, encoder: CorpusEncoder) -> None:
    store = make(tmp_path / "c", encoder)
    add_to(store, fill(tmp_path / "src"), encoder)
    store.finish()
    columns = store.columns(("key", "caption", "look"))
    entries = [Entry(key, caption, "", "", "") for key, caption in zip(columns["key"], columns["caption"], strict=True)]
    vectors = store._in_memory()
    looks = np.stack([np.frombuffer(one, np.uint8) for one in columns["look"]])
    order = [vectors.places[key] for key in columns["key"]]
    memory = MemoryStore(entries, vectors.captions[order], vectors.pictures[order], looks, lambda key: b"")
    for query in ("fox", "red owl", "an old astrolabe", "snow", "submarine"):
        assert set(memory.by_words(terms(query), 9)) == set(store.by_words(terms(query), 9)), query
    assert memory.by_words(["red"], 1) == store.by_words(["red"], 1)  # twice in "red red wine"


def test_above_the_limit_lancedb_compares_the_vectors(
    tmp_path: Path, encoder: CorpusEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(tmp_path / "c", encoder)
    add_to(store, fill(tmp_path / "src"), encoder)
    inside = Corpus(store, encoder, "c").search("an owl", 3)
    monkeypatch.setattr(lance, "ROWS_IN_MEMORY", 0)
    outside = Corpus(open_store(str(tmp_path / "c"), encoder.fingerprint), encoder, "c").search("an owl", 3)
    assert [one.caption for one in outside.results] == [one.caption for one in inside.results]
    assert outside.best == pytest.approx(inside.best, abs=1e-3)


def test_a_stopped_ingest_leaves_a_store_that_is_searched_and_goes_on(
    tmp_path: Path, encoder: CorpusEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "AT_ONCE", 2)
    monkeypatch.setattr(ingest, "PER_APPEND", 2)
    store, append, calls = make(tmp_path / "c", encoder), LanceStore.append, []

    def killed(self: LanceStore, rows: Any) -> None:
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        append(self, rows)

    monkeypatch.setattr(LanceStore, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        add_to(store, fill(tmp_path / "src"), encoder)
    monkeypatch.setattr(LanceStore, "append", append)
    opened = open_store(str(tmp_path / "c"), encoder.fingerprint)
    assert len(opened) == 4
    assert Corpus(opened, encoder, "c").search("a fox", 1).passes
    summary = add_to(opened, tmp_path / "src", encoder)
    assert (summary.added, summary.known, len(opened)) == (2, 4, 6)


KILLED = """
import sys
from pathlib import Path
from dream3d.retrieval import ingest, lance
from dream3d.retrieval.encoder import CorpusEncoder
ingest.AT_ONCE = ingest.PER_APPEND = 4
place, source, mini = sys.argv[1:]
encoder = CorpusEncoder(Path(mini))
store = lance.create_store(place, encoder.fingerprint, (encoder.caption_width, encoder.picture_width))
report = lambda summary: print(summary.added, flush=True)
ingest.add([Path(source)], store, encoder, Path(mini), ingest.AddOptions(), report=report)
"""


@pytest.mark.slow
def test_a_kill_during_ingest_corrupts_nothing(tmp_path: Path, encoder: CorpusEncoder) -> None:
    source, place = fill(tmp_path / "src", tuple(f"thing number {i}" for i in range(60))), tmp_path / "c"
    for after in (2, 4):
        command = [sys.executable, "-c", KILLED, str(place), str(source), str(MINI)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(after):
                assert process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
        store = open_store(str(place), encoder.fingerprint)
        assert 0 < len(store) < 60
        assert len(store.keys()) == len(store)
        assert Corpus(store, encoder, "c").search("thing", 1, threshold=0.5).passes
    summary = add_to(store, source, encoder)
    assert summary.known + summary.added == len(store) == 60


@pytest.mark.slow
def test_processes_share_the_work(tmp_path: Path, encoder: CorpusEncoder) -> None:
    store = make(tmp_path / "c", encoder)
    (fill(tmp_path / "src") / "bad.png").write_bytes(b"no picture")
    summary = add_to(store, tmp_path / "src", encoder, workers=2)
    assert (summary.added, summary.skipped.count, len(store)) == (6, 1, 6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_tasks_of_ray_add_to_one_store(tmp_path: Path, encoder: CorpusEncoder) -> None:
    pytest.importorskip("ray")
    from dream3d.retrieval.cluster import add_on_ray

    make(tmp_path / "c", encoder)
    summary = add_on_ray([fill(tmp_path / "src")], str(tmp_path / "c"), MINI, AddOptions(2))
    # Opened anew: a store that is open shows what was there when it was opened, and what it adds itself.
    assert (summary.added, len(open_store(str(tmp_path / "c"), encoder.fingerprint).keys())) == (6, 6)


def test_stores_that_cannot_be_used(tmp_path: Path, encoder: CorpusEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path / "c")
    with pytest.raises(UsageError, match="holds no corpus; make it with: dream3d corpus add"):
        open_store(place, encoder.fingerprint)
    for address in ("ftp://x/y", "s3://", "s3://user:secret@bucket/x"):
        with pytest.raises(UsageError) as refused:
            open_store(address, encoder.fingerprint)
        assert "secret" not in str(refused.value)
    make(tmp_path / "c", encoder)
    assert len(open_store(place, encoder.fingerprint)) == 0
    with pytest.raises(DatasetError, match="another encoder"):
        open_store(place, "0" * 16)
    monkeypatch.setattr(lance, "VERSION", 0)
    with pytest.raises(DatasetError, match="version 1; this dream3d knows 0"):
        open_store(place, encoder.fingerprint)
    monkeypatch.undo()
    lancedb.connect(tmp_path / "other").create_table("pictures", data=[{"a": 1}])
    with pytest.raises(DatasetError, match="no corpus of dream3d"):
        open_store(str(tmp_path / "other"), encoder.fingerprint)
    for file in (tmp_path / "c" / "pictures.lance").rglob("*.manifest"):
        file.write_bytes(b"half a manifest")
    with pytest.raises(DatasetError, match="cannot be used"):
        open_store(place, encoder.fingerprint)


def test_an_empty_corpus_finds_nothing(tmp_path: Path, encoder: CorpusEncoder) -> None:
    found = Corpus(make(tmp_path / "c", encoder), encoder, "c").search("a fox")
    assert not found.passes
    assert "nothing found" in found.explanation


def test_without_lancedb_the_message_names_the_extra(
    tmp_path: Path, encoder: CorpusEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(UsageError, match=r"pip install 'dream3d\[retrieve\]'"):
        make(tmp_path / "c", encoder)


def test_pictures_that_are_nearly_the_same_are_found_once(tmp_path: Path, encoder: CorpusEncoder) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(1, (32, 24)))
        (tmp_path / f"{i}.txt").write_text(("a red fox", "one red fox", "the fox")[i])
    (tmp_path / "3.png").write_bytes(png(2, (32, 24)))
    (tmp_path / "3.txt").write_text("a red fox")
    store = make(tmp_path / "c", encoder)
    add_to(store, tmp_path, encoder)
    assert len(store) == 4
    assert len(Corpus(store, encoder, "c").search("a red fox", 4).results) == 2
