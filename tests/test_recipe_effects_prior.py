"""Every field of what a prior is loaded and sampled with has an effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from diffusers import AutoencoderKL
from recipe_effects import Runs, Table, assert_complete, changes, falls, rises
from safetensors.torch import save_file
from tiny_prior import write_json, write_tiny_prior
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.folder import STOCK_WEIGHTS
from dream3d.prior.image_encoder import EncoderConfig, ImageEncoder, Towers, load_text
from dream3d.prior.memory import MemoryPlan
from dream3d.prior.sampling import SamplingRecipe, sample_views

PROMPT = "a red chair"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny prior whose codec is an autoencoder: only such a one has slices."""
    folder = write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")
    config: dict[str, Any] = {
        "block_out_channels": [4, 4, 4],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "norm_num_groups": 2,
        "latent_channels": 4,
    }
    (folder / "vae").mkdir()
    write_json(folder / "vae/config.json", {"_class_name": "AutoencoderKL", **config})
    save_file(AutoencoderKL(**config).state_dict(), folder / "vae" / STOCK_WEIGHTS)
    return folder


@dataclass(frozen=True)
class Sampled:
    """Views of one object, and how they came about."""

    pictures: Tensor
    calls: int
    """Of the network."""


SAMPLING = SamplingRecipe(steps=3, guidance_scale=3.0)
SAMPLING_TABLE: Table[Sampled] = {
    "sampler": changes(lambda run: run.pictures, "dpm++"),
    "steps": rises(lambda run: run.calls, 5),  # both 3 and 4 take four, as MVDream counts
    "guidance_scale": changes(lambda run: run.pictures, 20.0),
    "rescale": changes(lambda run: run.pictures, 1.0),
    "eta": changes(lambda run: run.pictures, 1.0),
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Runs[SamplingRecipe, Sampled]:
    prior = DiffusionPrior(write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny"))
    text = prior.encode_prompt(PROMPT, "")

    def run(recipe: SamplingRecipe) -> Sampled:
        with mock.patch.object(prior, "predict", wraps=prior.predict) as predict:
            pictures = sample_views(prior, text, orbit(2), recipe, seed=0)
        assert bool(pictures.isfinite().all())
        return Sampled(pictures, predict.call_count)

    return Runs(run)


@pytest.mark.parametrize("place", SAMPLING_TABLE)
def test_a_field_of_sampling_has_its_effect(samples: Runs[SamplingRecipe, Sampled], place: str) -> None:
    samples.check(SAMPLING, place, SAMPLING_TABLE[place])


@dataclass(frozen=True)
class Loaded:
    """How a prior computes that was loaded with a plan."""

    unet: Sequence[int]
    """Sizes of the batches of the network."""
    codec: Sequence[int]
    """Those of the codec."""
    digits: float
    """Smallest step of the network's numbers over one."""
    compiled: int
    """Networks that torch.compile was given."""


# What a plan spares of the memory of a card cannot be seen on a CPU, nor what a compiled network gains. What can be
# seen is what the network and the codec are called with.
MEMORY_TABLE: Table[Loaded] = {
    "precision": rises(lambda prior: prior.digits, "bf16"),
    "split_guidance": falls(lambda prior: max(prior.unet), True),
    "slice_codec": falls(lambda prior: max(prior.codec), True),
    "compile_unet": rises(lambda prior: prior.compiled, True),
}


@pytest.fixture(scope="module")
def priors(folder: Path) -> Runs[MemoryPlan, Loaded]:
    def run(plan: MemoryPlan) -> Loaded:
        with mock.patch.object(torch, "compile", side_effect=lambda network: network) as compile_network:
            prior = DiffusionPrior(folder, memory=plan)
        batches: dict[str, list[int]] = {"unet": [], "codec": []}

        def count(name: str) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], None]:
            return lambda _, inputs: batches[name].append(len(inputs[0]))

        prior.unet.register_forward_pre_hook(count("unet"))
        prior.codec.vae.encoder.register_forward_pre_hook(count("codec"))  # type: ignore[union-attr]
        latents = prior.encode_images(torch.rand(2, 3, 16, 16), torch.Generator())
        prior.predict(latents, 500, orbit(2), prior.encode_prompt(PROMPT, ""), views=2)
        digits = torch.finfo(next(prior.unet.parameters()).dtype).eps
        return Loaded(batches["unet"], batches["codec"], digits, compile_network.call_count)

    return Runs(run)


@pytest.mark.parametrize("place", MEMORY_TABLE)
def test_a_field_of_a_memory_plan_has_its_effect(priors: Runs[MemoryPlan, Loaded], place: str) -> None:
    priors.check(MemoryPlan(), place, MEMORY_TABLE[place])


@dataclass(frozen=True)
class Built:
    """A pair of towers."""

    parameters: int
    vectors: Tensor
    """Of some pictures of 16 pixels."""
    reads: int
    """Numbers in a state of the text that they read."""


ENCODER = EncoderConfig(image_size=16, channels=(8, 8), dim=6, text_width=12)
ENCODER_TABLE: Table[Built] = {
    "image_size": changes(lambda built: built.vectors, 32),
    "channels": rises(lambda built: built.parameters, (8, 16)),
    "dim": rises(lambda built: built.vectors.shape[1], 7),
    "text_width": rises(lambda built: built.reads, 13),
}


@pytest.fixture(scope="module")
def encoders(folder: Path) -> Runs[EncoderConfig, Built]:
    text = load_text(folder)

    def run(config: EncoderConfig) -> Built:
        torch.manual_seed(0)
        towers = Towers(config)
        pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        with mock.patch.object(text, "width", config.text_width):  # another text encoder, had one been trained
            vectors = ImageEncoder(towers, text).embed_images(pictures)
        return Built(sum(p.numel() for p in towers.parameters()), vectors, towers.text.in_features)

    return Runs(run)


@pytest.mark.parametrize("place", ENCODER_TABLE)
def test_a_field_of_an_image_encoder_has_its_effect(encoders: Runs[EncoderConfig, Built], place: str) -> None:
    encoders.check(ENCODER, place, ENCODER_TABLE[place])


@pytest.mark.parametrize(
    ("table", "kind"),
    [(SAMPLING_TABLE, SamplingRecipe), (MEMORY_TABLE, MemoryPlan), (ENCODER_TABLE, EncoderConfig)],
    ids=["sampling", "memory", "encoder"],
)
def test_every_field_has_an_entry(table: Table[Any], kind: type) -> None:
    assert_complete(table, kind)
