"""Terms, BM25, fusion, the threshold and near-duplicates, with numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream3d.retrieval.bm25 import BM25, idf
from dream3d.retrieval.dedupe import LOOK_BYTES, distinct, look, nearly_same
from dream3d.retrieval.encoder import subject_words
from dream3d.retrieval.fusion import passing, places, reciprocal_rank
from dream3d.retrieval.records import Found, Retrieved, picture
from dream3d.retrieval.terms import MAX_TERMS, stem, terms, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A photo of the red FOXES", ["red", "fox"]),
        ("the photo", ["photo"]),
        ("of the", []),
        ("", []),
        ("Café crème", ["cafe", "creme"]),
        ("Rubik's cubes", ["rubik", "cube"]),
        ("a cactus, glass and a tennis racket", ["cactus", "glass", "tennis", "racket"]),
        ("ponies on benches; shoes", ["pony", "bench", "shoe"]),
        ("penny-farthing_2", ["penny", "farthing", "2"]),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@given(st.text(max_size=200))
def test_terms_are_words_without_blanks_and_stable(text: str) -> None:
    found = terms(text)
    assert len(found) <= MAX_TERMS
    assert all(term and not any(letter.isspace() for letter in term) for term in found)
    assert words(" ".join(words(text))) == words(text)


def test_a_stem_is_that_of_singular_and_plural() -> None:
    pairs = [
        ("fox", "foxes"),
        ("pony", "ponies"),
        ("church", "churches"),
        ("tree", "trees"),
        ("shoe", "shoes"),
        ("potato", "potatoes"),
        ("dog", "dogs"),
        ("bus", "bus"),
    ]
    assert all(stem(one) == stem(many) for one, many in pairs)


def test_a_subject_leaves_out_what_is_beside_it() -> None:
    assert subject_words("a photo of a dog on a beach") == ["dog"]
    assert subject_words("a red fox with a long tail") == ["red", "fox"]
    assert subject_words("with a long tail") == ["long", "tail"]


def test_bm25_by_hand() -> None:
    # N = 2, both have "fox": idf = ln(1 + 0.5 / 2.5) = ln 1.2. The mean length is 2.
    index = BM25([["fox"], ["fox", "red", "fox"]])
    first = math.log(1.2) * 2.2 * 1 / (1 + 1.2 * (0.25 + 0.75 * 1 / 2))
    second = math.log(1.2) * 2.2 * 2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 2))
    assert index.scores(["fox"]) == pytest.approx([first, second])
    assert [row for row, _ in index.best(["fox"], 5)] == [0, 1]
    red = math.log(1 + 1.5 / 1.5) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 3 / 2))
    ((row, score),) = index.best(["red", "red", "owl"], 5)
    assert row == 1
    assert score == pytest.approx(red)
    assert index.best(["owl"], 5) == []
    assert BM25([]).best(["fox"], 5) == []
    assert idf(10, 10) > 0


def test_reciprocal_rank_fusion_by_hand() -> None:
    rankings = {"words": ["a", "b"], "captions": ["b", "c"], "pictures": ["c"]}
    fused = reciprocal_rank(rankings, {"pictures": 0.5}, offset=60)
    expected = {"b": 1 / 62 + 1 / 61, "c": 1 / 62 + 0.5 / 61, "a": 1 / 61}
    assert [key for key, _ in fused] == ["b", "c", "a"]
    assert dict(fused) == pytest.approx(expected)
    assert places(rankings, "c") == (("captions", 2), ("pictures", 1))
    assert reciprocal_rank({"one": ["x", "y"], "two": []}) == [("x", 1 / 61), ("y", 1 / 62)]
    assert [key for key, _ in reciprocal_rank({"one": ["x"], "two": ["y"]})] == ["x", "y"]
    with pytest.raises(ValueError, match="twice"):
        reciprocal_rank({"one": ["x", "x"]})


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True), max_size=4))
def test_fusion_keeps_every_key_once_and_falls(rankings: list[list[str]]) -> None:
    fused = reciprocal_rank({str(i): keys for i, keys in enumerate(rankings)})
    assert sorted(key for key, _ in fused) == sorted({key for keys in rankings for key in keys})
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)


def test_the_threshold_takes_what_reaches_it() -> None:
    assert passing([0.9, 0.74, 0.75, -1.0], 0.75) == [0, 2]
    assert passing([], 0.75) == []


def random_picture(seed: int, side: int = 64) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return blocks.repeat(side // 8, 0).repeat(side // 8, 1)


def test_a_look_is_that_of_another_size_and_a_little_noise() -> None:
    original = random_picture(1)
    assert len(look(original)) == LOOK_BYTES
    assert look(original) == look(random_picture(1, 128))
    noisy = np.clip(original.astype(int) + np.random.default_rng(0).integers(-9, 10, original.shape), 0, 255)
    assert nearly_same(look(original), look(noisy.astype(np.uint8)))
    assert not nearly_same(look(original), look(random_picture(2)))


def test_line_drawings_on_white_are_told_apart() -> None:
    one, other = np.full((64, 64, 3), 255, np.uint8), np.full((64, 64, 3), 255, np.uint8)
    one[10:12, 5:60], other[5:60, 40:42] = 0, 0
    assert not nearly_same(look(one), look(other))
    white = np.full((64, 64, 3), 255, np.uint8)
    assert nearly_same(look(white), look(white - 3))
    assert not nearly_same(look(white), look(white - 20))


def test_of_pictures_that_are_the_same_the_first_stays() -> None:
    looks = [look(random_picture(seed)) for seed in (1, 2, 1, 3, 2)]
    assert distinct(looks) == [0, 1, 3]
    assert distinct([]) == []


def test_a_key_is_that_of_content_and_caption() -> None:
    one = picture(b"png", " a  fox\n", author="Ann")
    assert one.caption == "a fox"
    assert one.key == picture(b"png", "a fox", author="Bob").key
    assert one.key != picture(b"png", "a vixen").key
    assert one.key != picture(b"gif", "a fox").key
    assert picture(b"", "x" * 999, "\x1b[31m").caption == "x" * 500
    assert "\x1b" not in picture(b"", "a", "\x1b[31m").source


def test_what_was_found_says_why() -> None:
    one = Retrieved(b"", "red fox", 0.1, 0.8, "", "", "MIT", "k")
    assert one.attribution == {
        "caption": "red fox",
        "author": "unknown",
        "licence": "MIT",
        "source": "unknown",
        "key": "k",
    }
    assert "1 picture of 'a fox'" in Found("a fox", (one,), 0.8, 0.75, "red fox").explanation
    nothing = Found("an okapi", (), 0.41, 0.75, "giraffe")
    assert not nothing.passes
    assert "0.41, below the threshold of 0.75" in nothing.explanation
    assert "nothing found" in Found("x", (), -1.0, 0.75).explanation
