"""Conversion of official MVDream weights: no tensor lost, and one clear line for everything that is wrong."""

import errno
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from official_checkpoint import (
    BUFFERS,
    OPENCLIP_PREFIX,
    UNET_PREFIX,
    VAE_PREFIX,
    Official,
    State,
    change,
    kept_text,
    make_official,
    official_unet,
    official_vae,
    openclip_text,
    write_folder,
)
from safetensors.torch import load_file, save_file
from tiny_prior import write_tiny_prior
from torch import nn

from dream3d.errors import Dream3DError, PriorError, UsageError
from dream3d.prior.official.convert import convert, detect
from dream3d.prior.official.ldm_keys import unet_origin, vae_origin
from dream3d.prior.official.tensors import open_tensors, write_tensors
from dream3d.weights.loading import converted_copy, find_folder, load_prior

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
VAE_FILE = "vae/diffusion_pytorch_model.safetensors"
TEXT_FILE = "text_encoder/model.safetensors"
CONV_IN = UNET_PREFIX + "input_blocks.0.0.weight"


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


def save(state: State, path: Path) -> Path:
    torch.save(state, path)
    return path


def refused(source: Path, destination: Path) -> str:
    """The one line that a conversion fails with; it must leave nothing behind."""
    with pytest.raises(UsageError) as caught:
        convert(source, destination)
    assert isinstance(caught.value, PriorError)
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)
    assert not destination.exists()
    assert [path.name for path in destination.parent.iterdir() if path.name.startswith(".")] == []
    return str(caught.value)


LAST = OPENCLIP_PREFIX + "transformer.resblocks.2."


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update({"model_ema.decay": torch.ones(())}), "unknown tensor 'model_ema.decay'"),
        (lambda s: s.update({UNET_PREFIX + "extra": torch.ones(1)}), f"unknown tensor '{UNET_PREFIX}extra'"),
        (lambda s: s.update({LAST + "gate": torch.ones(1)}), f"unknown tensor '{LAST}gate'"),
        (lambda s: s.pop(CONV_IN), f"lacks the tensor '{CONV_IN}'"),
        (lambda s: s.pop(UNET_PREFIX + "out.0.bias"), f"lacks the tensor '{UNET_PREFIX}out.0.bias'"),
        (lambda s: s.pop(UNET_PREFIX + "camera_embed.2.bias"), "lacks the tensor .*camera_embed.2.bias"),
        (lambda s: s.pop(VAE_PREFIX + "quant_conv.bias"), f"lacks the tensor '{VAE_PREFIX}quant_conv.bias'"),
        (lambda s: s.pop(OPENCLIP_PREFIX + "ln_final.bias"), f"lacks the tensor '{OPENCLIP_PREFIX}ln_final.bias'"),
        (lambda s: s.update({UNET_PREFIX + "out.0.bias": torch.ones(7)}), r"out.0.bias' has shape \(7,\), .* \(64,\)"),
        (
            lambda s: s.update({OPENCLIP_PREFIX + "transformer.resblocks.0.attn.in_proj_bias": torch.ones(128)}),
            r"in_proj_bias' has shape \(128,\), the others need \(384,\)",
        ),
        (lambda s: s.update({"betas": torch.ones(5)}), r"'betas' has shape \(5,\), not \(1000,\)"),
        (lambda s: s.update({UNET_PREFIX + "out.0.bias": torch.ones(64).long()}), "holds torch.int64"),
        (lambda s: s.update({UNET_PREFIX + "out.0.bias": torch.full((64,), 7e4)}), "no finite torch.float16; try fp32"),
    ],
)
def test_every_tensor_is_accounted_for(
    sd21: Official, tmp_path: Path, edit: Callable[[State], object], message: str
) -> None:
    source = save(change(sd21.state, edit), tmp_path / "model.pt")
    assert re.search(message, refused(source, tmp_path / "out"))


def test_two_mixed_models_are_noticed(sd21: Official, sd15: Official, tmp_path: Path) -> None:
    state = {k: v for k, v in sd21.state.items() if not k.startswith(UNET_PREFIX)}
    state |= {k: v for k, v in sd15.state.items() if k.startswith(UNET_PREFIX)}
    assert "does not belong to mvdream-sd15's UNet" in refused(save(state, tmp_path / "model.pt"), tmp_path / "out")


def test_a_folder_with_a_missing_file_or_a_doubled_tensor(sd21: Official, tmp_path: Path) -> None:
    source = write_folder(sd21, tmp_path / "official")
    vae = load_file(source / VAE_FILE)
    doubled = "decoder.mid_block.attentions.0.query.bias"
    save_file(vae | {doubled: torch.zeros(64)}, source / VAE_FILE)
    assert doubled in refused(source, tmp_path / "out")
    (source / VAE_FILE).unlink()
    assert f"lacks {VAE_FILE}" in refused(source, tmp_path / "out")


