"""Starting from Stable Diffusion, and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from tiny_prior import UNET, write_json, write_tiny_prior
from tiny_shards import tiny_recipe
from transformers import CLIPTextConfig, CLIPTextModel
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.errors import PriorError
from dream3d.prior.text import clip_file_name
from dream3d.training.start import find_start
from dream3d.training.tasks.multiview import make_trainer, train
from dream3d.weights.loading import load_prior

WEIGHTS = "diffusion_pytorch_model.safetensors"


def write_stable_diffusion(folder: Path) -> Path:
    """A folder as diffusers lays it out, of toy size: images of 16 pixels, latents of 8."""
    torch.manual_seed(0)
    for name in ("unet", "vae", "text_encoder", "scheduler"):
        (folder / name).mkdir(parents=True)
    unet = {key: value for key, value in UNET.items() if "class_embed" not in key} | {"sample_size": 64}
    write_json(folder / "unet/config.json", unet)
    save_file(UNet2DConditionModel(**unet).state_dict(), folder / "unet" / WEIGHTS)
    vae = {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [4, 4],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 2,
        "latent_channels": 4,
    }
    write_json(folder / "vae/config.json", vae)
    save_file(AutoencoderKL(**{k: v for k, v in vae.items() if k[0] != "_"}).state_dict(), folder / "vae" / WEIGHTS)
    config = CLIPTextConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    text = {clip_file_name(name): value for name, value in CLIPTextModel(config).state_dict().items()}
    write_json(folder / "text_encoder/config.json", config.to_dict())
    save_file(
        text | {"text_model.embeddings.position_ids": torch.arange(77)[None]},
        folder / "text_encoder/model.safetensors",
    )
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "skip_prk_steps": True}
    write_json(folder / "scheduler/scheduler_config.json", schedule)
    return folder


def test_stable_diffusion_is_inflated_trained_and_loads_as_a_prior(tmp_path: Path) -> None:
    start = write_stable_diffusion(tmp_path / "sd")
    recipe = tiny_recipe(tmp_path, start=str(start), image_size=16, steps=2, optimizer={"ema": 0.0})
    trainer = make_trainer(recipe, tmp_path / "run")
    assert trainer.task.unet.class_embedding.linear_2.weight.abs().sum() == 0
    assert trainer.task.inputs.prediction_type == "epsilon"
    while trainer.train_step().mode != "3d":
        pass
    assert trainer.task.unet.class_embedding.linear_2.weight.abs().sum() > 0
    train(recipe, tmp_path / "run")
    prior = load_prior(str(tmp_path / "run/prior"))
    assert (prior.image_size, prior.unet.config.sample_size, prior.views) == (16, 8, 2)
    assert prior.encode_prompt("a chair", "").conditional.text.shape == (1, 77, 12)


def test_an_incomplete_stable_diffusion_folder_is_refused_by_the_missing_file(tmp_path: Path) -> None:
    start = write_stable_diffusion(tmp_path / "sd")
    (start / "vae" / WEIGHTS).unlink()
    with pytest.raises(PriorError, match="lacks vae/diffusion_pytorch_model"):
        find_start(str(start))
    with pytest.raises(PriorError, match="unknown prior 'nothing'"):
        find_start("nothing")


def recipe_file(folder: Path) -> Path:
    recipe = tiny_recipe(folder)
    path = folder / "tiny.toml"
    path.write_text(
        f'name = "tiny-trained"\nstart = "{recipe.start}"\nsteps = 2\n[data]\nviews = "{recipe.data.views}"\n'
        "[batch]\nobjects = 1\nviews = 2\nimage_mode_fraction = 0\n[every]\nsamples = 0\n"
    )
    return path


def test_the_command_trains_and_then_finds_nothing_left_to_do(tmp_path: Path) -> None:
    command = ["train", str(recipe_file(tmp_path)), "--out", str(tmp_path / "run"), "--device", "cpu"]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "2 objects, 0 images\n" in first.output
    assert "step 2 of 2" in first.output
    assert f"wrote {tmp_path / 'run/prior'}" in first.output
    again = CliRunner().invoke(app, command)
    assert "resuming after step 2" in again.output


def test_a_wrong_setting_ends_with_2_and_writes_nothing(tmp_path: Path) -> None:
    command = ["train", str(recipe_file(tmp_path)), "--out", str(tmp_path / "run"), "--set", "steps=none"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_prior_start_keeps_its_works_in_the_attribution(tmp_path: Path) -> None:
    start = write_tiny_prior(tmp_path / "prior")
    (start / "attribution.csv").write_text("name,model,author,licence,catalogue\nboat,b1,someone,CC0-1.0,x\n")
    recipe = tiny_recipe(tmp_path / "more", start=str(start), steps=1)
    train(recipe, tmp_path / "run")
    lines = (tmp_path / "run/prior/attribution.csv").read_text().splitlines()
    assert lines[:2] == ["name,model,author,licence,catalogue", "boat,b1,someone,CC0-1.0,x"]
    assert any(line.startswith("green tree,") for line in lines)
    assert {line.count(",") for line in lines} == {4}
