"""The scripts of examples/mini that are too long to run here: their parts, and the commands they call."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_prior import write_tiny_prior
from tiny_shards import write_tiny_shards
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.dataset.procedural.make import check_families
from dream3d.dataset.shards import read_images, read_objects, shards
from dream3d.prior.patch_pca import PatchPCA, fit_patch_pca
from dream3d.training.network import make_network
from dream3d.training.recipe import read_recipe
from dream3d.weights.loading import load_prior

MINI = Path(__file__).parent.parent / "examples/mini"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(MINI))
    return importlib.import_module(name)


def test_the_build_script_is_valid_and_every_option_it_uses_exists() -> None:
    subprocess.run(["bash", "-n", str(MINI / "build.sh")], check=True)
    text = (MINI / "build.sh").read_text().replace("\\\n", " ")
    commands = re.findall(r"dream3d ((?:dataset )?[a-z-]+) ([^\n)]*)", text)
    commands = [(name, options) for name, options in commands if name != "views"]
    assert {name for name, _ in commands} == {
        "dataset make",
        "dataset render",
        "dataset images",
        "train",
        "train-encoder",
    }
    for name, options in commands:
        known = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"}).output
        for option in re.findall(r"--[a-z-]+", options):
            assert option in known, f"{name} has no {option}"
    families = ",".join(re.findall(r"^FAMILIES\+?=,?(\S+)", text, re.MULTILINE))
    assert len(check_families(families.split(","))) == 51


def test_the_bundle_is_small_and_loads_and_names_each_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prior = write_tiny_prior(tmp_path / "prior")
    (prior / "attribution.csv").write_text(
        "name,model,author,licence,catalogue\nchair,a#1,Ann,CC-BY-3.0,Shop\n"
        "dog,dog-1,dream3d,CC0-1.0,procedural\npicture,a#1-02,Ann,CC-BY-3.0,\n"
    )
    encoder = tmp_path / "encoder" / "image_encoder"
    encoder.mkdir(parents=True)
    save_file({"weight": torch.ones(64, 64)}, encoder / "model.safetensors")
    bundle = script("bundle", monkeypatch)
    arguments = ["--prior", str(prior), "--encoder", str(encoder.parent), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["bundle.py", *arguments, "--version", "7"])
    bundle.main()
    assert " MB" in capsys.readouterr().out
    assert load_prior(str(tmp_path / "out")).describe()["version"] == "7"
    assert load_file(tmp_path / "out/image_encoder/model.safetensors")["weight"].dtype == torch.int8
    rows = (tmp_path / "out" / "attribution.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["name", "chair", "asset"]
    with pytest.raises(SystemExit):
        bundle.main()  # never over a folder that is there


def test_an_ablation_differs_from_the_main_run_in_what_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    ablations = script("ablations", monkeypatch)
    recipes = {v.name: ablations.recipe_of(v, Path("d"), Path("s"), 10) for v in ablations.VARIANTS}
    main = recipes["main"]
    assert (main.attention, main.batch.views, main.batch.image_mode_fraction) == ("3d", 4, 0.3)
    assert (recipes["attention-2d"].attention, recipes["attention-temporal"].attention) == ("2d", "temporal")
    assert recipes["no-2d-data"].batch.image_mode_fraction == 0
    for recipe in recipes.values():
        assert recipe.batch.views * recipe.batch.objects == 24
        assert recipe.start == "s"
    base = ablations.base_recipe(Path("d"), 10)
    assert (base.batch.image_mode_fraction, base.attention, base.start) == (1.0, "2d", "mini")
    assert base.network


def test_the_ablations_data_keep_some_concepts_from_the_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ablations = script("ablations", monkeypatch)
    monkeypatch.setattr(ablations, "IN_3D", ("red chair",))
    monkeypatch.setattr(ablations, "ONLY_IN_2D", ("green tree",))
    ablations.write_data([write_tiny_shards(tmp_path / "shards")], tmp_path / "data")
    names = [o.record.name for o in read_objects(tmp_path / "data/views/train-00000.tar")]
    assert names == ["red chair"]
    pictures = [image for path in shards(tmp_path / "data/images", "images") for image in read_images(path)]
    assert {words for image in pictures for words in image.captions} >= {"red chair", "green tree"}


def test_a_fitted_codec_keeps_what_its_components_hold_and_has_the_spread_it_should() -> None:
    generator = torch.Generator().manual_seed(0)
    colors = torch.rand(64, 3, 1, 1, generator=generator) * 2 - 1
    slope = torch.linspace(-0.2, 0.2, 8).view(1, 1, 1, 8) * torch.randn(64, 1, 1, 1, generator=generator)
    images = (colors + slope).expand(64, 3, 8, 8)
    half, white = (fit_patch_pca(images.split(10), 8, 4, power) for power in (0.5, 1.0))
    for codec in (half, white):  # three colours and a slope are four components
        latents = codec.encode(images)
        assert latents.shape == (64, 4, 1, 1)
        torch.testing.assert_close(codec.decode(latents), images, atol=1e-5, rtol=0)
        spread = latents.std((0, 2, 3), correction=0)
        assert spread.square().mean().item() == pytest.approx(1, abs=1e-3)
    assert (white.encode(images).std((0, 2, 3), correction=0) - 1).abs().max() < 1e-3
    assert spread[0] < 1.01 < half.encode(images).std((0, 2, 3), correction=0)[0]
    assert (
        fit_patch_pca([images], 8, 1).decode(fit_patch_pca([images], 8, 1).encode(images)) - images
    ).abs().max() > 0.1


def test_the_codec_script_makes_a_start_on_other_latents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, prior = write_tiny_shards(tmp_path / "shards"), write_tiny_prior(tmp_path / "prior")
    codec = script("codec", monkeypatch)
    out = tmp_path / "start"
    arguments = [str(data), "--images", str(data), "--patch", "8", "--channels", "5"]
    monkeypatch.setattr(sys, "argv", ["codec.py", *arguments, "--start", str(prior), "--out", str(out)])
    codec.main()
    assert " dB)" in capsys.readouterr().out
    made = load_prior(str(out))
    assert isinstance(made.codec, PatchPCA)
    assert (made.codec.patch_size, made.codec.channels) == (8, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prior", "shards", "start"]


def test_the_adapters_recipe_and_its_ablations_differ_in_one_field() -> None:
    text = (MINI / "retrieval.toml").read_text()
    changes = re.findall(r"--set (\S+)", text)
    assert changes == ["retrieval.modes=2d", "retrieval.modes=3d", "retrieval.augment=0"]
    whole = read_recipe(MINI / "retrieval.toml")
    assert whole.task == "retrieval"
    assert (whole.retrieval.modes, whole.retrieval.augment, whole.retrieval.pictures) == ("both", 1.0, 4)
    for change in changes:
        ablated = read_recipe(MINI / "retrieval.toml", [change])
        assert dataclasses.replace(ablated, retrieval=whole.retrieval) == whole
        assert ablated.retrieval != whole.retrieval
    build = (MINI / "build.sh").read_text()
    for folder in (*whole.data.view_folders, *whole.data.image_folders, Path(whole.start)):
        assert f'--out "$BUILD/{folder}"' in build


def test_the_recipes_of_hundreds_of_things_follow_each_other() -> None:
    things, joint = (read_recipe(MINI / f"{name}.toml") for name in ("things", "joint"))
    assert (things.task, joint.task) == ("multiview", "joint")
    assert len(things.data.concepts) > 250
    assert joint.data.concepts == ()
    assert joint.data.view_folders == things.data.view_folders
    build = (MINI / "build.sh").read_text()
    for folder in (*joint.data.view_folders, *joint.data.image_folders):
        assert f'--out "$BUILD/{folder}"' in build


def test_the_next_recipe_is_valid_and_builds_its_network(tmp_path: Path) -> None:
    recipe = read_recipe(MINI / "next.toml")
    assert recipe.steps * recipe.batch.objects * recipe.batch.views >= 2_000_000
    start = {"in_channels": 64, "out_channels": 64, "cross_attention_dim": 384}
    (tmp_path / "config.json").write_text(json.dumps(start))
    generator = torch.Generator().manual_seed(0)
    network = make_network(tmp_path, recipe.network, recipe.attention, 8, generator)
    assert network.config.in_channels == 64
