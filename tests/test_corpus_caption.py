"""Captions for pictures of a corpus that have none: guessed, labelled, and never written over others unasked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_retrieval_readers import png
from tiny_prior import WORDS, _tokenizer, edit_json, write_json
from transformers import BlipConfig, BlipForConditionalGeneration, GitConfig, GitForCausalLM
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.errors import PriorError, UsageError
from dream3d.prior.layout import PACKAGED
from dream3d.retrieval import captioning
from dream3d.retrieval.caption_model import CaptionModel
from dream3d.retrieval.captioning import NearestName, Rgb, caption_store
from dream3d.retrieval.encoder import CorpusEncoder
from dream3d.retrieval.figures import figures
from dream3d.retrieval.ingest import AddOptions, add
from dream3d.retrieval.lance import LanceStore, create_store, open_store
from dream3d.retrieval.search import Corpus

pytest.importorskip("lancedb")
MINI = PACKAGED / "mini"
TEXT: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 12,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
VISION: dict[str, Any] = {
    "hidden_size": 12,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


@pytest.fixture(scope="module")
def encoder() -> CorpusEncoder:
    return CorpusEncoder(MINI)


class Brightness:
    """Says how bright a picture is, and of black ones nothing."""

    name = "a photometer"

    def captions(self, pictures: Sequence[Rgb]) -> list[str]:
        return [
            "" if one.max() == 0 else f"a picture of {'bright' if one.mean() > 99 else 'dark'}\nfoxes"
            for one in pictures
        ]


@pytest.fixture
def store(tmp_path: Path, encoder: CorpusEncoder) -> LanceStore:
    """Two pictures without a caption, and one with."""
    source = tmp_path / "src"
    source.mkdir()
    for name in ("1.png", "2.png", "owl.png"):
        (source / name).write_bytes(png(int(name[0]) if name[0].isdigit() else 3, (32, 24)))
    made = create_store(str(tmp_path / "c"), encoder.fingerprint, (encoder.caption_width, encoder.picture_width))
    assert add([source], made, encoder, MINI, AddOptions()).skipped.reasons == [
        "1.png: no caption",
        "2.png: no caption",
    ]
    assert add([source], made, encoder, MINI, AddOptions(uncaptioned=True)).added == 2
    return made


def captions(store: LanceStore) -> list[tuple[str, str]]:
    names = ("caption", "guessed_by") if store.has_guesses else ("caption",)
    columns = store.columns(names)
    return sorted(zip(columns["caption"], columns.get("guessed_by", [""] * len(store)), strict=True))


def test_what_has_none_gets_one_with_a_label(
    store: LanceStore, encoder: CorpusEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captioning, "AT_ONCE", 1)
    assert captions(store) == [("", ""), ("", ""), ("owl", "")]
    assert "uncaptioned 2, which 'dream3d corpus caption' can guess" in figures(store)
    assert not Corpus(store, encoder, "c").search("foxes", 2).passes
    seen = []
    done = caption_store(store, encoder, Brightness(), report=lambda so_far: seen.append(so_far.written))
    store.finish()
    assert (done.written, done.kept, done.skipped.count, seen) == (2, 1, 0, [1, 2])
    opened = open_store(str(tmp_path / "c"), encoder.fingerprint)
    assert {by for caption, by in captions(opened) if "foxes" in caption} == {"a photometer"}
    assert ("owl", "") in captions(opened)
    assert "guessed    a photometer 2" in figures(opened)
    (first, *_) = Corpus(opened, encoder, "c").search("foxes", 2).results
    assert first.attribution["caption_guessed_by"] == "a photometer"
    assert "foxes" in first.caption
    assert "\n" not in first.caption
    (owl,) = Corpus(opened, encoder, "c").search("an owl", 2).results
    assert "caption_guessed_by" not in owl.attribution
    again = caption_store(opened, encoder, Brightness())
    assert (again.written, again.kept) == (0, 3)
    more = add([tmp_path / "src"], opened, encoder, MINI, AddOptions(uncaptioned=True))
    assert (more.added, more.known) == (0, 3)  # a picture keeps its key
    (tmp_path / "src/a new one.png").write_bytes(png(9, (32, 24)))
    assert add([tmp_path / "src"], opened, encoder, MINI, AddOptions()).added == 1
    assert ("a new one", "") in captions(opened)


def test_captions_are_replaced_only_when_asked(store: LanceStore, encoder: CorpusEncoder) -> None:
    done = caption_store(store, encoder, Brightness(), replace=True)
    assert (done.written, done.kept) == (3, 0)
    assert {by for _, by in captions(store)} == {"a photometer"}


def test_a_caption_that_came_meanwhile_is_kept(store: LanceStore, encoder: CorpusEncoder) -> None:
    class Slow(Brightness):
        def captions(self, pictures: Sequence[Rgb]) -> list[str]:
            caption_store(store, encoder, Brightness())
            return ["too late" for _ in pictures]

    caption_store(store, encoder, Slow())
    assert "too late" not in {caption for caption, _ in captions(store)}


def test_the_nearest_name_is_chosen(encoder: CorpusEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "names_of_pictures", lambda names: np.eye(3, encoder.picture_width, dtype=np.float32))
    looks = np.zeros((2, encoder.picture_width), np.float32)
    looks[0, 2], looks[1, :2] = 1, (0.6, 0.8)
    monkeypatch.setattr(encoder, "pictures", lambda pictures: looks)
    nearest = NearestName(encoder, ["a", "b", "c"], "mini")
    assert nearest.captions([np.zeros((8, 8, 3), np.uint8)] * 2) == ["c", "b"]
    assert nearest.name == "nearest of 3 names, image encoder of mini"
    with pytest.raises(UsageError, match="no names"):
        NearestName(encoder, [], "mini")


def write_model(folder: Path, kind: str) -> Path:
    """A captioning model of random weights; returns its folder."""
    folder.mkdir(parents=True)
    torch.manual_seed(3)
    if kind == "blip":
        config: Any = BlipConfig(
            text_config={**TEXT, "sep_token_id": 3, "encoder_hidden_size": 12, "projection_dim": 8},
            vision_config={**VISION, "projection_dim": 8},
            projection_dim=8,
            image_text_hidden_size=8,
        )
        model: Any = BlipForConditionalGeneration(config)
    else:
        config = GitConfig(vision_config=VISION, **TEXT)
        model = GitForCausalLM(config)
    write_json(folder / "config.json", {**config.to_dict(), "model_type": kind})
    state = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny-blip", "blip")


@pytest.mark.parametrize("kind", ["blip", "git"])
def test_a_model_writes_words_of_its_tokenizer(tmp_path: Path, kind: str) -> None:
    model = CaptionModel(write_model(tmp_path / "tiny", kind))
    assert model.name == f"{kind.upper()} of tiny"
    said = model.captions([np.full((20, 30, 3), 200, np.uint8), np.zeros((16, 16, 3), np.uint8)])
    assert len(said) == 2
    words = {word for text in said for word in text.split()}
    assert words
    assert words <= set(WORDS)
    assert said == model.captions([np.full((20, 30, 3), 200, np.uint8), np.zeros((16, 16, 3), np.uint8)])


def test_folders_that_are_no_model_are_refused(blip: Path, tmp_path: Path) -> None:
    def changed(name: str, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in blip.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        edit_json(folder / "config.json", **changes)
        return folder

    with pytest.raises(PriorError, match=r"lacks config\.json"):
        CaptionModel(tmp_path)
    with pytest.raises(PriorError, match="'model_type' is 'llava', not"):
        CaptionModel(changed("a", model_type="llava"))
    with pytest.raises(PriorError, match="code or an adapter of its own"):
        CaptionModel(changed("b", auto_map={"AutoModel": "evil.Model"}))
    with pytest.raises(PriorError, match="no table 'vision_config'"):
        CaptionModel(changed("c", vision_config=3))
    with pytest.raises(PriorError, match="'num_hidden_layers' is 1000000"):
        CaptionModel(changed("d", vision_config={**VISION, "num_hidden_layers": 1_000_000}))
    folder = changed("e")
    (folder / "model.safetensors").write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(PriorError, match="not a safetensors file"):
        CaptionModel(folder)
    folder = changed("f")
    save_file({"nothing": torch.zeros(2)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(PriorError, match="does not belong to its configuration"):
        CaptionModel(folder)


def test_the_command_line(store: LanceStore, blip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("# birds\nbarn owl\ntawny owl\n")

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["corpus", "caption", *words], env={"COLUMNS": "120"})
        return result.exit_code, result.output

    code, output = run("c", "--names", "names.txt")
    assert code == 0, output
    assert "guessed 2 captions (nearest of 2 names, image encoder of mini), kept 1, skipped 0" in output
    assert {caption for caption, by in captions(store) if by} <= {"barn owl", "tawny owl"}
    found = CliRunner().invoke(app, ["corpus", "search", "a barn owl", "--corpus", "c"], env={"COLUMNS": "160"})
    assert "owl (guess)" in found.output
    code, output = run("c", "--model", str(blip), "--replace")
    assert code == 0, output
    assert "captions (BLIP of tiny-blip), kept 0" in output
    assert run("c", "--model", str(blip), "--names", "names.txt")[0] == 2
    assert "nothing holds no corpus" in run("nothing")[1]
