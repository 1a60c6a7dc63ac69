"""The image adapter: pictures to tokens, the second cross-attention, and what does not change what it gives."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_adapter import ADAPTER, write_tiny_adapter, write_tiny_encoder
from tiny_prior import edit_json, write_tiny_prior
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from dream3d.cameras import orbit
from dream3d.errors import PriorError
from dream3d.prior.attention import ContextKeys, CrossAttention, fused_dot_product, keys_and_values
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.image_adapter.adapter import ImageAdapter
from dream3d.prior.image_adapter.config import AdapterConfig
from dream3d.prior.image_adapter.resampler import PerceiverAttention, Resampler
from dream3d.prior.memory import MemoryPlan
from dream3d.prior.unet import call_unet

SD21_LAYERS = {
    **{f"down.{level}.{index}": 320 * 2**level for level in range(3) for index in range(2)},
    **{f"up.{level}.{index}": 320 * 2**level for level in range(3) for index in range(3)},
    "mid": 1280,
}  # channels of the sixteen cross-attention layers of Stable Diffusion 2.1's UNet


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_adapter(write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny"))


@pytest.fixture(scope="module")
def prior(folder: Path) -> DiffusionPrior:
    return DiffusionPrior(folder)


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def noise(views: int) -> Tensor:
    return torch.randn(views, 4, 4, 4, generator=torch.Generator().manual_seed(5))


def told(prior: DiffusionPrior, shown: Tensor, text_weight: float = 0.4, image_weight: float = 1.1) -> Conditioning:
    adapter = prior.image_adapter
    text = prior.encode_prompt("a red chair", "")
    return text.with_images(adapter.tokens(shown), adapter.blank_tokens(len(shown)), text_weight, image_weight)


def predict(prior: DiffusionPrior, conditioning: Conditioning) -> Tensor:
    return torch.stack(prior.predict_x0(noise(2), 500, orbit(2), conditioning, 2))


# Numbers worked out by hand.


def test_a_layer_by_hand() -> None:
    """One head of two channels, unit projections; one text token, two picture tokens that are equal.

    A softmax over equal keys gives their value, whatever the query: f_text = (1, 2), f_images = (10, 20).
    """
    layer = SimpleNamespace(heads=1, to_q=nn.Identity(), to_k=nn.Identity(), to_v=nn.Identity())
    layer.to_out = [nn.Identity(), nn.Identity()]
    queries = torch.tensor([[[3.0, -1.0], [0.0, 5.0]]])
    text, images = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[10.0, 20.0], [10.0, 20.0]]])
    keys = {
        "here": ContextKeys(keys_and_values(layer, text), keys_and_values(layer, images), 0.25, 1.25),
    }
    seen = CrossAttention(layer="here")(layer, queries, text, keys=keys)
    assert seen.tolist() == [[[12.75, 25.5], [12.75, 25.5]]]  # 0.25 * (1, 2) + 1.25 * (10, 20)
    plain = CrossAttention(layer="here")(layer, queries, text)
    assert plain.tolist() == [[[1.0, 2.0], [1.0, 2.0]]]


def test_two_keys_are_weighed_by_their_softmax() -> None:
    """The query (1, 0) and keys (0, 0), (sqrt(2) ln 3, 0): logits 0 and ln 3, weights 1/4 and 3/4."""
    query = torch.tensor([[[[1.0, 0.0]]]])
    key = torch.tensor([[[[0.0, 0.0], [2**0.5 * 1.0986122886681098, 0.0]]]])
    value = torch.tensor([[[[4.0, 0.0], [8.0, 4.0]]]])
    torch.testing.assert_close(fused_dot_product(query, key, value), torch.tensor([[[[7.0, 3.0]]]]))


def test_the_resampler_attends_over_features_and_queries() -> None:
    """MV-RAG: 257 features and 16 queries are 273 keys. All keys equal (to_kv = 0): the attention adds nothing."""
    attention = PerceiverAttention(8, 2, 4)
    seen: list[torch.Size] = []
    attention.to_kv.register_forward_hook(lambda module, given, result: seen.append(result.shape))
    features, latents = torch.randn(2, 257, 8), torch.randn(2, 16, 8)
    assert attention(features, latents).shape == (2, 16, 8)
    assert seen == [torch.Size([2, 273, 16])]
    nn.init.zeros_(attention.to_kv.weight)
    assert not attention(features, latents).any()


def test_full_size_counts() -> None:
    with torch.device("meta"):
        adapter = ImageAdapter(AdapterConfig(), SD21_LAYERS)
    state = adapter.state_dict()
    resampler = [value for name, value in state.items() if name.startswith("resampler.")]
    projections = [value for name, value in state.items() if name.startswith("layers.")]
    assert (len(resampler), sum(value.numel() for value in resampler)) == (51, 48_541_696)
    assert (len(projections), sum(value.numel() for value in projections)) == (32, 25_559_040)
    assert adapter.resampler(torch.empty(2, 257, 1280, device="meta")).shape == (2, 16, 1024)


# What does not change what it gives.


def test_no_pictures_is_the_base_prior_bit_for_bit(prior: DiffusionPrior, folder: Path, tmp_path: Path) -> None:
    """With an adapter loaded, and with kept keys: the same numbers as the network called by itself."""
    assert prior.image_adapter.module is not None
    text = prior.encode_prompt("a red chair", "a tree")
    ours = torch.stack(prior.predict(noise(2), 500, orbit(2), text, 2))
    both = torch.cat([half.text.expand(2, -1, -1) for half in (text.conditional, text.unconditional)])
    poses = torch.cat([orbit(2).conditioning()] * 2)
    alone = call_unet(prior.unet, torch.cat([noise(2)] * 2), torch.full((4,), 500), both, poses, 2)
    assert torch.equal(ours.flatten(0, 1), alone)
    base = Path(shutil.copytree(folder, tmp_path / "base"))
    shutil.rmtree(base / "image_adapter")
    assert torch.equal(ours, torch.stack(DiffusionPrior(base).predict(noise(2), 500, orbit(2), text, 2)))
    assert torch.equal(ours, torch.stack(prior.predict(noise(2), 500, orbit(2), text, 2)))  # from what was kept


@given(order=st.permutations(range(3)), seed=st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_the_order_of_pictures_means_nothing(prior: DiffusionPrior, order: list[int], seed: int) -> None:
    shown = pictures(3, seed)
    torch.testing.assert_close(predict(prior, told(prior, shown[order])), predict(prior, told(prior, shown)))


def test_the_same_pictures_twice_mean_nothing(prior: DiffusionPrior) -> None:
    shown = pictures(2)
    torch.testing.assert_close(
        predict(prior, told(prior, shown.repeat(2, 1, 1, 1))), predict(prior, told(prior, shown))
    )


def test_another_picture_means_something(prior: DiffusionPrior) -> None:
    one, other = (predict(prior, told(prior, pictures(1, seed))) for seed in (0, 1))
    assert (one[0] - other[0]).abs().max() > 1e-4
    assert torch.equal(one[1], other[1])  # without prompt and pictures


def test_every_cross_attention_layer_reads_the_pictures(prior: DiffusionPrior) -> None:
    """Silencing one layer's projections changes the result, for each of them."""
    conditioning = told(prior, pictures(2))
    before = predict(prior, conditioning)
    for name, layer in prior.image_adapter.module.layers.items():
        kept = layer.to_v_ip.weight.clone()  # type: ignore[union-attr, operator]
        layer.to_v_ip.weight.zero_()  # type: ignore[union-attr, operator]
        try:
            assert not torch.equal(predict(prior, replace(conditioning)), before), name
        finally:
            layer.to_v_ip.weight.copy_(kept)  # type: ignore[union-attr, operator]


