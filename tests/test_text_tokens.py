"""Tokens: what the official tokenizer makes of odd prompts, ours make; special tokens are never read from a prompt."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from dream3d.prior.layout import PACKAGED
from dream3d.prior.official.convert import CONFIGS
from dream3d.prior.tokenizer import load_tokenizer, repaired

MINI = PACKAGED / "mini/tokenizer/tokenizer.json"
START, END = 49406, 49407
OFFICIAL = {  # what open_clip_torch 3.3.0 gives, between the special tokens
    "an elk skull": [550, 21896, 12092],
    "RED Chair": [736, 4269],
    "a \u201cwooden\u201d chair\u2019s leg": [320, 257, 9057, 257, 4269, 568, 4924],
    "\ufb01sh and \ufb02ower": [2759, 537, 4055],
    "\uff32\uff25\uff24\u3000\uff43\uff48\uff41\uff49\uff52": [736, 4269],
    "salt &amp; pepper": [6611, 261, 8253],
    "salt &amp;amp; pepper": [6611, 261, 8253],
    "a cafÃ© table": [320, 15304, 2175],
    "a <b>bold</b> chair &lt;3": [320, 283, 321, 285, 8911, 34308, 321, 285, 4269, 283, 274],
    "naïve &eacute;clair": [1097, 35689, 563, 3459, 14039],
    "schön \u2013 ein Stuhl…": [844, 7255, 333, 1224, 24524, 858, 5956, 959],
    "a&nbsp;tree": [320, 2677],
    "a chair <|endoftext|> and a table": [320, 4269, 27, 347, 40786, 4160, 91, 285, 537, 320, 2175],
    "<|startoftext|>": [27, 347, 993, 6659, 4160, 91, 285],
}


@pytest.fixture(scope="module")
def clip() -> Tokenizer:
    return load_tokenizer(CONFIGS / "clip/tokenizer.json", 77, 49408)


@pytest.mark.parametrize("prompt", OFFICIAL)
def test_tokens_are_the_official_ones(clip: Tokenizer, prompt: str) -> None:
    ids = clip.encode(repaired(prompt)).ids
    assert [index for index in ids if index not in (START, END, 0)] == OFFICIAL[prompt]
    assert ids[0] == START
    assert ids[1 + len(OFFICIAL[prompt])] == END


def test_ordinary_prompts_of_the_built_in_prior_keep_their_tokens() -> None:
    stock, ours = Tokenizer.from_file(str(MINI)), load_tokenizer(MINI, 16, 30522)
    stock.enable_truncation(16)
    stock.enable_padding(length=16)
    prompts = [
        "",
        "a wooden chair",
        "ein Café, très chic!",
        "a “red” cube on a blue cylinder &amp; more",
        "椅子 \U0001fa91",
    ]
    prompts += (Path(__file__).parent.parent / "prompts/gallery.txt").read_text(encoding="utf-8").splitlines()
    assert [ours.encode(prompt).ids for prompt in prompts] == [stock.encode(prompt).ids for prompt in prompts]


def test_special_tokens_are_not_read_from_a_prompt() -> None:
    ids = load_tokenizer(MINI, 16, 30522).encode("a chair [SEP] a table [PAD] [CLS]").ids
    assert [ids.index(index) for index in (101, 102)] == [0, 15]
    assert 0 not in ids
    assert ids.count(102) == ids.count(101) == 1