def test_a_stock_folder_without_its_description(converted: Path, tmp_path: Path) -> None:
    for name in (UNET_FILE, VAE_FILE, TEXT_FILE):
        (tmp_path / "copy" / name).parent.mkdir(parents=True)
        (tmp_path / "copy" / name).symlink_to(converted / name)
    assert "needs a prior.json" in refused(tmp_path / "copy", tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 3, 500, 10**6, -1])
def test_a_truncated_checkpoint(checkpoint: Path, tmp_path: Path, keep: int) -> None:
    (tmp_path / "half.pt").write_bytes(checkpoint.read_bytes()[:keep])
    assert "download it again" in refused(tmp_path / "half.pt", tmp_path / "out")


def test_a_truncated_safetensors_file(folder: Path, sd21: Official, tmp_path: Path) -> None:
    source = write_folder(sd21, tmp_path / "official")
    (source / UNET_FILE).write_bytes((folder / UNET_FILE).read_bytes()[:-1])
    assert "truncated or not a safetensors file" in refused(source, tmp_path / "out")


class Payload:
    """What a malicious checkpoint would carry: unpickling it runs a command."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {Path(__file__).parent / 'executed'}",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"a": Payload()}, tmp_path / "evil.pt")
    assert "could run code" in refused(tmp_path / "evil.pt", tmp_path / "out")
    assert not (Path(__file__).parent / "executed").exists()


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    source, out = tmp_path / "file.pt", tmp_path / "out"
    source.write_text("<html>404</html>")
    assert "neither a torch checkpoint nor a safetensors file" in refused(source, out)
    torch.save({"a": torch.ones(1)}, source, _use_new_zipfile_serialization=False)
    assert "bare pickle or torch's format from before 1.6" in refused(source, out)
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.pt", b"x" * 1000)
    assert "compressed zip archive" in refused(source, out)
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("model.pt", b"x" * 1000)
    assert "not a torch checkpoint" in refused(source, out)
    for content, message in (
        ([torch.ones(1)], "holds a list, not a state dict"),
        ({}, "holds no tensors"),
        ({"lr": 0.1}, "holds 'lr', a float, which is no weight tensor"),
        ({"w": torch.ones(1).expand(10**9)}, "claims 4000000000 bytes"),
        (nn.Linear(2, 2).state_dict(), "unknown tensor 'weight'"),
    ):
        assert message in refused(save(content, source), out)  # type: ignore[arg-type]


def test_damage_anywhere_is_a_prior_error(tmp_path: Path) -> None:
    """Bytes changed at random in small files of both kinds: an error of ours, or a file that still reads."""
    state = {f"layer.{index}.weight": torch.ones(3, 2) for index in range(4)}
    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "a.safetensors")
    generator = torch.Generator().manual_seed(0)
    damaged, messages = tmp_path / "damaged", []
    for source in (tmp_path / "a.pt", tmp_path / "a.safetensors"):
        for _ in range(150):
            data = bytearray(source.read_bytes())
            for place in torch.randint(len(data), (4,), generator=generator).tolist():
                data[place] = int(torch.randint(256, (1,), generator=generator))
            damaged.write_bytes(data)
            try:
                tensors = open_tensors(damaged)
                for name in tensors.shapes:
                    assert tensors[name].shape == tensors.shapes[name]
            except PriorError as error:
                messages.append(str(error))
    assert len(messages) > 20
    assert not [message for message in messages if "\n" in message or str(damaged) not in message]


def test_a_full_disk_leaves_nothing_behind(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write_until_full(path: Path, *arguments: object) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_tensors(path, *arguments)  # type: ignore[arg-type]
        written.append(path)

    monkeypatch.setattr("dream3d.prior.official.convert.write_tensors", write_until_full)
    with pytest.raises(Dream3DError, match="out could not be written \\(No space left on device\\)") as caught:
        convert(checkpoint, tmp_path / "out")
    assert caught.value.exit_code == 1
    assert len(written) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_destination_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists; choose another destination"):
        convert(checkpoint, tmp_path / "out")
    with pytest.raises(UsageError, match="does not exist; create it first"):
        convert(checkpoint, tmp_path / "a/b")
    with pytest.raises(UsageError, match="unknown precision 'fp8'"):
        convert(checkpoint, tmp_path / "c", "fp8")  # type: ignore[arg-type]


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
