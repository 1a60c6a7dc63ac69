"""Memory plans: what a card's size chooses, and that no choice changes a result by more than rounding."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from tiny_prior import write_tiny_prior

from dream3d.cameras import orbit
from dream3d.errors import UsageError
from dream3d.prior.codec import AutoencoderCodec
from dream3d.prior.memory import MemoryPlan, plan_for
from dream3d.weights.loading import load_prior


@pytest.mark.parametrize(
    ("vram", "plan"),
    [
        (None, MemoryPlan()),
        (6, MemoryPlan(split_guidance=True, slice_codec=True)),
        (11.9, MemoryPlan(split_guidance=True, slice_codec=True)),
        (12, MemoryPlan(slice_codec=True)),
        (16, MemoryPlan()),
        (80, MemoryPlan()),
    ],
)
def test_the_size_of_the_card_chooses(vram: float | None, plan: MemoryPlan) -> None:
    assert plan_for(vram) == plan


@pytest.mark.parametrize("vram", [0, -4, float("nan"), float("inf"), 10**400])
def test_a_card_without_memory_is_refused(vram: float) -> None:
    with pytest.raises(UsageError, match=r"--vram is .*, which should be a number above 0"):
        plan_for(vram)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown precision 'int4'; use auto, fp16, bf16, fp32"):
        plan_for(8, "int4")


def test_bf16_computes_in_bf16_and_agrees_to_its_digits(tmp_path: Path) -> None:
    folder = str(write_tiny_prior(tmp_path / "prior"))
    exact, rough = load_prior(folder), load_prior(folder, memory=plan_for(None, "bf16"))
    assert {parameter.dtype for parameter in rough.unet.parameters()} == {torch.bfloat16}
    x_t = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    results = [
        prior.predict(x_t, 500, orbit(2), prior.encode_prompt("a red chair", ""), views=2)[0]
        for prior in (exact, rough)
    ]
    assert results[1].dtype == torch.float32
    assert not torch.equal(*results)
    assert float((results[0] - results[1]).norm() / results[0].norm()) < 0.05


def test_halves_one_after_the_other_give_the_same_prediction(tmp_path: Path) -> None:
    folder = str(write_tiny_prior(tmp_path / "prior"))
    together, apart = load_prior(folder), load_prior(folder, memory=MemoryPlan(split_guidance=True))
    text = together.encode_prompt("a red chair", "")
    x_t = torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    cameras = orbit(4)
    first = together.predict(x_t, 500, cameras, text, views=2)
    sizes: list[int] = []
    apart.unet.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    second = apart.predict(x_t, 500, cameras, text, views=2)
    assert sizes == [4, 4]
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(*first)  # the prompt matters, or the test would see nothing


def test_compiling_is_torchs_own_and_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(write_tiny_prior(tmp_path / "prior"))
    compiled: list[Any] = []

    def compile_network(network: Any) -> Any:
        compiled.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compile_network)
    load_prior(folder)
    assert compiled == []
    prior = load_prior(folder, memory=plan_for(None, compile_unet=True))
    assert compiled == [prior.unet]


def test_a_sliced_codec_keeps_the_images_alone_and_gives_the_same() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        norm_num_groups=8,
    )
    codec = AutoencoderCodec(vae.requires_grad_(False).eval())
    images = torch.rand(4, 3, 32, 32) * 2 - 1

    def encoded() -> tuple[torch.Tensor, torch.Tensor, int]:
        """Latents, gradient, and bytes kept for the backward pass."""
        leaf, kept = images.clone().requires_grad_(), {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            latents = codec.encode(leaf, torch.Generator().manual_seed(1))
        latents.square().sum().backward()
        assert leaf.grad is not None
        return latents.detach(), leaf.grad, sum(kept.values())

    whole = encoded()
    codec.set_slicing(True)
    sliced = encoded()
    torch.testing.assert_close(sliced[:2], whole[:2], atol=1e-5, rtol=1e-4)
    assert sliced[2] < whole[2] / 10, (sliced[2], whole[2])
    latents = torch.randn(3, 4, 16, 16)
    with torch.no_grad():
        one_by_one = codec.decode(latents)
        codec.set_slicing(False)
        torch.testing.assert_close(one_by_one, codec.decode(latents), atol=1e-5, rtol=1e-4)