def test_a_layer_is_linear_in_alpha() -> None:
    torch.manual_seed(0)
    text, images = ((torch.randn(1, 2, 5, 3), torch.randn(1, 2, 5, 3)) for _ in range(2))
    layer = SimpleNamespace(heads=2, to_q=nn.Linear(6, 6), to_out=[nn.Linear(6, 6), nn.Identity()])
    queries = torch.randn(1, 4, 6)

    def at(alpha: float) -> Tensor:
        keys = {"": ContextKeys(text, images, alpha, 1.5 - alpha)}
        return CrossAttention()(layer, queries, queries, keys=keys)

    torch.testing.assert_close(at(0.3), 0.7 * at(0.0) + 0.3 * at(1.0))


def test_a_prediction_depends_on_the_weights(prior: DiffusionPrior) -> None:
    one = predict(prior, told(prior, pictures(1), 0.2, 1.3))
    assert not torch.allclose(one, predict(prior, told(prior, pictures(1), 0.8, 0.7)))


def test_halves_one_after_the_other_give_the_same(prior: DiffusionPrior, folder: Path) -> None:
    split = DiffusionPrior(folder, memory=MemoryPlan(split_guidance=True))
    torch.testing.assert_close(predict(split, told(split, pictures(2))), predict(prior, told(prior, pictures(2))))


