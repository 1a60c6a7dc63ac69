"""Conversion of official MVDream weights: one clear line for everything that is wrong, and nothing left behind."""

import errno
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from official_checkpoint import (
    OPENCLIP_PREFIX,
    TEXT_FILE,
    UNET_FILE,
    UNET_PREFIX,
    VAE_FILE,
    VAE_PREFIX,
    Official,
    State,
    change,
    make_official,
    write_folder,
)
from safetensors.torch import load_file, save_file
from torch import nn

from dream3d.errors import Dream3DError, PriorError, UsageError
from dream3d.prior.official.convert import convert
from dream3d.prior.official.tensors import open_tensors, write_tensors

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
