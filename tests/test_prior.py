"""Priors: loading a folder as untrusted data, text, codec, multi-view attention, and the shipped mini."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from safetensors.torch import load_file, save_file
from tiny_prior import UNET, edit_json, write_tiny_prior

from dream3d.cameras import orbit
from dream3d.errors import PriorError
from dream3d.guidance import x0_from_prediction
from dream3d.prior.attention import set_attention
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.layout import files_of
from dream3d.prior.patch_pca import PatchPCA
from dream3d.weights.catalogue import catalogue
from dream3d.weights.loading import load_prior, prompt_cut

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
PRIOR_FILES = files_of(Path("a linear codec"))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))


@pytest.fixture(scope="module")
def prior(pristine: Path) -> DiffusionPrior:
    return load_prior(str(pristine))


def test_a_complete_folder_loads(prior: DiffusionPrior) -> None:
    assert (prior.name, prior.views, prior.image_size, prior.recommended_preset) == ("tiny", 2, 16, "mini")
    assert prior.background == (0.2, 0.4, 0.6)
    assert prior.prediction_type == "v_prediction"
    assert prior.describe()["licence_weights"] == "CC0-1.0"
    assert float(prior.alphas_cumprod[0]) == pytest.approx(0.99915, abs=1e-6)


@pytest.mark.parametrize("name", PRIOR_FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(PriorError, match=f"lacks {name}"):
        load_prior(str(folder))


@pytest.mark.parametrize("name", [name for name in PRIOR_FILES if name.endswith(".json")])
@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_damaged_json_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(PriorError) as caught:
        load_prior(str(folder))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in PRIOR_FILES if name.endswith(".safetensors")])
@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_weight_file_is_named(folder: Path, name: str, keep: int) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:keep])
    with pytest.raises(PriorError, match="truncated or not a safetensors file") as caught:
        load_prior(str(folder))
    assert name in str(caught.value)


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"conv_in.bias": torch.zeros(7)}), r"'conv_in.bias' has shape \(7,\), .* needs \(8,\)"),
        (lambda t: t.pop("conv_in.bias"), "lacks the tensor 'conv_in.bias'"),
        (lambda t: t.update({"extra": torch.zeros(1)}), "unknown tensor 'extra'"),
    ],
)
def test_every_unet_tensor_is_accounted_for(folder: Path, change: Callable[..., object], message: str) -> None:
    change_tensors(folder / UNET_FILE, change)
    with pytest.raises(PriorError, match=message):
        load_prior(str(folder))


def test_a_pooler_in_the_text_encoder_is_allowed_and_ignored(folder: Path) -> None:
    path = folder / "text_encoder/model.safetensors"
    change_tensors(path, lambda t: t.update({"pooler.dense.bias": torch.zeros(12)}))
    assert load_prior(str(folder)).encode_prompt("a chair", "").conditional.text.shape == (1, 6, 12)


def test_a_pickle_is_not_opened(folder: Path) -> None:
    torch.save({"conv_in.bias": torch.zeros(8)}, folder / UNET_FILE)
    with pytest.raises(PriorError, match="not a safetensors file"):
        load_prior(str(folder))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("prior.json", {"views": 0}, "'views' is 0, not a whole number from 1 to 64"),
        ("prior.json", {"views": True}, "'views' is True"),
        ("prior.json", {"image_size": "64"}, "'image_size' is '64'"),
        ("prior.json", {"image_size": 10**9}, "'image_size' is 1000000000"),
        ("prior.json", {"background": [0, 0, 2]}, "'background' is"),
        ("prior.json", {"background": "blue"}, "'background' is 'blue'"),
        ("codec/config.json", {"type": "vq"}, "'type' is 'vq', not .*patch_pca"),
        ("codec/config.json", {"patch_size": -4}, "'patch_size' is -4, not a whole number from 1 to 64"),
        ("text_encoder/config.json", {"model_type": "gpt2"}, "'model_type' is 'gpt2', not .*bert"),
        (
            "text_encoder/config.json",
            {"hidden_size": 10**6},
            r"text_encoder/config.json: 'hidden_size' is 1000000, not",
        ),
        ("unet/config.json", {"block_out_channels": [8, 15]}, "unet/config.json does not describe a network"),
        (
            "unet/config.json",
            {"block_out_channels": [2**20, 2**20]},
            "'block_out_channels' is .1048576, 1048576., not a list",
        ),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "sample"},
            "'prediction_type' is 'sample', not .*epsilon",
        ),
        ("scheduler/scheduler_config.json", {"beta_schedule": "wavy"}, "'beta_schedule' is 'wavy', not .*linear"),
    ],
)
def test_bad_settings_are_named(folder: Path, file: str, changes: dict[str, object], message: str) -> None:
    edit_json(folder / file, **changes)
    with pytest.raises(PriorError, match=message):
        load_prior(str(folder))


def test_two_mixed_priors_are_noticed(folder: Path) -> None:
    small = UNET | {"cross_attention_dim": 8}
    edit_json(folder / "unet/config.json", cross_attention_dim=8)
    save_file(UNet2DConditionModel(**small).state_dict(), folder / UNET_FILE)
    with pytest.raises(PriorError, match="reads text of width 8, the text encoder gives 12"):
        load_prior(str(folder))


def test_unknown_names_list_the_known(tmp_path: Path) -> None:
    known = "mini, mvdream-sd21, mvdream-sd15, mvrag"
    with pytest.raises(PriorError, match=rf"unknown prior 'maxi': neither a catalogue name \({known}\)"):
        load_prior("maxi")
    with pytest.raises(PriorError, match=r"lacks prior\.json"):
        load_prior(str(tmp_path))


def test_padded_tokens_have_zero_states(prior: DiffusionPrior) -> None:
    states = prior.encode_prompt("a chair", "").conditional.text  # [CLS] a chair [SEP] [PAD] [PAD]
    assert float(states[0, 3].abs().sum()) > 0
    assert float(states[0, 4:].abs().sum()) == 0


def test_negative_prompts_change_the_unconditional_half_only(prior: DiffusionPrior) -> None:
    plain, guided = prior.encode_prompt("a chair", ""), prior.encode_prompt("a chair", "a red tree")
    assert torch.equal(plain.conditional.text, guided.conditional.text)
    assert not torch.equal(plain.unconditional.text, guided.unconditional.text)


def test_the_cut_is_after_the_last_word_that_is_read(prior: DiffusionPrior) -> None:
    assert prior.text_cut("a red chair") is None
    prompt = "a red chair tree table green"  # six tokens: two special ones and four words
    assert prior.text_cut(prompt) == len("a red chair tree")


def test_codec_round_trip_of_what_it_can_hold(prior: DiffusionPrior) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 4, 4, generator=generator)
    torch.testing.assert_close(prior.codec.encode(prior.codec.decode(latents)), latents, atol=1e-5, rtol=1e-5)


def test_codec_by_hand() -> None:
    # One 1x1 patch of RGB, projected on red and green, scaled by 2 and 3: z = ((x - mean) . axis) * scale.
    codec = PatchPCA(1, torch.eye(3)[:, :2].contiguous(), torch.tensor([0.5, 0.0, 0.0]), torch.tensor([2.0, 3.0]))
    image = torch.tensor([1.0, -1.0, 0.25]).view(1, 3, 1, 1)
    assert codec.encode(image).flatten().tolist() == [1.0, -3.0]
    assert codec.decode(codec.encode(image)).flatten().tolist() == [1.0, -1.0, 0.0]  # blue is lost


def test_encoding_is_differentiable(prior: DiffusionPrior) -> None:
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    prior.encode_images(images, torch.Generator()).square().sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0


def predict(prior: DiffusionPrior, x_t: torch.Tensor, azimuth: float = 0.0) -> torch.Tensor:
    text = prior.encode_prompt("a red chair", "")
    return prior.predict_x0(x_t, 500, orbit(len(x_t), azimuth_deg=azimuth), text, prior.views)[0]


def noise(count: int) -> torch.Tensor:
    return torch.randn(count, 4, 4, 4, generator=torch.Generator().manual_seed(0))


def test_views_of_an_object_see_each_other_and_no_other_object(prior: DiffusionPrior) -> None:
    x_t = noise(4)  # two objects of two views
    changed = x_t.clone()
    changed[1] += 1.0
    difference = (predict(prior, changed) - predict(prior, x_t)).flatten(1).abs().amax(-1)
    assert float(difference[0]) > 1e-4  # its sibling view
    assert float(difference[2:].max()) < 1e-6


def test_cameras_matter(prior: DiffusionPrior) -> None:
    assert not torch.allclose(predict(prior, noise(2)), predict(prior, noise(2), azimuth=60.0), atol=1e-4)


def test_prediction_is_converted_by_the_schedule(prior: DiffusionPrior) -> None:
    x_t, text = noise(2), prior.encode_prompt("a tree", "")
    cameras = orbit(2)
    x0, _ = prior.predict_x0(x_t, 500, cameras, text, 2)
    v = prior.unet(
        x_t,
        torch.tensor(500),
        text.conditional.text.expand(2, -1, -1),
        class_labels=cameras.conditioning(),
        cross_attention_kwargs={"num_views": 2},
    ).sample
    alpha_bar = float(prior.alphas_cumprod[500])
    torch.testing.assert_close(x0, x0_from_prediction(x_t, v, alpha_bar, "v_prediction"), atol=1e-5, rtol=1e-5)


def test_one_view_is_plain_attention_bit_for_bit(prior: DiffusionPrior) -> None:
    unet, x_t, text = prior.unet, noise(2), prior.encode_prompt("a tree", "").conditional.text.expand(2, -1, -1)
    arguments = (x_t, torch.tensor(500), text)
    labels = orbit(2).conditioning()
    ours = unet(*arguments, class_labels=labels, cross_attention_kwargs={"num_views": 1}).sample
    try:
        unet.set_attn_processor(AttnProcessor2_0())
        stock = unet(*arguments, class_labels=labels).sample
    finally:
        set_attention(unet, "3d")
    assert torch.equal(ours, stock)


def test_image_tokens_are_refused_by_a_network_that_reads_none(prior: DiffusionPrior) -> None:
    tokens = torch.zeros(1, 16, 12)
    told = prior.encode_prompt("a tree", "").with_images(tokens, tokens, 0.5, 1.0)
    with pytest.raises(PriorError, match=r"prior 'tiny' has no image adapter .* task = \"retrieval\""):
        prior.predict_x0(noise(2), 500, orbit(2), told, 2)


def test_both_halves_have_pictures_of_one_shape_or_none(prior: DiffusionPrior) -> None:
    text = prior.encode_prompt("a tree", "")
    with pytest.raises(ValueError, match="both halves need image tokens"):
        replace(text, conditional=replace(text.conditional, image_tokens=torch.zeros(1, 16, 12)))
    with pytest.raises(ValueError, match="both halves need image tokens"):
        text.with_images(torch.zeros(1, 16, 12), torch.zeros(1, 8, 12), 0.5, 1.0)


def test_permuting_views_permutes_the_prediction(prior: DiffusionPrior) -> None:
    x_t, text, cameras = noise(2), prior.encode_prompt("a tree", ""), orbit(2)
    order = torch.tensor([1, 0])
    swapped = type(cameras)(cameras.c2w[order], cameras.fovy_deg[order])
    first = prior.predict_x0(x_t, 500, cameras, text, 2)[0]
    second = prior.predict_x0(x_t[order], 500, swapped, text, 2)[0]
    torch.testing.assert_close(second, first[order], atol=1e-5, rtol=1e-5)


def test_a_batch_must_hold_whole_objects(prior: DiffusionPrior) -> None:
    with pytest.raises(ValueError, match="3 images is not a multiple of 2 views"):
        predict(prior, noise(3))


def test_mini_is_in_the_package() -> None:
    info = next(info for info in catalogue() if info.name == "mini")
    assert info.present
    assert info.licence == "CC-BY-4.0"


def test_mini_knows_a_chair_from_a_tree() -> None:
    prior = load_prior("mini")
    text = prior.encode_prompt("a chair", "")
    other = prior.encode_prompt("a christmas tree", "")
    x_t = torch.randn(4, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    chair, nothing = prior.predict_x0(x_t, 900, orbit(4), text, 4)
    tree, _ = prior.predict_x0(x_t, 900, orbit(4), other, 4)
    assert float((chair - tree).abs().mean()) > 0.02
    assert float((chair - nothing).abs().mean()) > 0.01


def test_where_a_prompt_is_cut_takes_no_network(folder: Path) -> None:
    prompt = "a red chair a red chair"
    expected = load_prior(str(folder)).text_cut(prompt)
    assert expected == len("a red chair a")  # six tokens, two of them special
    (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"broken")
    assert prompt_cut(str(folder), prompt) == expected


def test_asking_where_a_prompt_is_cut_converts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM3D_CACHE", str(tmp_path / "cache"))
    (tmp_path / "official.pt").write_bytes(b"PK")
    with pytest.raises(PriorError, match=r"official\.pt"):
        prompt_cut(str(tmp_path / "official.pt"), "a red chair")
    assert not (tmp_path / "cache").exists()
