"""The image encoder as a part of a prior folder: round trip, and folders that are damaged."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_prior import edit_json, write_tiny_prior

from dream3d.errors import PriorError
from dream3d.prior.image_encoder import (
    EncoderConfig,
    ImageEncoder,
    Towers,
    load_image_encoder,
    load_text,
    pool_states,
    save_towers,
)

CONFIG = EncoderConfig(image_size=16, channels=(8, 16, 16), dim=7, text_width=12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny prior with an image encoder of random weights."""
    prior = write_tiny_prior(tmp_path / "prior")
    (prior / "image_encoder").mkdir()
    torch.manual_seed(1)
    save_towers(Towers(CONFIG), prior / "image_encoder")
    return prior


def test_the_default_network_has_two_to_four_million_parameters() -> None:
    assert 2e6 < sum(p.numel() for p in Towers(EncoderConfig()).parameters()) < 4e6


def test_vectors_have_length_one_and_the_promised_shapes(folder: Path) -> None:
    encoder = load_image_encoder(folder)
    images = encoder.embed_images(torch.rand(3, 3, 16, 16))
    texts = encoder.embed_texts(["a red chair", "a green table"])
    assert images.shape == (3, encoder.dim)
    assert texts.shape == (2, 7)
    torch.testing.assert_close(torch.cat([images, texts]).norm(dim=-1), torch.ones(5))


def test_a_written_encoder_gives_nearly_the_vectors_it_had_before(folder: Path) -> None:
    torch.manual_seed(1)
    before = ImageEncoder(Towers(CONFIG), load_text(folder))
    pictures = torch.rand(2, 3, 16, 16)
    after = load_image_encoder(folder)
    torch.testing.assert_close(after.embed_images(pictures), before.embed_images(pictures), atol=5e-3, rtol=0)
    assert {value.dtype for value in load_file(folder / "image_encoder/model.safetensors").values()} == {torch.float16}


def test_larger_pictures_are_resized_and_one_picture_is_embedded_alike_in_any_batch(folder: Path) -> None:
    encoder = load_image_encoder(folder)
    small = torch.rand(3, 3, 16, 16)
    large = small.repeat_interleave(4, -1).repeat_interleave(4, -2)
    resized = torch.nn.functional.interpolate(large, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(encoder.embed_images(large), encoder.embed_images(resized))
    torch.testing.assert_close(encoder.embed_images(small)[1:2], encoder.embed_images(small[1:2]))


def test_no_pictures_and_no_sentences_give_no_vectors(folder: Path) -> None:
    encoder = load_image_encoder(folder)
    assert encoder.embed_images(torch.zeros(0, 3, 16, 16)).shape == (0, 7)
    assert encoder.embed_texts([]).shape == (0, 7)


def test_padding_does_not_count_in_the_mean_of_the_states() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    assert pool_states(states).tolist() == [[2.0, 1.0], [0.0, 0.0]]


def test_a_prior_without_encoder_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match="dream3d train-encoder"):
        load_image_encoder(write_tiny_prior(tmp_path / "prior"))


def test_an_encoder_alone_needs_the_folder_of_a_text_encoder(folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (folder / "image_encoder").rename(alone / "image_encoder")
    with pytest.raises(PriorError, match=r"lacks prior.json"):
        load_image_encoder(alone)
    assert load_image_encoder(alone, text_folder=folder).dim == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "clip"}, "unknown image encoder 'clip'"),
        ({"channels": [8, 16, 24]}, "shape"),
        ({"channels": [8, 12]}, "multiples of 8"),
        ({"channels": []}, "multiples of 8"),
        ({"channels": ["8"]}, "multiples of 8"),
        ({"channels": 8}, "not a list"),
        ({"dim": 10**9}, "dim is 1000000000"),
        ({"dim": True}, "dim is True"),
        ({"image_size": "64"}, "image_size is '64'"),
        ({"text_width": 24}, "shape"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(folder: Path, changes: dict[str, object], message: str) -> None:
    edit_json(folder / "image_encoder/config.json", **changes)
    with pytest.raises(PriorError, match=message):
        load_image_encoder(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    path = folder / "image_encoder/model.safetensors"
    whole = path.read_bytes()
    tensors = load_file(path)
    path.write_bytes(whole[:-9])
    with pytest.raises(PriorError, match="truncated"):
        load_image_encoder(folder)
    save_file({name: value for name, value in tensors.items() if name != "head.bias"}, path)
    with pytest.raises(PriorError, match=r"lacks the tensor 'head\.bias'"):
        load_image_encoder(folder)
    save_file({**tensors, "extra": torch.zeros(1)}, path)
    with pytest.raises(PriorError, match="unknown tensor 'extra'"):
        load_image_encoder(folder)
    save_file({**tensors, "head.bias": torch.full_like(tensors["head.bias"], float("nan"))}, path)
    with pytest.raises(PriorError, match="not finite"):
        load_image_encoder(folder)


def test_an_encoder_of_another_text_encoder_is_refused(folder: Path) -> None:
    (folder / "image_encoder/model.safetensors").unlink()
    save_towers(Towers(EncoderConfig(channels=(8,), text_width=24)), folder / "image_encoder")
    with pytest.raises(PriorError, match="width 24, the text encoder gives 12"):
        load_image_encoder(folder)
