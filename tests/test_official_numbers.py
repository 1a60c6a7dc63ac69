"""A converted prior gives the numbers of the official networks, which ``official_network.py`` writes out."""

import json
from pathlib import Path

import official_network
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.embeddings import get_timestep_embedding
from official_checkpoint import CLIP_PREFIX, OPENCLIP_PREFIX, UNET_PREFIX, VAE_PREFIX, Official, make_official
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from dream3d.cameras import orbit
from dream3d.prior.attention import set_attention
from dream3d.prior.codec import AutoencoderCodec
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.official.convert import CONFIGS, convert
from dream3d.weights.loading import load_prior

PROMPT = "An Elk skull, 3D"
ELK = [49406, 550, 21896, 12092, 267, 274, 323, 49407]  # an elk skull , 3 d; found with transformers' CLIPTokenizer


def load(official: Official, folder: Path) -> DiffusionPrior:
    torch.save(official.state, folder / "official.pt")
    with pytest.MonkeyPatch.context() as patch:  # torch's own convolutions, as networks of the official size have them
        patch.setattr("dream3d.prior.diffusion.convolutions_pay", lambda unet: False)
        return load_prior(str(convert(folder / "official.pt", folder / "prior", "fp32")))


@pytest.fixture(scope="module", params=["sd21", "sd15"])
def official(request: pytest.FixtureRequest) -> Official:
    return make_official(sd15=request.param == "sd15")


