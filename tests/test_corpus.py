"""The built-in corpus and ``dream3d corpus`` from end to end."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from test_retrieval_store import MINI, fill
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.errors import DatasetError, UsageError
from dream3d.retrieval import builtin
from dream3d.retrieval.builtin import BUILTIN, open_packed, read_table, write_packed
from dream3d.retrieval.encoder import CorpusEncoder
from dream3d.retrieval.opening import open_corpus
from dream3d.retrieval.pictures import check_picture
from dream3d.retrieval.records import picture
from dream3d.retrieval.search import Corpus
from dream3d.retrieval.sheet import contact_sheet, shortened

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def encoder() -> CorpusEncoder:
    return CorpusEncoder(MINI)


@pytest.fixture(scope="module")
def shipped() -> Corpus:
    return open_corpus()


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["corpus", *words], env={"COLUMNS": "120"})
    return result.exit_code, result.output


def test_the_built_in_corpus_is_small_free_and_whole(encoder: CorpusEncoder) -> None:
    assert sum(path.stat().st_size for path in BUILTIN.iterdir()) <= 10_000_000
    entries = read_table(BUILTIN)
    assert len(entries) >= 850
    assert {entry.licence for entry in entries} <= {"MIT", "CC0", "public domain"}
    assert all(entry.caption and entry.source and entry.author for entry in entries)
    with zipfile.ZipFile(BUILTIN / "pictures.zip") as archive:
        assert set(archive.namelist()) == {f"{entry.key}.webp" for entry in entries}
    store = open_packed(BUILTIN, encoder)
    for entry in entries[::40]:
        image = store.rows([entry.key])[0].image
        assert max(check_picture(image).rgb.shape) <= 256
        assert picture(image, entry.caption).key == entry.key


def test_its_vectors_are_those_of_the_encoder_that_ships(
    encoder: CorpusEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("run: python examples/corpus/build.py --vectors-only --out dream3d/corpora/builtin")

    monkeypatch.setattr(builtin, "_embed", fail)
    open_packed(BUILTIN, encoder)


@pytest.mark.parametrize(("prompt", "caption"), [("a backpack", "backpack"), ("a photo of some bikes", "bicycle")])
def test_held_out_concepts_are_found(shipped: Corpus, prompt: str, caption: str) -> None:
    found = shipped.search(prompt, 4)
    assert caption in {one.caption for one in found.results}
    assert all(one.author and one.licence for one in found.results)
    assert all(check_picture(one.image) for one in found.results)


@pytest.mark.parametrize("prompt", ["an axolotl", "a didgeridoo", "a theremin"])
def test_of_what_it_has_not_nothing_passes(shipped: Corpus, prompt: str) -> None:
    found = shipped.search(prompt)
    assert not found.passes
    assert found.best < found.threshold
    assert f"{found.best:.2f}, below the threshold of {found.threshold:.2f}" in found.explanation


def test_the_same_prompt_finds_the_same(shipped: Corpus) -> None:
    first, again = shipped.search("a red fox", 6), shipped.search("a red fox", 6)
    assert first == again
    assert shipped.search("a red fox", 2).results == first.results[:2]


def test_it_needs_no_lancedb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert open_corpus().search("an elephant", 1).passes


@pytest.mark.parametrize(("count", "threshold"), [(0, 0.5), (65, 0.5), (4, 1.5), (4, float("nan"))])
def test_settings_out_of_range(shipped: Corpus, count: int, threshold: float) -> None:
    with pytest.raises(UsageError):
        shipped.search("a fox", count, threshold)


@pytest.mark.parametrize("prompt", ["the of", "", "!!", "a\x00b"])
def test_prompts_that_name_nothing(shipped: Corpus, prompt: str) -> None:
    with pytest.raises(UsageError):
        shipped.search(prompt)


def test_a_packed_corpus_is_written_and_read(tmp_path: Path, encoder: CorpusEncoder) -> None:
    webp = [open_packed(BUILTIN, encoder).rows([entry.key])[0].image for entry in read_table(BUILTIN)[:2]]
    pictures = [picture(webp[0], "a fox", "here", "Ann", "CC0"), picture(webp[1], "an owl", "there", "Bob", "MIT")]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_packed(tmp_path / name, pictures, encoder)
    for file in (builtin.TABLE, builtin.PICTURES, builtin.VECTORS):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    found = Corpus(open_packed(tmp_path / "one", encoder), encoder, "one").search("an owl", 2)
    assert [(one.caption, one.author, one.image) for one in found.results] == [("an owl", "Bob", webp[1])]


@pytest.mark.parametrize("name", ["pictures.tsv", "pictures.zip", "vectors.safetensors"])
def test_a_damaged_packed_corpus_is_refused(tmp_path: Path, encoder: CorpusEncoder, name: str) -> None:
    for file in BUILTIN.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_bytes((BUILTIN / name).read_bytes()[:5000])
    with pytest.raises(DatasetError, match=name.partition(".")[0]):
        open_packed(tmp_path, encoder)


def test_the_command_line_searches_without_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run("search", "an elephant", "--count", "2")
    assert code == 0
    assert "the built-in corpus: 2 pictures of 'an elephant'" in output
    assert "MIT" in output
    with Image.open(tmp_path / "an-elephant-pictures.png") as image:
        attributed = json.loads(image.info["dream3d"])["pictures"]
    assert {"author", "licence", "source", "caption", "key"} == set(attributed[0])
    code, output = run("search", "an axolotl", "--out", "x.png")
    assert code == 0
    assert "nothing passes for 'an axolotl'" in output
    assert "nearest, not used" in output


def test_the_command_line_adds_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lancedb")
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "src")
    (tmp_path / "src" / "bad.png").write_bytes(b"")
    code, output = run("add", "c", "src", "--captions-only")
    assert code == 0
    assert "skipped bad.png: an empty file" in output
    assert "added 6, already there 0, skipped 1" in output
    assert "already there 6" in run("add", "c", "src")[1]
    code, output = run("info", "c")
    assert code == 0
    assert "licences   CC0 6" in output
    code, output = run("search", "a fox", "--corpus", "c")
    assert code == 0
    assert "A0" in output
    assert (tmp_path / "a-fox-pictures.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add", "c", "missing"], "missing is not there"),
        (["add", "c", ".", "--address", "auto"], "--address goes with --engine ray"),
        (["add", "c", ".", "--workers", "0"], "--workers is 0"),
        (["search", "a fox", "--corpus", "nothing"], "nothing holds no corpus"),
        (["search", "a fox", "--out", "x.gif"], "x.gif"),
        (["search", "a fox", "--count", "1000"], "count is 1000"),
        (["info", "nothing"], "nothing holds no corpus"),
    ],
)
def test_refused_requests_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run(*words)
    assert code == 2
    assert message in output
    assert list(tmp_path.iterdir()) == []


def test_a_contact_sheet_shows_what_cannot_be_decoded_as_grey(shipped: Corpus) -> None:
    results = shipped.search("a cat", 3).results
    broken = [type(one)(b"", *list(vars(one).values())[1:]) for one in results[:1]]
    page = contact_sheet([*results, *broken])
    assert page.shape == (241, 4 * 200, 3)
    assert (page[10, 3 * 200 + 20] == 160).all()
    assert shortened("x" * 40, 10) == "xxxxxxx..."
