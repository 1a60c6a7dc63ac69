"""DINOv2 of a folder as what alpha is measured by."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_adapter import write_tiny_adapter
from tiny_prior import edit_json, write_json, write_tiny_prior
from transformers import Dinov2Config, Dinov2Model
from typer.testing import CliRunner

from dream3d.batch.jobs import plan
from dream3d.batch.prompts import Entry
from dream3d.cameras import orbit
from dream3d.cli.app import app
from dream3d.errors import PriorError, UsageError
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.image_adapter import dinov2
from dream3d.prior.image_adapter.dinov2 import MEAN, STD, check_dinov2, dinov2_digest, load_dinov2
from dream3d.prior.sampling import sample_views, sampling_for
from dream3d.retrieval.gathering import PictureOptions
from dream3d.retrieval.guided import OWN_ENCODER, Fusion, coefficient
from dream3d.retrieval.references import Reference, read_images, squares
from dream3d.retrieval.run_pictures import KEY, Guides, guided, keep, record_of, request_of, tell
from dream3d.run.folder import RunFolder

SIZES: dict[str, Any] = {
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 28,
    "patch_size": 14,
}


def write_tiny_dinov2(folder: Path) -> Path:
    """A network of random weights, its tensors named as published files name them; returns its folder."""
    folder.mkdir(parents=True)
    torch.manual_seed(4)
    model: Any = Dinov2Model(Dinov2Config(**SIZES))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    write_json(folder / "config.json", {"model_type": "dinov2", **SIZES})
    tensors = {}
    for name, value in model.state_dict().items():
        for older, newer in dinov2._OLDER_NAMES:
            name = name.replace(newer, older)
        tensors[name] = value.contiguous()
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_dinov2(tmp_path_factory.mktemp("dinov2") / "tiny-dinov2")


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPrior:
    return DiffusionPrior(write_tiny_adapter(write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reference, ...]:
    folder = tmp_path_factory.mktemp("pictures")
    Image.new("RGB", (20, 12), (200, 40, 0)).save(folder / "red.png")
    Image.linear_gradient("L").convert("RGB").save(folder / "grey.png")
    return tuple(read_images([folder / "red.png", folder / "grey.png"])[0])


def test_it_says_what_transformers_says_and_reads_older_and_newer_names(tiny: Path, tmp_path: Path) -> None:
    loaded = load_dinov2(tiny)
    assert (loaded.name, loaded.size) == ("DINOv2 of tiny-dinov2", 28)
    assert any("attention.attention.query" in name for name in load_file(tiny / "model.safetensors"))
    pictures = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (MEAN, STD))
    model: Any = loaded._model
    with torch.no_grad():
        token = model((pictures - mean) / std).last_hidden_state[:, 0]
    torch.testing.assert_close(loaded.embed(pictures), F.normalize(token, dim=-1))
    assert loaded.embed(torch.rand(2, 3, 40, 30)).shape == (2, 12)
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "model.safetensors")
    assert torch.equal(load_dinov2(tmp_path).embed(pictures), loaded.embed(pictures))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "clip"}, "'model_type' is 'clip'"),
        ({"hidden_size": -1}, "'hidden_size' is -1"),
        ({"num_attention_heads": 5}, "no multiple"),
        ({"layerscale_value": 7}, "does not describe a network"),  # transformers wants 7.0
        ({"num_hidden_layers": 2}, "lacks the tensor"),
        ({"num_channels": 4}, "'num_channels' is 4"),
    ],
)
def test_folders_that_are_none_are_refused(tiny: Path, tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    for name in dinov2.FILES:
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    edit_json(tmp_path / "config.json", **change)
    for read in (check_dinov2, load_dinov2):
        with pytest.raises(PriorError, match=reason):
            read(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(PriorError, match=r"lacks model\.safetensors"):
        check_dinov2(tmp_path)


def test_alpha_is_the_similarity_that_it_says(tiny: Path, prior: DiffusionPrior, shown: tuple[Reference, ...]) -> None:
    text, recipe, cameras = prior.encode_prompt("a red chair", ""), sampling_for("mini"), orbit(prior.views)
    _, own = guided(prior, text, Guides(shown), 0, cameras, recipe)
    _, other = guided(prior, text, Guides(shown, None, tiny), 0, cameras, recipe)
    assert own is not None
    assert other is not None
    assert own.encoder == OWN_ENCODER
    assert "(measured):" in own.explanation
    assert other.record["encoder"] == "DINOv2 of tiny-dinov2"
    assert "(measured by DINOv2 of tiny-dinov2):" in other.explanation
    drawn = sample_views(prior, text, cameras, replace(recipe, steps=10), 0)
    encoder = load_dinov2(tiny)
    pictures = squares(shown, 28, prior.image_adapter.module.config.padding)
    assert other.alpha == coefficient(encoder.embed(drawn), encoder.embed(pictures)) != own.alpha
    assert Fusion(0.5, 1.5, measured=False).record == {"alpha": 0.5, "weight_sum": 1.5, "measured": False}


def test_a_run_says_by_what_and_finds_it_again_or_says_so(
    tiny: Path, prior: DiffusionPrior, shown: tuple[Reference, ...], tmp_path: Path
) -> None:
    guides = Guides(shown, None, tiny)
    facts = {KEY: record_of(guides, prior), "request": request_of(guides)}
    assert "tiny-dinov2" not in json.dumps(facts[KEY])  # the asset tells no path
    assert facts[KEY]["alpha_encoder"] == {"sha256": dinov2_digest(tiny)}
    assert request_of(Guides(shown)) == {}
    with pytest.raises(PriorError, match=r"lacks config\.json"):
        record_of(Guides(shown, None, tmp_path), prior)
    text = prior.encode_prompt("a red chair", "")
    with RunFolder(tmp_path / "run", facts) as run:
        keep(run, shown)
        _, sentence = tell(run, text, "a red chair", 0, prior)
        assert "measured by DINOv2 of tiny-dinov2" in sentence
        assert run.facts[KEY]["fusion"]["encoder"] == "DINOv2 of tiny-dinov2"
    with RunFolder(tmp_path / "gone", {**facts, "request": {"fusion_encoder": str(tmp_path)}}) as run:
        keep(run, shown)
        with pytest.raises(UsageError, match="has changed or is not there; put it back"):
            tell(run, text, "a red chair", 0, prior)


def test_the_commands_and_lists_take_the_folder(
    tiny: Path, prior: DiffusionPrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 12), (200, 40, 0)).save("red.png")
    words = ["views", "a red chair", "--prior", str(prior.folder), "--steps", "2", "--images", "red.png"]
    done = CliRunner().invoke(app, [*words, "--fusion-encoder", str(tiny)])
    assert done.exit_code == 0, done.output
    assert "measured by DINOv2 of tiny-dinov2" in done.output
    done = CliRunner().invoke(app, [*words, "--fusion-encoder", str(tmp_path)])
    assert done.exit_code == 2
    assert "lacks config.json; give DINOv2's folder" in done.output
    done = CliRunner().invoke(app, [*words, "--fusion-encoder", str(tiny), "--fusion", "0.5"])
    assert done.exit_code == 2
    assert "--fusion-encoder goes with --images or --retrieve, and with --fusion auto" in done.output
    with pytest.raises(UsageError, match="goes with --images or --retrieve"):
        PictureOptions(fusion_encoder=tiny)

    def key(**settings: str) -> Any:
        (job,), _ = plan([Entry("a chair", {"images": "red.png", **settings}, "list:1")], [0], {}, "p", "a")
        return job

    job = key(fusion_encoder=str(tiny))
    assert job.pictures.fusion_encoder == tiny
    assert job.pictures.settings["fusion_encoder"] == "tiny-dinov2"
    assert job.key != key().key
    with pytest.raises(UsageError, match="list:1: "):
        key(fusion_encoder="nowhere")