@pytest.fixture(scope="module")
def prior(official: Official, tmp_path_factory: pytest.TempPathFactory) -> DiffusionPrior:
    return load(official, tmp_path_factory.mktemp("numbers"))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_timestep_embedding_by_hand() -> None:
    """Cosines first, by hand at width 8; ours, and the stock one with the converted configuration."""
    expected = torch.tensor(
        [[1, 1, 1, 1, 0, 0, 0, 0], [0.67996, -0.75796, -0.92672, 0.55619, 0.73325, -0.6523, -0.37576, 0.83105]]
    )
    t = torch.tensor([0, 981])
    torch.testing.assert_close(official_network.timestep_embedding(t, 8), expected, atol=2e-4, rtol=0)
    stock = get_timestep_embedding(t, 8, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(stock, expected, atol=2e-4, rtol=0)


def test_the_configuration_is_what_the_numbers_need(official: Official, prior: DiffusionPrior) -> None:
    config = prior.unet.config
    assert (config.flip_sin_to_cos, config.freq_shift) == (True, 0)
    heads = [prior.unet.down_blocks[level].attentions[0].transformer_blocks[0].attn1.heads for level in range(3)]
    assert heads == ([8, 8, 8] if official.sd15 else [1, 2, 2])
    assert (prior.name, prior.views, prior.image_size) == (f"mvdream-{'sd15' if official.sd15 else 'sd21'}", 4, 256)
    assert prior.background == (0.5, 0.5, 0.5)


@torch.no_grad()
def test_the_two_epsilons_by_hand(prior: DiffusionPrior) -> None:
    """Values +-1e-3 have variance 1e-6: 1e-3 / sqrt(2e-6) in a transformer, 1e-3 / sqrt(1.1e-5) in a ResBlock."""
    block = prior.unet.down_blocks[0]
    x = torch.tensor([1e-3, -1e-3]).repeat(64 * 8).view(1, 64, 4, 4)
    for norm, size in ((block.attentions[0].norm, 0.70710678), (block.resnets[0].norm1, 0.30151134)):
        unscaled = (norm(x) - norm.bias.view(1, -1, 1, 1)) / norm.weight.view(1, -1, 1, 1)
        torch.testing.assert_close(unscaled, x.sign() * size, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("views", [1, 2, 4])
def test_the_unet_gives_the_official_numbers(official: Official, prior: DiffusionPrior, views: int) -> None:
    x, text, cameras = draw(4, 4, 16, 16), draw(4, 77, 128, seed=1), orbit(4).conditioning()
    t = torch.tensor([981, 981, 20, 1])
    expected = official_network.unet(official.parts[UNET_PREFIX], x, t, text, cameras, views)
    found = prior.unet(x, t, text, class_labels=cameras, cross_attention_kwargs={"num_views": views}).sample
    assert float(expected.std()) > 0.05
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_the_numbers_would_show_a_mistake(official: Official) -> None:
    """What the comparison must tell apart moves the output by far more than its tolerance."""
    state, x, text = official.parts[UNET_PREFIX], draw(4, 4, 16, 16), draw(4, 77, 128, seed=1)
    t, cameras = torch.full((4,), 500), orbit(4).conditioning()
    right = official_network.unet(state, x, t, text, cameras, 4)
    swapped = state | {
        "time_embed.0.weight": torch.cat(state["time_embed.0.weight"].chunk(2, 1)[::-1], 1),  # sines first
    }
    name = "middle_block.1.transformer_blocks.0.ff.net.0.proj"
    geglu = state | {f"{name}.{leaf}": torch.cat(state[f"{name}.{leaf}"].chunk(2)[::-1]) for leaf in ("weight", "bias")}
    for wrong in (
        official_network.unet(swapped, x, t, text, cameras, 4),
        official_network.unet(geglu, x, t, text, cameras, 4),
        official_network.unet(state, x, t, text, cameras, 1),
        official_network.unet(state, x, t, text, cameras.roll(1, 0), 4),
    ):
        assert float((wrong - right).abs().max()) > 1e-3


@torch.no_grad()
def test_the_vae_gives_the_official_numbers(official: Official, prior: DiffusionPrior) -> None:
    state, images = official.parts[VAE_PREFIX], draw(2, 3, 32, 32).sigmoid()
    mean, std = official_network.vae_encode(state, images * 2 - 1)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(5))
    latents = prior.encode_images(images, torch.Generator().manual_seed(5))
    assert latents.shape == (2, 4, 4, 4)
    torch.testing.assert_close(latents, (mean + std * noise) * 0.18215, atol=1e-5, rtol=1e-4)
    pictures = official_network.vae_decode(state, latents / 0.18215)
    assert float(pictures.std()) > 0.05
    torch.testing.assert_close(prior.decode_latents(latents), (pictures / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=1e-4)


def test_encoding_is_differentiable_and_repeatable(prior: DiffusionPrior) -> None:
    images = draw(1, 3, 32, 32).sigmoid().requires_grad_()
    first, second = (prior.encode_images(images, torch.Generator().manual_seed(seed)) for seed in (0, 0))
    assert torch.equal(first, second)
    assert not torch.equal(first, prior.encode_images(images, torch.Generator().manual_seed(1)))
    first.square().sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0


@torch.no_grad()
def test_slicing_gives_the_same_images(prior: DiffusionPrior) -> None:
    assert isinstance(prior.codec, AutoencoderCodec)
    latents = draw(2, 4, 4, 4)
    whole = prior.decode_latents(latents)
    prior.codec.set_slicing(True)
    try:
        torch.testing.assert_close(prior.decode_latents(latents), whole, atol=1e-5, rtol=1e-5)
    finally:
        prior.codec.set_slicing(False)


@torch.no_grad()
def test_prompts_give_the_official_states(official: Official, prior: DiffusionPrior) -> None:
    """77 states, those of the padding included; SD 2.1 pads with "!" and reads the penultimate block."""
    padding = 49407 if official.sd15 else 0
    ids = torch.tensor([ELK + [padding] * (77 - len(ELK)), [49406, 49407] + [padding] * 75])
    context = prior.encode_prompt(PROMPT, "")
    found = torch.cat([context.conditional.text, context.unconditional.text])
    if official.sd15:
        assert CLIP_PREFIX + "embeddings.position_ids" in official.state
        expected = official.text(input_ids=ids).last_hidden_state
    else:
        expected = official_network.openclip_states(official.parts[OPENCLIP_PREFIX], ids)
    assert found.shape == (2, 77, 128)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_long_prompts_are_cut_at_75_words(prior: DiffusionPrior) -> None:
    assert prior.text_cut("an elk skull") is None
    assert prior.text_cut("a " * 75) is None
    assert prior.text_cut("a " * 80) == len("a " * 75) - 1


def test_the_suffix_is_for_prompts_that_do_not_say_3d(prior: DiffusionPrior) -> None:
    assert prior.settings.prompt_suffix == ", 3d asset"
    assert prior.with_suffix("an elk skull") == "an elk skull, 3d asset"
    assert prior.with_suffix(PROMPT) == PROMPT
    assert load_prior("mini").with_suffix("a chair") == "a chair"


def test_the_schedule_is_that_of_stable_diffusion(prior: DiffusionPrior) -> None:
    # docs/method.md, Sampling: sqrt(beta) is linear; alpha_bar at 0, 1, 100 and 250.
    expected = torch.tensor([0.99915, 0.9982960278, 0.8942234776, 0.6737926252], dtype=torch.float64)
    torch.testing.assert_close(prior.alphas_cumprod[[0, 1, 100, 250]], expected, atol=1e-6, rtol=0)
    assert prior.prediction_type == "epsilon"


@torch.no_grad()
def test_with_one_view_attention_is_plain(prior: DiffusionPrior) -> None:
    x, text, cameras = draw(2, 4, 8, 8), draw(2, 77, 128, seed=1), orbit(2).conditioning()
    ours = prior.unet(x, 500, text, class_labels=cameras, cross_attention_kwargs={"num_views": 1}).sample
    try:
        prior.unet.set_attn_processor(AttnProcessor2_0())
        stock = prior.unet(x, 500, text, class_labels=cameras).sample
    finally:
        set_attention(prior.unet, "3d")
    assert torch.equal(ours, stock)


@torch.no_grad()
def test_views_are_judged_together_and_have_no_order(prior: DiffusionPrior) -> None:
    x, text, cameras = draw(4, 4, 8, 8), prior.encode_prompt(PROMPT, ""), orbit(4)
    order = torch.tensor([2, 0, 3, 1])
    first, _ = prior.predict_x0(x, 500, cameras, text, 4)
    shuffled, _ = prior.predict_x0(x[order], 500, type(cameras)(cameras.c2w[order], cameras.fovy_deg[order]), text, 4)
    torch.testing.assert_close(shuffled, first[order], atol=1e-4, rtol=1e-4)
    changed, _ = prior.predict_x0(x + torch.tensor([0.0, 0.0, 1.0, 0.0]).view(4, 1, 1, 1), 500, cameras, text, 4)
    assert float((changed - first).flatten(1).abs().amax(-1).min()) > 1e-3  # the three other views moved too


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [  # found with transformers 5.23's CLIPTokenizer on the same vocabulary
        ("", [49406, 49407]),
        ("the cat's 3d asset", [49406, 518, 2368, 568, 274, 323, 13039, 49407]),
        ("a café  naïve\tçedilla", [49406, 320, 15304, 1097, 35689, 563, 10067, 843, 3043, 49407]),
        ("日本の城", [49406, 39121, 44353, 21575, 161, 253, 492, 49407]),
        ("don't they'll I'm", [49406, 847, 713, 889, 1342, 328, 880, 49407]),
        ("ALL CAPS ÀÉÎ", [49406, 615, 23185, 36149, 3459, 127, 362, 49407]),
        ("hello <|endoftext|> there", [49406, 3306, 49407, 997, 49407]),
        ("a_b-c/d", [49406, 320, 318, 321, 268, 322, 270, 323, 49407]),
    ],
)
def test_the_packaged_tokenizer_by_example(prompt: str, ids: list[int]) -> None:
    assert Tokenizer.from_file(str(CONFIGS / "clip/tokenizer.json")).encode(prompt).ids == ids


def test_the_packaged_tokenizer_is_that_of_transformers() -> None:
    model = json.loads((CONFIGS / "clip/tokenizer.json").read_text(encoding="utf-8"))["model"]
    try:
        theirs = CLIPTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])
    except TypeError:
        pytest.skip("this version of transformers builds its tokenizer from files only")
    ours = Tokenizer.from_file(str(CONFIGS / "clip/tokenizer.json"))
    prompts = [
        PROMPT,
        "a DSLR photo of a squirrel playing guitar",
        "🙂 1234 5.6% #@$",
        "a\nb",
        "e\u0301clair",
        "x" * 300,
    ]
    for prompt in [*prompts, "", "  blanks  ", "don't", "日本の城", "Ünïcödé", "<|startoftext|>", "a\u00a0b"]:
        assert ours.encode(prompt).ids == theirs(prompt)["input_ids"], prompt
