from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_samples import record
from hypothesis import given
from hypothesis import strategies as st

from dream3d.dataset.captions.colors import REFERENCES, dominant_colors
from dream3d.dataset.captions.concepts import Leak, leaks, mentions, read_concepts
from dream3d.dataset.captions.templates import article, captions_for, materials_in, with_article
from dream3d.dataset.procedural.families import FAMILIES
from dream3d.dataset.procedural.make import design
from dream3d.dataset.records import SourceAsset
from dream3d.errors import DatasetError, UsageError

ROOT = Path(__file__).parents[1]
HELD_OUT = ROOT / "prompts" / "held-out-concepts.txt"


def paint(*parts: tuple[tuple[int, int, int], int]) -> Any:
    """Opaque pixels (N, 4): so many of each colour."""
    pixels = [(*rgb, 255) for rgb, count in parts for _ in range(count)]
    return np.array(pixels, np.uint8)


def make(name: str = "chair", colors: tuple[str, ...] = (), seed: int = 0, **fields: Any) -> tuple[str, ...]:
    asset = SourceAsset("key", Path("model.obj"), name, **fields)
    return captions_for(asset, colors, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0, 0, 0), "black"),
        ((255, 255, 255), "white"),
        ((128, 128, 128), "grey"),
        ((220, 20, 20), "red"),
        ((255, 140, 0), "orange"),
        ((255, 225, 20), "yellow"),
        ((20, 150, 40), "green"),
        ((18, 50, 20), "green"),
        ((30, 60, 200), "blue"),
        ((20, 25, 60), "blue"),
        ((120, 30, 160), "purple"),
        ((245, 150, 190), "pink"),
        ((60, 35, 20), "brown"),
        ((120, 72, 36), "brown"),
        ((220, 200, 165), "beige"),
    ],
)
def test_paint_has_its_everyday_name(rgb: tuple[int, int, int], name: str) -> None:
    assert dominant_colors(paint((rgb, 10))) == (name,)


def test_the_colour_of_most_pixels_comes_first_and_details_have_no_name() -> None:
    pixels = paint(((30, 60, 200), 30), ((220, 20, 20), 60), ((255, 225, 20), 10))
    assert dominant_colors(pixels, limit=3) == ("red", "blue")
    assert dominant_colors(pixels, limit=1) == ("red",)
    assert dominant_colors(pixels, limit=0) == ()


def test_a_white_object_in_shade_is_white_and_a_grey_one_is_grey() -> None:
    assert dominant_colors(paint(((245, 245, 245), 30), ((150, 150, 150), 70))) == ("white",)
    assert dominant_colors(paint(((150, 150, 150), 30), ((110, 110, 110), 70))) == ("grey",)


def test_black_parts_of_a_white_object_stay_black() -> None:
    assert dominant_colors(paint(((245, 245, 245), 60), ((10, 10, 10), 40))) == ("white", "black")


def test_transparent_pixels_are_not_looked_at() -> None:
    pixels = paint(((220, 20, 20), 10), ((30, 60, 200), 90))
    pixels[10:, 3] = 127
    assert dominant_colors(pixels.reshape(2, 50, 4)) == ("red",)
    pixels[:, 3] = 0
    assert dominant_colors(pixels) == ()


def test_every_example_is_called_what_it_is_an_example_of() -> None:
    for name in set(REFERENCES) - {"grey", "white"}:
        for rgb in REFERENCES[name]:
            assert dominant_colors(paint((rgb, 1))) == (name,)


def test_pixels_of_another_shape_or_type_are_refused() -> None:
    wrongs: list[Any] = [np.zeros((4, 3), np.uint8), np.zeros((4, 4), np.float32)]
    for wrong in wrongs:
        with pytest.raises(DatasetError, match="uint8"):
            dominant_colors(wrong)


def test_a_plain_name_has_the_name_and_the_name_with_its_article() -> None:
    assert make("Chair ") == ("chair", "a chair")


def test_colour_and_material_are_said_alone_and_together() -> None:
    captions = make("chair", ("brown",), materials=("wood",))
    assert captions[:2] == ("chair", "a chair")
    assert set(captions[2:]) == {
        "brown chair",
        "a brown chair",
        "wooden chair",
        "a wooden chair",
        "brown wooden chair",
        "a brown wooden chair",
        "a chair made of wood",
    }


def test_a_second_colour_is_said_beside_the_first_only() -> None:
    captions = make("umbrella", ("orange", "white"))
    assert "an orange and white umbrella" in captions
    assert "an orange umbrella" in captions
    assert not any(caption.startswith(("white", "a white")) for caption in captions)


def test_given_captions_come_first_and_unchanged() -> None:
    captions = make("elk skull", ("white",), captions=("Zombie ELK skull!", "a skull"))
    assert captions[:3] == ("Zombie ELK skull!", "a skull", "elk skull")
    assert "a white elk skull" in captions


def test_a_measured_colour_does_not_contradict_what_is_said() -> None:
    assert not any("grey" in caption for caption in make("bench", ("grey",), captions=("a blue bench",)))
    assert not any("grey" in caption for caption in make("black table", ("grey",)))


def test_a_material_in_the_name_is_not_said_twice() -> None:
    assert make("wooden table", materials=("wood",)) == ("wooden table", "a wooden table")


def test_a_category_is_said_unless_the_name_has_it() -> None:
    assert "a chair, furniture" in make("chair", category="Furniture")
    assert make("elk skull", category="skull") == ("elk skull", "an elk skull")


def test_a_room_is_no_kind_of_thing() -> None:
    assert make("box", category="Living room") == ("box", "a box")


