"""Batches from shards, and recipes from TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_shards import tiny_image, tiny_object

from dream3d.cameras import orbit
from dream3d.errors import DatasetError, UsageError
from dream3d.prior.text import with_suffix
from dream3d.training.data import (
    Sampler,
    attribution,
    conditioning,
    over_background,
    share_weights,
    spaced_views,
)
from dream3d.training.recipe import parse_recipe, read_recipe

DATA = {"data": {"views": "v"}, "batch": {"image_mode_fraction": 0.0}}


@given(st.integers(0, 31))
def test_four_of_32_views_are_at_right_angles(first: int) -> None:
    views = spaced_views(first, 4, 32)
    assert [(b - a) % 32 for a, b in zip(views, [*views[1:], views[0]], strict=True)] == [8, 8, 8, 8]


def test_more_views_than_an_orbit_has_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"batch\.views is 9, and an orbit has 8 views"):
        spaced_views(0, 9, 8)


def test_cameras_are_those_that_sampling_uses() -> None:
    item = tiny_object("o", "chair")
    expected = orbit(4, elevation_deg=10).conditioning()
    torch.testing.assert_close(conditioning(item.record.passes[0], spaced_views(0, 4, 8)), expected)


def test_straight_alpha_is_laid_over_the_background_by_hand() -> None:
    rgba = np.array([[255, 0, 0, 51], [0, 0, 255, 255], [9, 9, 9, 0]], np.uint8)  # alpha 0.2, 1, 0
    color = np.array([0.5, 0.5, 1.0])
    expected = np.array([[0.2 + 0.4, 0.4, 0.8], [0, 0, 1], [0.5, 0.5, 1]]) * 2 - 1
    np.testing.assert_allclose(over_background(rgba, color), expected, atol=1e-6)


def sampler(background: Any = "grey", dropout: float = 0.0, views: int = 4) -> Sampler:
    objects = [tiny_object("a", "red chair", seed=1), tiny_object("b", "tree", seed=2)]
    images = [tiny_image("p", "a 2d table")]
    return Sampler(objects, images, background, views=views, suffix=", 3d asset", dropout=dropout)


def test_a_batch_of_objects_has_images_cameras_and_captions_that_belong_together() -> None:
    batch = sampler((0.0, 1.0, 0.0)).draw_objects(3, np.random.default_rng(0))
    assert batch.images.shape == (12, 3, 16, 16)
    assert batch.cameras is not None
    assert batch.cameras.shape == (3, 4, 16)
    assert all(caption.endswith(", 3d asset") for caption in batch.captions)
    assert batch.images[:, :, 0, 0].unique(dim=0).tolist() == [[-1.0, 1.0, -1.0]]
    # opposite views look back at each other: their positions are mirrored about the axis
    position = batch.cameras[..., [3, 7]]
    torch.testing.assert_close(position[:, 0], -position[:, 2])
    torch.testing.assert_close((position[:, 0] * position[:, 1]).sum(-1), torch.zeros(3), atol=1e-6, rtol=0)


def test_the_grey_behind_an_object_is_shared_by_its_views() -> None:
    corner = sampler().draw_objects(2, np.random.default_rng(0)).images[:, :, 0, 0].unflatten(0, (2, 4))
    assert corner.flatten(1).unique(dim=1).shape[1] == 1
    assert corner[0, 0, 0] != corner[1, 0, 0]


def test_the_same_generator_gives_the_same_batch() -> None:
    one, other = (sampler().draw_objects(2, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(one.images, other.images)
    assert one.captions == other.captions
    assert one.noise_seed == other.noise_seed


def test_images_keep_their_captions_and_have_no_camera() -> None:
    batch = sampler().draw_images(2, np.random.default_rng(0))
    assert (batch.captions, batch.cameras, batch.views) == (["a 2d table"] * 2, None, 1)


def test_a_folder_is_drawn_by_its_share_however_many_objects_it_holds() -> None:
    assert share_weights([1, 3], [0.4, 0.6]) == [0.4, 0.6 / 3, 0.6 / 3, 0.6 / 3]
    few, many = tiny_object("f", "few"), [tiny_object(f"m{i}", "many") for i in range(9)]
    source = Sampler([few, *many], [], "grey", views=1, suffix="", dropout=0.0, weights=share_weights([1, 9], [3, 1]))
    drawn = [c.removeprefix("a ") for c in source.draw_objects(400, np.random.default_rng(0)).captions]
    assert 270 <= drawn.count("few") <= 330


def test_dropout_empties_its_share_of_captions() -> None:
    captions = sampler(dropout=0.25, views=1).draw_objects(400, np.random.default_rng(0)).captions
    assert 70 <= captions.count("") <= 130


def test_the_suffix_is_left_out_where_the_caption_says_3d() -> None:
    assert with_suffix("a 3D chair", ", 3d asset") == "a 3D chair"
    assert with_suffix("a chair", ", 3d asset") == "a chair, 3d asset"


def test_attribution_names_each_work_once() -> None:
    items = [tiny_object("a", "chair"), tiny_object("a", "chair")]
    before = 'model,name\n"x, y",boat\n'
    assert attribution(items, [tiny_image("p", "x")], before).splitlines() == [
        "name,model,author,licence,catalogue",
        'boat,"x, y",,,',
        "chair,a,somebody,CC0-1.0,tests",
        "picture,p,painter,CC-BY-4.0,",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stesp": 3}, "unknown recipe key 'stesp'; known here: name, start, steps"),
        ({"optimizer": {"lr": 3}}, r"unknown recipe key 'optimizer\.lr'; known here: rate, warmup"),
        ({"steps": 1.5}, "'steps' is 1.5, which should be a whole number"),
        ({"steps": True}, "should be a whole number"),
        ({"steps": 0}, "'steps' is 0, which should be a whole number from 1 to 10000000"),
        ({"attention": "4d"}, '"3d" or "2d" or "temporal"'),
        ({"data": {"views": "v", "background": [1, 2]}}, "a list of 3"),
        (
            {"data": {"views": "v", "background": [1, 2, 0]}},
            r"background\[1\]' is 2, which should be a number from 0",
        ),
        ({"data": {}}, r"set data\.views"),
        ({"data": {"views": ["v", "w"], "shares": [1.0]}}, "1 numbers for 2 folders"),
        ({"data": {"views": "v", "shares": [0.0]}}, r"shares\[0\]' is 0.0, which should be a number above 0"),
        ({"data": {"views": ["v", 3]}}, r"'data\.views\[1\]' is 3, which should be text"),
        ({"data": {"views": 3}}, "should be text or a list, each text"),
        ({"batch": {}}, "image_mode_fraction is 0.3"),
        ({"steps": 20, "optimizer": {"cosine": 10}}, "cosine is 10 and the run has 20 steps"),
        ({"data": 3}, "should be a table"),
        ({"products": "on", "precision": "bf16"}, "does not go with"),
        ({"products": "winograd", "precision": "bf16"}, 'products = "winograd" does not go with precision "bf16"'),
    ],
)
def test_a_wrong_recipe_is_refused_with_what_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_recipe({**DATA, **change})


def test_settings_are_changed_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('steps = 5\n[data]\nviews = "v"\n')
    changes = ["optimizer.rate=2e-3", "name=new", "data.background=[0,0,1]", "batch.image_mode_fraction=0"]
    recipe = read_recipe(path, changes)
    assert (recipe.steps, recipe.optimizer.rate, recipe.name) == (5, 2e-3, "new")
    assert recipe.data.background == (0, 0, 1)
    with pytest.raises(UsageError, match="is not key=value"):
        read_recipe(path, ["steps"])


def test_a_recipe_that_is_missing_or_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")
    for text in ("steps = = 3", f"steps = {'[' * 10_000}"):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(UsageError, match="is not valid TOML"):
            read_recipe(tmp_path / "bad.toml")


def test_the_recipe_of_the_bundled_prior_is_valid() -> None:
    mini = Path(__file__).parent.parent / "examples/mini"
    first, second = (read_recipe(mini / name) for name in ("mini.toml", "mini-finish.toml"))
    assert first.data.background == second.data.background == (0.42, 0.56, 0.78)
    assert second.start == "first/prior"
