"""Official image adapters: MV-RAG's folder, ImageDream's file, and a file with an adapter alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from official_checkpoint import SMALL, UNET_FILE, UNET_PREFIX, Official, State, make_official, write_folder
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from dream3d.errors import PriorError, UsageError
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.image_adapter.adapter import ImageAdapter
from dream3d.prior.image_adapter.config import AdapterConfig
from dream3d.prior.official.convert import add_adapter, convert
from dream3d.prior.official.image_adapter import adapter_origin
from dream3d.prior.official.ldm_keys import unet_origin

CONFIG = AdapterConfig(feature_width=32, dim=64, depth=2, heads=2, queries=4, token_width=SMALL.text)
VISION = CLIPVisionConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=16,  # as ViT-H/14, whose number does not show in the shapes
    image_size=28,
    patch_size=14,
    hidden_act="gelu",
)
OFFICIAL_LAYERS = {
    320: "input_blocks.1.1 input_blocks.2.1 output_blocks.9.1 output_blocks.10.1 output_blocks.11.1",
    640: "input_blocks.4.1 input_blocks.5.1 output_blocks.6.1 output_blocks.7.1 output_blocks.8.1",
    1280: "input_blocks.7.1 input_blocks.8.1 middle_block.1 output_blocks.3.1 output_blocks.4.1 output_blocks.5.1",
}
"""Where the published weights have an image attention, by channels."""


@pytest.fixture(scope="module")
def official() -> Official:
    return make_official()


@pytest.fixture(scope="module")
def parts(official: Official) -> tuple[State, State]:
    """Projections by official names, and a resampler by flat ones."""
    generator = torch.Generator().manual_seed(9)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.1

    text = {name: value for name, value in official.parts[UNET_PREFIX].items() if name.endswith("attn2.to_k.weight")}
    projections = {}
    for name, value in text.items():
        for letter in "kv":
            projections[name.replace("to_k", f"to_{letter}_ip")] = random(*value.shape)
    resampler = ImageAdapter(CONFIG, {}).resampler.state_dict()
    return projections, {name: random(*value.shape) for name, value in resampler.items()}


@pytest.fixture(scope="module")
def mvrag(official: Official, parts: tuple[State, State], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(official, tmp_path_factory.mktemp("official") / "mvrag")
    projections, resampler = parts
    save_file({**official.parts[UNET_PREFIX], **projections}, folder / UNET_FILE)
    for name in ("resampler", "image_encoder"):
        (folder / name).mkdir()
    save_file(resampler, folder / "resampler/model.safetensors")
    torch.manual_seed(4)
    tower = CLIPVisionModel(VISION).state_dict()
    named = {f"vision_model.{name.removeprefix('vision_model.')}": value.contiguous() for name, value in tower.items()}
    named["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(named, folder / "image_encoder/model.safetensors")
    (folder / "resampler/resampler.py").write_text("raise RuntimeError('code of a checkpoint was run')")
    return folder


@pytest.fixture(scope="module")
def base(official: Official, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return convert(write_folder(official, folder / "mvdream"), folder / "prior", "fp32")


@pytest.fixture(scope="module")
def converted(mvrag: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(mvrag, tmp_path_factory.mktemp("converted") / "prior", "fp32")


def test_the_image_attentions_lie_where_the_published_weights_have_them(parts: tuple[State, State]) -> None:
    blocks = " ".join(OFFICIAL_LAYERS.values()).split()
    names = {f"{block}.transformer_blocks.0.attn2.to_{letter}_ip.weight" for block in blocks for letter in "kv"}
    assert parts[0].keys() == names
    assert len(names) == 32
    stock = "layers.up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_v_ip.weight"
    piece = adapter_origin(stock)
    assert piece is not None
    assert piece.source == "output_blocks.11.1.transformer_blocks.0.attn2.to_v_ip.weight"
    assert unet_origin("mid_block.attentions.0.transformer_blocks.0.attn2.to_k_ip.weight") is not None


def test_the_folder_becomes_a_prior_that_reads_pictures(
    converted: Path, base: Path, parts: tuple[State, State]
) -> None:
    prior = DiffusionPrior(converted)
    assert (prior.name, prior.recommended_preset) == ("mvrag", "mvdream")
    adapter = prior.image_adapter
    assert adapter.module.config == CONFIG
    assert adapter.encoder.features(torch.rand(2, 3, 28, 28)).shape == (2, 5, 32)
    assert adapter.tokens(torch.rand(2, 3, 28, 28)).shape == (1, 8, SMALL.text)
    projections, resampler = parts
    state = adapter.module.state_dict()
    for name, value in resampler.items():
        assert torch.equal(state[f"resampler.{name}"], value), name
    middle = "middle_block.1.transformer_blocks.0.attn2.to_k_ip.weight"
    own = "layers.mid_block/attentions/0/transformer_blocks/0/attn2.to_k_ip.weight"
    assert torch.equal(state[own], projections[middle])
    assert load_file(converted / UNET_FILE).keys() == load_file(base / UNET_FILE).keys()
    for name, value in load_file(base / UNET_FILE).items():
        assert torch.equal(load_file(converted / UNET_FILE)[name], value)
        break


def test_features_are_those_before_the_last_block(converted: Path, mvrag: Path) -> None:
    """Of the published tower, on pixels normalised by hand; the class token stays."""
    tower = CLIPVisionModel(VISION)
    own = {name.removeprefix("vision_model."): name for name in tower.state_dict()}
    saved = load_file(mvrag / "image_encoder/model.safetensors")
    saved = {name.removeprefix("vision_model."): value for name, value in saved.items() if "position_ids" not in name}
    tower.load_state_dict({own[name]: value for name, value in saved.items()})
    seen: list[Tensor] = []
    layers = [module for name, module in tower.named_modules() if name.endswith("encoder.layers.1")]
    layers[0].register_forward_hook(lambda module, given, result: seen.append(result))
    grey = torch.full((1, 3, 28, 28), 0.5)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    with torch.no_grad():
        tower.eval()((grey - mean[:, None, None]) / std[:, None, None])
    state = seen[0] if isinstance(seen[0], Tensor) else seen[0][0]
    encoder = DiffusionPrior(converted).image_adapter.encoder
    torch.testing.assert_close(encoder.features(grey), state)
    torch.testing.assert_close(encoder.blank(), encoder.features(mean[:, None, None].expand(1, 3, 28, 28)))
    assert encoder.embed(torch.rand(2, 3, 40, 40)).norm(dim=-1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("kind", ["adapter", "imagedream"])
def test_an_adapter_alone_gives_the_same_tensors(
    official: Official, parts: tuple[State, State], base: Path, converted: Path, tmp_path: Path, kind: str
) -> None:
    """83 tensors beside MVDream; of ImageDream's file nothing else is taken."""
    projections, resampler = parts
    source = tmp_path / "adapter.safetensors"
    if kind == "adapter":
        save_file({**projections, **{f"resampler.{name}": value for name, value in resampler.items()}}, source)
    else:
        trained = {name: value + 1 for name, value in official.parts[UNET_PREFIX].items()}
        inner = {**trained, **projections, **{f"image_embed.{name}": value for name, value in resampler.items()}}
        source = tmp_path / "imagedream.pt"
        torch.save({f"{UNET_PREFIX}{name}": value for name, value in inner.items()}, source)
    prior = Path(shutil.copytree(base, tmp_path / "prior"))
    with pytest.raises(PriorError, match="has an image encoder"):
        add_adapter(source, prior, "fp32")
    shutil.copytree(converted / "image_encoder", prior / "image_encoder")
    place = add_adapter(source, prior, "fp32")
    found, wanted = (load_file(folder / "model.safetensors") for folder in (place, converted / "image_adapter"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert DiffusionPrior(prior).image_adapter.module.config == CONFIG
    with pytest.raises(UsageError, match="image_adapter exists"):
        add_adapter(source, prior)


def test_damaged_adapters_are_refused(parts: tuple[State, State], base: Path, tmp_path: Path) -> None:
    projections, resampler = parts
    prior = Path(shutil.copytree(base, tmp_path / "prior"))
    (prior / "image_encoder").mkdir()
    (prior / "image_encoder/model.safetensors").write_bytes(b"")
    named = {f"resampler.{name}": value for name, value in resampler.items()}
    cases = {
        "holds no image adapter": projections,
        "lacks the tensor 'resampler.norm_out.bias'": {
            **projections,
            **{name: value for name, value in named.items() if name != "resampler.norm_out.bias"},
        },
        "holds the unknown tensor .*proj_more": {**projections, **named, "resampler.proj_more": torch.zeros(2)},
        "lacks the tensor '.*to_k_ip.weight'": {**dict(list(projections.items())[1:]), **named},
    }
    for message, tensors in cases.items():
        save_file(tensors, tmp_path / "adapter.safetensors")
        with pytest.raises(PriorError, match=message):
            add_adapter(tmp_path / "adapter.safetensors", prior)
        assert not (prior / "image_adapter").exists()


def test_a_folder_without_image_encoder_is_refused(mvrag: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mvrag, tmp_path / "mvrag"))
    shutil.rmtree(folder / "image_encoder")
    with pytest.raises(PriorError, match=r"lacks image_encoder/model.safetensors"):
        convert(folder, tmp_path / "out")
