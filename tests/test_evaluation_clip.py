"""CLIP as the judge: a tiny one of random weights, against transformers' own functions, and damaged folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny_prior import WORDS, edit_json, write_tiny_prior
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.errors import PriorError
from dream3d.evaluation.clip import MEAN, STD, ClipFolder

SIDE, TOKENS = 16, 8


def pooled(found: Any) -> torch.Tensor:
    """What transformers gives as features: a tensor before version 5, an output with it since."""
    features: torch.Tensor = getattr(found, "pooler_output", found)
    return features


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    folder.mkdir()
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**shape, "vocab_size": len(WORDS), "max_position_embeddings": TOKENS, "eos_token_id": 3}
    vision = {**shape, "image_size": SIDE, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    config = {"model_type": "clip", "projection_dim": 8, "text_config": text, "vision_config": vision}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_it_says_what_transformers_says(tiny: Path) -> None:
    clip: Any = ClipFolder(tiny)
    pictures = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (MEAN, STD))
    ids = torch.tensor([[2, 4, 5, 7, 3, 0, 0, 0], [2, 9, 3, 0, 0, 0, 0, 0]])  # a red chair; tree
    with torch.no_grad():
        seen = pooled(clip._model.get_image_features(pixel_values=(pictures - mean) / std))
        read = pooled(clip._model.get_text_features(input_ids=ids, attention_mask=(ids > 0).long()))
    torch.testing.assert_close(clip.embed_images(pictures), F.normalize(seen, dim=-1))
    torch.testing.assert_close(clip.embed_texts(["a red chair", "tree"]), F.normalize(read, dim=-1))
    assert clip.embed_images(torch.rand(2, 3, 40, 40)).shape == (2, 8)
    assert len(clip.digest) == 3 * 64
    assert clip.name == "CLIP of tiny-clip"


def copied(tiny: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_folders_that_are_none_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=r"lacks config\.json"):
        ClipFolder(tmp_path)
    folder = copied(tiny, tmp_path / "a")
    edit_json(folder / "config.json", text_config=7)
    with pytest.raises(PriorError, match="no table 'text_config'"):
        ClipFolder(folder)
    folder = copied(tiny, tmp_path / "b")
    edit_json(folder / "config.json", projection_dim=-1)
    with pytest.raises(PriorError, match="'projection_dim' is -1"):
        ClipFolder(folder)
    folder = copied(tiny, tmp_path / "c")
    edit_json(folder / "config.json", projection_dim=9)
    with pytest.raises(PriorError, match="does not belong"):
        ClipFolder(folder)
    folder = copied(tiny, tmp_path / "d")
    tensors = load_file(folder / "model.safetensors")
    del tensors["logit_scale"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(PriorError, match="logit_scale"):
        ClipFolder(folder)
    (folder / "model.safetensors").write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(PriorError, match="not a safetensors file"):
        ClipFolder(folder)


def test_the_command_takes_its_folder_as_the_judge(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dream3d.evaluation.encoders.is_installed", lambda: False)
    prior = write_tiny_prior(tmp_path / "prior")
    words = ["evaluate", str(prior), "--judge", str(tiny), "--limit", "2", "--steps", "2", "--quiet"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "evaluation/evaluation.json").read_text("utf-8"))
    assert record["judges"]["encoder"]["name"] == "CLIP of tiny-clip"
    assert "text_image" in record["subjects"]["tiny"]["figures"]
