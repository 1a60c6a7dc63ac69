"""A tiny prior that can be personalised, and small photos of one thing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_prior import WORDS, edit_json, write_json, write_tiny_prior
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from dream3d.prior.image_encoder import EncoderConfig, Towers, save_towers

MORE = ["photo", "of", "dog", "wearing", "sk", "##s", "q", "##q", "hat"]
"""Words and pieces: "sks" is two pieces, "qqqq" four."""
NAMES = ["chair", "dog", "table", "tree"]
SIDE = 16
"""Pixels of the tiny prior's images."""


def write_personal_prior(folder: Path, *, encoder: bool = True) -> Path:
    """A tiny prior with names, a larger vocabulary and, if asked for, an image encoder of random weights."""
    write_tiny_prior(folder)
    edit_json(folder / "prior.json", names=NAMES)
    words = [*WORDS, *MORE]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer/tokenizer.json"))
    torch.manual_seed(1)
    bert = BertConfig(
        vocab_size=len(words), hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    write_json(folder / "text_encoder/config.json", bert.to_dict())
    save_file(BertModel(bert, add_pooling_layer=False).state_dict(), folder / "text_encoder/model.safetensors")
    if encoder:
        (folder / "image_encoder").mkdir()
        save_towers(
            Towers(EncoderConfig(image_size=16, channels=(8, 16), dim=8, text_width=12)), folder / "image_encoder"
        )
    return folder


def thing(index: int, side: int = 48) -> np.ndarray:
    """(side, side, 3): a two-coloured block before a light wall, elsewhere and in other sizes in each photo."""
    rgb = np.full((side, side, 3), 230, np.uint8)
    left, top = side // 6 + 2 * index, side // 4 + index
    rgb[top : top + side // 2, left : left + side // 2] = (200, 40, 30)
    rgb[top : top + side // 4, left : left + side // 8 * (1 + index % 3)] = (20, 60, 180)
    return rgb


def write_photos(folder: Path, count: int = 3, side: int = 48) -> Path:
    """A folder of so many photos of one thing."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(thing(index, side)).save(folder / f"photo-{index}.png")
    return folder