# Keys and values are made once, and again when something changes.


@pytest.fixture
def counted(prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layers whose keys were made, in their order."""
    made: list[str] = []
    module = prior.image_adapter.module
    keys = module.keys

    def count(layer: str, tokens: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        made.append(layer)
        return keys(layer, tokens, heads)

    monkeypatch.setattr(module, "keys", count)
    return made


def test_keys_are_made_once_for_a_conditioning(prior: DiffusionPrior, counted: list[str]) -> None:
    conditioning = told(prior, pictures(2))
    first = predict(prior, conditioning)
    layers = len(counted)
    assert layers == len(prior.image_adapter.module.layers)
    assert torch.equal(predict(prior, conditioning), first)
    assert len(counted) == layers
    torch.stack(prior.predict(noise(4), 500, orbit(4), conditioning, 2))  # a larger batch
    assert len(counted) == 2 * layers


def test_keys_are_made_again_for_another_conditioning(prior: DiffusionPrior, counted: list[str]) -> None:
    one, other = told(prior, pictures(2)), told(prior, pictures(2, seed=3))
    first = predict(prior, one)
    assert not torch.equal(predict(prior, other), first)
    assert torch.equal(predict(prior, one), first)
    assert len(counted) == 3 * len(prior.image_adapter.module.layers)


def test_keys_are_made_again_when_a_tensor_was_changed_in_place(prior: DiffusionPrior) -> None:
    conditioning = told(prior, pictures(2))
    first = predict(prior, conditioning)
    assert conditioning.conditional.image_tokens is not None
    conditioning.conditional.image_tokens.mul_(-1)
    assert not torch.equal(predict(prior, conditioning), first)
    conditioning.conditional.image_tokens.mul_(-1)
    assert torch.equal(predict(prior, conditioning), first)
    conditioning.conditional.text.add_(1)
    assert not torch.equal(predict(prior, conditioning), first)


@pytest.mark.slow
def test_a_compiled_network_reads_what_was_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph for text alone and one with pictures; neither is made again in later steps."""
    # As with MemoryPlan.compile_unet, whose own backend is slow to start.
    monkeypatch.setattr("dream3d.prior.diffusion.convolutions_pay", lambda unet: False)
    counter, prior = CompileCounter(), DiffusionPrior(folder)
    told_both = [prior.encode_prompt("a red chair", ""), told(prior, pictures(2))]
    plain = [predict(prior, one) for one in told_both]
    monkeypatch.setattr(prior, "_network", torch.compile(prior.unet, backend=counter))
    for _ in range(2):
        for one, wanted in zip(told_both, plain, strict=True):
            torch.testing.assert_close(predict(prior, one), wanted)
    assert counter.frame_count == 2


# The folder as untrusted data.


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_the_blank_picture_is_zero_after_normalisation(prior: DiffusionPrior) -> None:
    encoder = prior.image_adapter.encoder
    torch.testing.assert_close(encoder.blank(), encoder.features(torch.full((1, 3, 16, 16), 0.5)))
    assert prior.image_adapter.blank_tokens(3).shape == (1, 9, 12)
    assert prior.image_adapter.tokens(pictures(3)).shape == (1, 9, 12)


def test_learnt_places_tell_where_a_feature_is() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 16, 8)
    for config, is_same in ((ADAPTER, False), (replace(ADAPTER, positions=0), True)):
        resampler = Resampler(config)
        for parameter in resampler.parameters():
            nn.init.normal_(parameter, std=0.5)
        moved = resampler(features.flip(1))
        assert torch.allclose(moved, resampler(features), atol=1e-5) is is_same