def test_several_things_have_no_article_whatever_their_colours() -> None:
    captions = make("sneakers", ("red", "white"))
    assert set(captions) == {"sneakers", "red sneakers", "red and white sneakers"}


def test_an_asset_without_a_name_is_called_by_its_key() -> None:
    assert captions_for(SourceAsset("old_jar-2", Path("x"), ""), (), np.random.default_rng(0))[0] == "old jar 2"


def test_the_generator_decides_the_choice() -> None:
    rich = {"colors": ("brown", "beige"), "materials": ("wood", "leather"), "category": "seat"}
    made = {make("chair", seed=seed, **rich) for seed in range(5)}  # type: ignore[arg-type]
    assert len(made) > 1
    assert make("chair", seed=3, **rich) == make("chair", seed=3, **rich)  # type: ignore[arg-type]
    assert all(len(captions) == 10 for captions in made)


@given(
    st.text(min_size=1, max_size=40),
    st.lists(st.sampled_from(sorted(REFERENCES)), max_size=3, unique=True),
    st.lists(st.text(max_size=10), max_size=3),
    st.lists(st.text(max_size=20), max_size=3),
)
def test_captions_are_always_several_different_texts(
    name: str, colors: list[str], materials: list[str], given_ones: list[str]
) -> None:
    captions = make(name, tuple(colors), materials=tuple(materials), captions=tuple(given_ones))
    assert captions
    assert len(set(captions)) == len(captions)
    assert all(caption.strip() for caption in captions)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("armchair", "an armchair"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("uninhabited hut", "an uninhabited hut"),
        ("used car", "a used car"),
        ("usb stick", "a usb stick"),
        ("urn", "an urn"),
        ("hourglass", "an hourglass"),
        ("house", "a house"),
        ("mp3 player", "an mp3 player"),
        ("tv", "a tv"),
        ("suv", "an suv"),
        ("xylophone", "a xylophone"),
        ("8-ball", "an 8-ball"),
        ("cup of coffee", "a cup of coffee"),
        ("bowl with fruits", "a bowl with fruits"),
        ("tulips", "tulips"),
        ("cactus", "a cactus"),
        ("glass", "a glass"),
        ("bread", "bread"),
        ("the thing", "the thing"),
    ],
)
def test_the_article_fits(name: str, expected: str) -> None:
    assert with_article(name) == expected


def test_the_article_of_an_empty_phrase_is_a() -> None:
    assert article("") == "a"


@pytest.mark.parametrize(
    ("name", "found"), [("Wooden table", ("wood",)), ("hardwood", ()), ("glass oak door", ("wood", "glass"))]
)
def test_materials_are_whole_words_of_the_name(name: str, found: tuple[str, ...]) -> None:
    assert materials_in(name) == found


@pytest.mark.parametrize(
    ("text", "concepts", "found"),
    [
        ("three bar stools", ["stool"], "stool"),
        ("a STOOL.", ["stool"], "stool"),
        ("toadstool", ["stool"], None),
        ("toolbox", ["tool"], None),
        ("two wrist watches", ["watch"], "watch"),
        ("a slipper", ["slippers"], "slippers"),
        ("bookshelves, two shelves", ["shelf"], "shelf"),
        ("a pool with a table", ["pool table"], None),
        ("big pool tables", ["pool table"], "pool table"),
        ("glass", ["glas"], None),
        ("rubiks cube", ["rubik's cube"], "rubik's cube"),
        ("pool", ["pool table"], None),
        ("", ["pool"], None),
        ("a clock and a rug", ["rug", "clock"], "rug"),
    ],
)
def test_a_text_mentions_whole_words_in_any_number(text: str, concepts: list[str], found: str | None) -> None:
    assert mentions(text, concepts) == found


@given(st.text(max_size=60))
def test_any_text_can_be_searched(text: str) -> None:
    assert mentions(text, ["clock", "pool table"]) in (None, "clock", "pool table")


def test_leaks_are_found_in_names_and_captions_but_not_among_the_unseen() -> None:
    objects = [
        record("a"),
        record("b", captions=("chair", "a chair beside a clock")),
        record("c", name="wall clock", split="heldout"),
        record("d", name="wall clock", split="unseen"),
    ]
    assert leaks(objects, ["clock"]) == [Leak("b", "clock", "a chair beside a clock"), Leak("c", "clock", "wall clock")]


def test_a_list_of_concepts_is_read_without_comments_and_blanks(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# title\n\nPool  Table # green\nclock\nclock\n - \n")
    assert read_concepts(tmp_path / "list") == ("pool table", "clock")


def test_a_list_that_is_missing_or_binary_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_concepts(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match="cannot be read"):
        read_concepts(tmp_path / "binary")
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(UsageError, match="names no concept"):
        read_concepts(tmp_path / "empty")


def test_there_are_at_least_forty_held_out_concepts_and_none_is_in_another() -> None:
    concepts = read_concepts(HELD_OUT)
    assert len(concepts) >= 40
    for concept in concepts:
        assert mentions(concept, [other for other in concepts if other != concept]) is None


def test_the_built_in_prior_was_taught_no_held_out_concept() -> None:
    concepts = read_concepts(HELD_OUT)
    objects = json.loads((ROOT / "examples" / "mini" / "objects.json").read_text())
    texts = [text for o in objects for text in (o["name"], *o["names"], *o["captions"])]
    texts += [text for family in FAMILIES for index in range(4) for text in design(family, 1, index).captions()]
    assert len(texts) > 1000
    assert [text for text in texts if mentions(text, concepts)] == []
