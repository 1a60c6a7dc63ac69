"""Conversion of official MVDream weights: no tensor is lost, whatever the source."""

import json
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from official_checkpoint import (
    BUFFERS,
    OPENCLIP_PREFIX,
    TEXT_FILE,
    UNET_FILE,
    UNET_PREFIX,
    VAE_FILE,
    VAE_PREFIX,
    Official,
    State,
    kept_text,
    make_official,
    official_unet,
    official_vae,
    openclip_text,
    write_folder,
)
from safetensors.torch import load_file, save_file
from tiny_prior import write_tiny_prior

from dream3d.errors import PriorError, UsageError
from dream3d.prior.image_encoder import EncoderConfig, Towers, load_towers, save_towers
from dream3d.prior.official.convert import convert, detect
from dream3d.prior.official.ldm_keys import unet_origin, vae_origin
from dream3d.weights.loading import converted_copy, find_folder, load_prior


@pytest.fixture(scope="module")
def sd21() -> Official:
    return make_official()


@pytest.fixture(scope="module")
def sd15() -> Official:
    return make_official(sd15=True)


@pytest.fixture(scope="module")
def checkpoint(sd21: Official, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "sd-v2.1-base-4view.pt"
    torch.save(sd21.state, path)
    return path


@pytest.fixture(scope="module")
def folder(sd21: Official, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(sd21, tmp_path_factory.mktemp("official") / "mvdream-sd2.1-diffusers")


@pytest.fixture(scope="module")
def converted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(checkpoint, tmp_path_factory.mktemp("converted") / "prior", "fp32")


def assert_same(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def assert_holds(folder: Path, official: Official, dtype: torch.dtype = torch.float32) -> None:
    """Every tensor of the source is in the folder, bit for bit after the change of type."""
    for file, network in ((UNET_FILE, official.unet), (VAE_FILE, official.vae)):
        assert_same(load_file(folder / file), {k: v.to(dtype) for k, v in network.state_dict().items()})
    text = {"text_model." + k: v.to(dtype) for k, v in kept_text(official).items()}
    assert_same(load_file(folder / TEXT_FILE), text)


def test_a_checkpoint_loses_no_tensor(converted: Path, sd21: Official) -> None:
    assert_holds(converted, sd21)


def test_there_and_back(converted: Path, sd21: Official) -> None:
    """The official names again from the converted folder; what does not come back is known by name."""
    made_up = {"text_projection", "logit_scale"}  # by the inverse, for a whole tower
    text = {k: v for k, v in openclip_text(load_file(converted / TEXT_FILE)).items() if k not in made_up}
    parts = {
        UNET_PREFIX: official_unet(load_file(converted / UNET_FILE)),
        VAE_PREFIX: official_vae(load_file(converted / VAE_FILE)),
        OPENCLIP_PREFIX: text,
    }
    back = {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}
    assert_same(back, {name: value for name, value in sd21.state.items() if name in back})
    last = f"transformer.resblocks.{sd21.text.config.num_hidden_layers - 1}."
    lost = {name.removeprefix(OPENCLIP_PREFIX) for name in sd21.state.keys() - back.keys()}
    assert {name for name in lost if not name.startswith(last)} == made_up | set(BUFFERS)
    assert len([name for name in lost if name.startswith(last)]) == 12  # two norms, two layers, two projections


def test_the_sd15_checkpoint_loses_no_tensor(sd15: Official, tmp_path: Path) -> None:
    torch.save({"state_dict": sd15.state, "epoch": 3}, tmp_path / "sd-v1.5-4view.ckpt")
    prior = convert(tmp_path / "sd-v1.5-4view.ckpt", tmp_path / "out", "fp32")
    assert_holds(prior, sd15)
    assert json.loads((prior / "prior.json").read_text())["name"] == "mvdream-sd15"
    assert json.loads((prior / "tokenizer/tokenizer.json").read_text())["padding"]["pad_id"] == 49407
    assert json.loads((prior / "text_encoder/config.json").read_text())["hidden_act"] == "quick_gelu"


def test_half_precision_is_the_default(checkpoint: Path, sd21: Official, tmp_path: Path) -> None:
    assert_holds(convert(checkpoint, tmp_path / "out"), sd21, torch.float16)


def test_a_safetensors_checkpoint_under_another_name(sd21: Official, tmp_path: Path) -> None:
    state = {name: value.contiguous().clone() for name, value in sd21.state.items()}
    save_file(state, tmp_path / "renamed.bin")
    assert_holds(convert(tmp_path / "renamed.bin", tmp_path / "out", "fp32"), sd21)


def test_the_folder_with_official_names_loses_no_tensor(folder: Path, sd21: Official, tmp_path: Path) -> None:
    assert_holds(convert(folder, tmp_path / "out", "fp32"), sd21)


def test_names_of_older_libraries_are_read(folder: Path, sd21: Official, tmp_path: Path) -> None:
    old = write_folder(sd21, tmp_path / "old")
    attention = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    vae = load_file(old / VAE_FILE)
    for new, name in attention.items():
        vae = {key.replace(new, name): value for key, value in vae.items()}
    save_file(vae, old / VAE_FILE)
    text = {key.removeprefix("text_model."): value for key, value in load_file(old / TEXT_FILE).items()}
    save_file(text | {"embeddings.position_ids": torch.arange(77)[None]}, old / TEXT_FILE)
    assert_holds(convert(old, tmp_path / "out", "fp32"), sd21)


def test_a_converted_folder_changes_its_type(converted: Path, sd21: Official, tmp_path: Path) -> None:
    half = convert(converted, tmp_path / "half")
    assert_holds(half, sd21, torch.float16)
    for name in ("prior.json", "tokenizer/tokenizer.json", "unet/config.json"):
        assert (half / name).read_bytes() == (converted / name).read_bytes()


def test_any_prior_folder_can_be_copied(tmp_path: Path) -> None:
    tiny = write_tiny_prior(tmp_path / "tiny")
    copy = convert(tiny, tmp_path / "copy", "fp32")
    x_t = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    first, second = load_prior(str(tiny)), load_prior(str(copy))
    assert torch.equal(first.codec.decode(x_t), second.codec.decode(x_t))
    assert torch.equal(*(prior.encode_prompt("a chair", "").conditional.text for prior in (first, second)))


def test_an_optional_component_is_copied_too(tmp_path: Path) -> None:
    tiny = write_tiny_prior(tmp_path / "tiny")
    (tiny / "image_encoder").mkdir()
    (tiny / "image_encoder/notes.txt").touch()
    towers = Towers(EncoderConfig(image_size=16, channels=(8,), dim=4, text_width=8))
    assert not (convert(tiny, tmp_path / "without") / "image_encoder").exists()  # it is no encoder without its files
    save_towers(towers, tiny / "image_encoder")
    copy = load_towers(convert(tiny, tmp_path / "copy") / "image_encoder")
    assert_same(copy.state_dict(), {name: value.half().float() for name, value in towers.state_dict().items()})


def test_an_older_folder_is_replaced_only_by_a_whole_one(checkpoint: Path, converted: Path, tmp_path: Path) -> None:
    place = convert(checkpoint, tmp_path / "out")
    (tmp_path / "broken.pt").write_bytes(checkpoint.read_bytes()[:-1])
    with pytest.raises(PriorError, match="download it again"):
        convert(tmp_path / "broken.pt", place, replace=True)
    assert load_file(place / UNET_FILE)["conv_in.weight"].dtype == torch.float16
    convert(converted, place, "fp32", replace=True)
    assert load_file(place / UNET_FILE)["conv_in.weight"].dtype == torch.float32
    assert {path.name for path in tmp_path.iterdir()} == {"out", "broken.pt"}


def test_layouts_are_told_apart(checkpoint: Path, folder: Path, converted: Path, tmp_path: Path) -> None:
    assert [detect(path) for path in (checkpoint, folder, converted)] == ["checkpoint", "folder", "converted"]
    with pytest.raises(PriorError, match="does not exist"):
        detect(tmp_path / "nothing")


def test_our_names_are_those_of_diffusers(sd21: Official) -> None:
    """Its private helper as a second opinion; the camera embedding goes under the name that it knows."""
    for network, prefix, helper, origin in (
        (sd21.unet, UNET_PREFIX, convert_ldm_unet_checkpoint, unet_origin),
        (sd21.vae, VAE_PREFIX, convert_ldm_vae_checkpoint, vae_origin),
    ):
        marked = {  # each tensor filled with its own number
            prefix + name.replace("camera_embed.", "label_emb.0."): torch.full_like(value, index)
            for index, (name, value) in enumerate(sd21.parts[prefix].items())
        }
        numbers = {name: index for index, name in enumerate(sd21.parts[prefix])}
        theirs = {name: int(value.flatten()[0]) for name, value in helper(marked, network.config).items()}
        ours = {name: numbers[piece.source] for name in network.state_dict() if (piece := origin(name)) is not None}
        assert ours == theirs


def test_a_name_outside_of_the_tables_has_no_origin() -> None:
    assert unet_origin("down_blocks.0.motion_modules.0.norm.weight") is None
    assert unet_origin("encoder_hid_proj.weight") is None
    assert vae_origin("encoder.time_conv.weight") is None


def test_a_prior_is_converted_once(
    checkpoint: Path, folder: Path, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAM3D_CACHE", str(tmp_path))
    first = find_folder(str(checkpoint))
    stat = checkpoint.stat()
    assert first == tmp_path / "converted" / f"{checkpoint.name}-{stat.st_size}-{stat.st_mtime_ns}-fp16"
    changed = (first / UNET_FILE).stat().st_mtime_ns
    assert find_folder(str(checkpoint)) == first
    assert (first / UNET_FILE).stat().st_mtime_ns == changed
    assert find_folder(str(folder)).parent == first.parent
    assert find_folder(str(converted)) == converted
    broken = tmp_path / "broken.pt"
    broken.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(PriorError, match=r"broken\.pt"):
        find_folder(str(broken))
    assert len(list((tmp_path / "converted").iterdir())) == 2


def test_a_cache_that_cannot_be_written(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DREAM3D_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="set DREAM3D_CACHE"):
        converted_copy(checkpoint)
