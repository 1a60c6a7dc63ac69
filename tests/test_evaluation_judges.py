"""Judges in folders: SigLIP, DINOv2, LPIPS and Inception, tiny or of random weights, against what others compute."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny_judge import tiny_judges, write_tiny_judge
from tiny_prior import edit_json
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import Dinov2Config, Dinov2Model, SiglipConfig, SiglipModel

from dream3d.cameras import orbit
from dream3d.cli.evaluate_inputs import _judges
from dream3d.errors import PriorError, UsageError
from dream3d.evaluation.catalogue import check_roles, judge_folder
from dream3d.evaluation.dinov2 import Dinov2Folder
from dream3d.evaluation.inception import InceptionFolder, InceptionV3, _Conv, _Mixed
from dream3d.evaluation.judge_files import IMAGENET_MEAN, IMAGENET_STD
from dream3d.evaluation.lpips import Lpips, LpipsFolder
from dream3d.evaluation.siglip import SiglipFolder, canonical
from dream3d.evaluation.suite.cases import PROTOCOLS, Case, packaged_prompts
from dream3d.evaluation.suite.measure import Judges, measure
from dream3d.prior.folder import read_settings
from dream3d.weights.loading import find_folder

SIDE, TOKENS = 16, 6
SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
PICTURES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def written(folder: Path, config: dict[str, Any], network: torch.nn.Module) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: value.clone().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = {**SHAPE, "intermediate_size": 16, "vocab_size": 8, "max_position_embeddings": TOKENS, "projection_size": 16}
    vision = {**SHAPE, "intermediate_size": 16, "image_size": SIDE, "patch_size": 8}
    torch.manual_seed(0)
    network = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    config = {"model_type": "siglip", "text_config": text, "vision_config": vision}
    folder = written(tmp_path_factory.mktemp("siglip") / "tiny", config, network)
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁a", -1.0), ("▁red", -1.0), ("▁chair", -1.0)]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {**SHAPE, "image_size": 28, "patch_size": 14, "mlp_ratio": 2}
    torch.manual_seed(0)
    network = Dinov2Model(Dinov2Config(**settings))
    return written(tmp_path_factory.mktemp("dinov2") / "tiny", {"model_type": "dinov2", **settings}, network)


@pytest.fixture(scope="module")
def lpips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = Lpips("alex")
    for name, value in network.named_parameters():
        value.data = value.data.abs() if name.startswith("lin") else value.data  # learnt weights of channels are so
    folder = written(tmp_path_factory.mktemp("lpips") / "alex", {"model_type": "lpips", "backbone": "alex"}, network)
    return folder


def test_siglip_says_what_transformers_says(siglip: Path) -> None:
    judge = SiglipFolder(siglip)
    ids = torch.tensor([[3, 4, 5, 1, 1, 1], [5, 1, 1, 1, 1, 1]])  # padded with the end's id
    with torch.no_grad():
        seen = judge._model.vision_model(pixel_values=PICTURES * 2 - 1).pooler_output
        read = judge._model.text_model(input_ids=ids).pooler_output
    torch.testing.assert_close(judge.embed_images(PICTURES), F.normalize(seen, dim=-1))
    torch.testing.assert_close(judge.embed_texts(["A red, chair!", "chair"]), F.normalize(read, dim=-1))
    assert judge.embed_images(torch.rand(2, 3, 40, 40)).shape == (2, 16)
    assert judge.name == "SigLIP of tiny"
    assert len(judge.digest) == 3 * 64


def test_a_text_as_siglip_was_taught_with() -> None:
    assert canonical("  A DSLR photo, of a Rubik's\tcube. ") == "a dslr photo of a rubiks cube"


def test_dinov2_says_what_transformers_says(dinov2: Path) -> None:
    judge = Dinov2Folder(dinov2)
    pictures = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        seen = judge._model(pixel_values=(pictures - mean) / std).last_hidden_state[:, 0]
    torch.testing.assert_close(judge.embed_images(pictures), F.normalize(seen, dim=-1))
    assert judge.name == "DINOv2 of tiny"


def test_settings_that_only_the_library_refuses_are_one_line(dinov2: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dinov2, tmp_path / "odd"))
    edit_json(folder / "config.json", layerscale_value=7)  # transformers wants 7.0
    with pytest.raises(PriorError, match="does not describe a network") as refused:
        Dinov2Folder(folder)
    assert len(str(refused.value).splitlines()) == 1
    edit_json(folder / "config.json", layerscale_value=1.0, patch_size=64)
    with pytest.raises(PriorError, match="a patch of 64 pixels is larger than the pictures"):
        Dinov2Folder(folder)


def test_lpips_is_torchmetrics_own_to_the_digit(lpips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.functional.image import lpips as theirs

    judge: Any = LpipsFolder(lpips)
    layers = {int(name): layer for part in judge._network.net.children() for name, layer in part.named_children()}
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda net, pretrained: layers)
    reference = theirs._LPIPS(pretrained=False, net="alex", pnet_rand=True)
    for number in range(5):
        mine = judge._network.get_submodule(f"lin{number}.model.1")
        reference.get_submodule(f"lin{number}.model.1").load_state_dict(mine.state_dict())
    one, other = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = reference(one, other, normalize=True).flatten()
    torch.testing.assert_close(judge.distances(one, other), expected, atol=1e-6, rtol=1e-5)
    assert judge.distances(one, one).tolist() == [0, 0]
    assert judge.distances(PICTURES, PICTURES.flip(-1)).shape == (3,)  # smaller than the network can read


def test_files_of_the_package_hold_the_same_layers_twice(lpips: Path, tmp_path: Path) -> None:
    network = Lpips("alex")
    twice = {
        name.replace("lin", "lins."): value.clone() for name, value in network.state_dict().items() if "lin" in name
    }
    more = {**network.state_dict(), **twice, "scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "lpips", "backbone": "alex"}')
    save_file(more, folder / "model.safetensors")
    assert LpipsFolder(folder).name == "LPIPS (alex) of package"
    edit_json(folder / "config.json", backbone="vgg")
    with pytest.raises(PriorError, match="does not belong"):
        LpipsFolder(folder)
    edit_json(folder / "config.json", backbone="squeeze")
    with pytest.raises(PriorError, match="'backbone' is 'squeeze', not"):
        LpipsFolder(folder)


def test_vgg_has_its_sixteen_layers() -> None:
    with torch.device("meta"):
        counted = [one.numel() for name, one in Lpips("vgg").named_parameters() if name.startswith("net.")]
    assert sum(counted) == 14_714_688  # of VGG-16 without its three last layers
    assert len(counted) == 2 * 13


def test_inception_has_the_parameters_that_are_published() -> None:
    with torch.device("meta"):
        networks = {variant: InceptionV3(variant) for variant in ("torchvision", "fid")}
    counts = {name: sum(map(torch.numel, one.parameters())) for name, one in networks.items()}
    # torchvision says 27,161,264, of which 3,326,696 are of the layers for training alone.
    assert counts == {"torchvision": 27_161_264 - 3_326_696, "fid": 27_161_264 - 3_326_696 + 8 * 2049}
    shapes = {name: tuple(value.shape) for name, value in networks["fid"].state_dict().items()}
    assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7c.branch3x3_2a.conv.weight"] == (384, 384, 1, 3)
    assert shapes["Conv2d_3b_1x1.bn.running_mean"] == (80,)


def test_branches_and_pools_by_hand() -> None:
    one = _Conv(1, 1, 1)
    torch.nn.init.ones_(one.conv.weight)
    one.requires_grad_(False)
    layers: dict[str, torch.nn.Module] = {"a": one, "b": one, "branch_pool": one}
    picture = torch.arange(9.0).view(1, 1, 3, 3)
    seen = {pool: _Mixed(layers, (("a", ("a", "b")),), pool).eval()(picture) for pool in ("average", "average inside")}
    scale = (1 + 1e-3) ** -0.5  # of a normalisation that has learnt nothing
    assert seen["average"].shape == (1, 3, 3, 3)  # two of the branch that splits, one that pools
    torch.testing.assert_close(seen["average"][0, 0], picture[0, 0] * scale**2)
    assert float(seen["average"][0, 2, 0, 0]) == pytest.approx((0 + 1 + 3 + 4) / 9 * scale)
    assert float(seen["average inside"][0, 2, 0, 0]) == pytest.approx((0 + 1 + 3 + 4) / 4 * scale)
    assert float(_Mixed(layers, (), "max").eval()(picture)[0, 0, 0, 0]) == pytest.approx(4 * scale)
    assert _Mixed({}, (), "stride")(picture).tolist() == [[[[8.0]]]]


def test_inception_classifies_from_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = InceptionV3("fid")
    for name, value in network.named_parameters():
        if name.endswith("conv.weight"):
            torch.nn.init.kaiming_normal_(value)
    folder = written(tmp_path / "fid", {"model_type": "inception_v3", "variant": "fid"}, network)
    judge = InceptionFolder(folder)
    features, probabilities = judge.classify(PICTURES)
    assert features.shape == (3, 2048)
    assert probabilities.shape == (3, 1008)
    torch.testing.assert_close(probabilities, (features @ network.fc.weight.detach().t()).softmax(-1))
    assert float((features[0] - features[1]).abs().max()) > 1e-3


def test_the_catalogue_tells_judges_apart(siglip: Path, dinov2: Path, lpips: Path, tmp_path: Path) -> None:
    found = [judge_folder(str(one)) for one in (siglip, dinov2, lpips)]
    assert [one and (one.kind, one.role) for one in found] == [
        ("siglip", "encoder"),
        ("dinov2", "pictures"),
        ("lpips", "distance"),
    ]
    assert judge_folder("mini") is None
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(UsageError, match="is of kind 'resnet'; a judge is a prior, or one of clip, siglip"):
        judge_folder(str(tmp_path))
    folders = [one for one in (found[0], found[0]) if one is not None]
    with pytest.raises(UsageError, match="judge the same; give one --judge of siglip"):
        check_roles(folders)


def test_the_command_puts_them_together(
    siglip: Path, dinov2: Path, lpips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dream3d.evaluation.encoders.is_installed", lambda: False)
    judges, background = _judges((str(siglip), str(dinov2), str(lpips)), [], "cpu")
    assert [one.name for one in judges.all.values()] == ["SigLIP of tiny", "DINOv2 of tiny", "LPIPS (alex) of alex"]
    assert background == read_settings(find_folder("mini")).background
    with pytest.raises(UsageError, match=r"mini and .* judge the same"):
        _judges(("mini", str(siglip)), [], "cpu")


def test_their_figures_are_in_a_result(dinov2: Path, lpips: Path, tmp_path: Path) -> None:
    plain = tiny_judges(write_tiny_judge(tmp_path / "tiny"))
    judges = Judges(plain.encoder, plain.classifier, Dinov2Folder(dinov2), LpipsFolder(lpips))
    assert judges.digest.startswith(plain.digest)
    assert plain.digest == f"{plain.encoder.digest} colours"  # what was kept before is found again
    truth = torch.cat([PICTURES, torch.ones(3, 1, SIDE, SIDE)], 1)[[0, 1, 2, 0]]
    case = Case("a chair", orbit(4), truth, is_exact=True, pictures=PICTURES[:1])
    same = measure(case, 0, truth[:, :3], (1.0, 1.0, 1.0), judges).figures
    other = measure(case, 0, 1 - truth[:, :3], (1.0, 1.0, 1.0), judges).figures
    assert same["lpips"] == pytest.approx(0, abs=1e-3)
    assert other["lpips"] > same["lpips"]
    assert same["image_image_pictures"] > other["image_image_pictures"]
    assert not measure(case, 0, truth[:, :3], (1.0, 1.0, 1.0), plain).figures.keys() & {"lpips", "image_image_pictures"}


def test_dreamfusions_prompts_are_415() -> None:
    prompts = packaged_prompts(PROTOCOLS["dreamfusion"].prompts)
    assert len(set(prompts)) == len(prompts) == PROTOCOLS["dreamfusion"].limit == 415
    assert "a bald eagle carved out of wood" in prompts
    assert all(prompt == prompt.strip() for prompt in prompts)