def test_projections_start_as_the_texts(prior: DiffusionPrior) -> None:
    adapter = ImageAdapter(ADAPTER, {name.replace("/", "."): 16 for name in prior.image_adapter.module.layers})
    adapter.start_from(prior.unet)
    tokens = torch.randn(1, 3, 12)
    name = next(iter(adapter.layers)).replace("/", ".")
    layer = prior.unet.get_submodule(name)
    for ours, theirs in zip(adapter.keys(name, tokens, layer.heads), keys_and_values(layer, tokens), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_file_names_layers_as_the_stock_network_does(folder: Path) -> None:
    names = load_file(folder / "image_adapter/model.safetensors")
    assert "layers.mid_block.attentions.0.transformer_blocks.0.attn2.to_k_ip.weight" in names
    assert "resampler.layers.0.0.to_kv.weight" in names
    assert "resampler.layers.0.1.3.weight" in names


def test_the_digest_is_of_adapter_and_encoder(copy: Path, prior: DiffusionPrior) -> None:
    before = DiffusionPrior(copy).image_adapter.digest
    assert before == prior.image_adapter.digest
    edit_json(copy / "image_adapter/config.json", note="other")
    assert DiffusionPrior(copy).image_adapter.digest != before
    assert DiffusionPrior(copy).digest == prior.digest  # an adapter is no part of the base


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "other"}, "unknown image adapter 'other'"),
        ({"dim": -1}, "'dim' is -1, not a whole number"),
        ({"queries": 4}, "tensor 'resampler.latents' has shape"),
        ({"token_width": 24}, "the adapter's tokens are 24 wide, the network reads 12"),
        ({"positions": 9}, "tensor 'resampler.positions' has shape"),
        ({"encoder": "clip_vision"}, "'type' is \"?'?contrastive"),
        ({"padding": [2, 0, 0]}, "'padding' is"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(copy: Path, changes: Mapping[str, Any], message: str) -> None:
    edit_json(copy / "image_adapter/config.json", **changes)
    with pytest.raises(PriorError, match=message):
        DiffusionPrior(copy).image_adapter  # noqa: B018 - it is loaded here


def test_features_of_another_encoder_are_refused(copy: Path) -> None:
    path = copy / "image_adapter/model.safetensors"
    tensors = load_file(path)
    tensors["resampler.positions"] = torch.zeros(1, 4, 8)
    save_file(tensors, path)
    edit_json(copy / "image_adapter/config.json", positions=4)
    with pytest.raises(
        PriorError, match="reads features of width 8 at 4 places, the image encoder gives 16 of width 8"
    ):
        DiffusionPrior(copy).image_adapter  # noqa: B018


@pytest.mark.parametrize("name", ["image_adapter/model.safetensors", "image_encoder/model.safetensors"])
def test_damaged_weights_are_refused(copy: Path, name: str) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:-9])
    prior = DiffusionPrior(copy)  # text alone needs none of it
    prior.predict(noise(2), 500, orbit(2), prior.encode_prompt("a tree", ""), 2)
    with pytest.raises(PriorError, match="truncated"):
        prior.image_adapter  # noqa: B018


def test_a_prior_without_adapter_says_how_to_get_one(tmp_path: Path) -> None:
    folder = write_tiny_prior(tmp_path / "tiny")
    write_tiny_encoder(folder)
    with pytest.raises(PriorError, match=r"prior 'tiny' has no image adapter .*dream3d train.*docs/mv-rag.md"):
        DiffusionPrior(folder).image_adapter  # noqa: B018
