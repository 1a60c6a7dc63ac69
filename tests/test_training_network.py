"""Networks in training: both modes, inflation, attention kinds, and the faster layers against plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from tiny_prior import UNET, edit_json, write_json, write_tiny_prior
from torch import Tensor, nn

from dream3d.errors import PriorError
from dream3d.prior.attention import SELF_ATTENTION, CrossAttention, TemporalAttention, set_attention
from dream3d.prior.layout import ATTENTION_KINDS, AttentionKind
from dream3d.prior.unet import MultiViewUNet, call_unet
from dream3d.training.fast import accelerate, accelerate_products
from dream3d.training.network import make_network
from dream3d.weights.loading import load_prior

PLAIN = {key: value for key, value in UNET.items() if "class_embed" not in key}


def inputs(objects: int, views: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = objects * views
    noisy = torch.randn(count, 4, 4, 4, generator=generator)
    steps = torch.randint(1000, (objects,), generator=generator).repeat_interleave(views)
    text = torch.randn(objects, 6, 12, generator=generator).repeat_interleave(views, 0)
    return noisy, steps, text, torch.randn(objects, views, 16, generator=generator)


def predict(unet: UNet2DConditionModel, noisy: Tensor, steps: Tensor, text: Tensor, cameras: Tensor | None) -> Tensor:
    """With cameras (objects, views, 16), or in image mode."""
    if cameras is None:
        return call_unet(unet, noisy, steps, text, None)
    return call_unet(unet, noisy, steps, text, cameras.flatten(0, 1), cameras.shape[1])


def random_unet(config: dict[str, Any], seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    unet = MultiViewUNet(**config)
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.2)
    return unet


def stored(folder: Path, unet: UNet2DConditionModel, config: dict[str, Any]) -> Path:
    folder.mkdir()
    write_json(folder / "config.json", config)
    save_file(unet.state_dict(), folder / "diffusion_pytorch_model.safetensors")
    return folder


def made(folder: Path, attention: AttentionKind = "3d") -> UNet2DConditionModel:
    return make_network(folder, {}, attention, 4, torch.Generator().manual_seed(1))


@torch.no_grad()
def test_an_inflated_network_gives_at_first_what_the_2d_network_gave(tmp_path: Path) -> None:
    flat = random_unet(PLAIN)
    unet = made(stored(tmp_path / "unet", flat, PLAIN))
    noisy, steps, text, cameras = inputs(3, 1)
    assert torch.equal(predict(unet, noisy, steps, text, cameras), predict(unet, noisy, steps, text, None))
    torch.testing.assert_close(predict(unet, noisy, steps, text, cameras), flat(noisy, steps, text).sample)
    first = unet.class_embedding.linear_1.weight
    assert first.abs().sum() > 0  # or the camera network could never learn


def test_a_network_whose_embedding_is_no_camera_is_refused(tmp_path: Path) -> None:
    config = {**PLAIN, "class_embed_type": "timestep"}
    folder = stored(tmp_path / "unet", random_unet(config), config)
    with pytest.raises(PriorError, match="'class_embed_type' is 'timestep', not"):
        made(folder)


@torch.no_grad()
def test_image_mode_is_the_network_without_its_camera(tmp_path: Path) -> None:
    unet = set_attention(random_unet(UNET), "3d")
    flat = UNet2DConditionModel(**PLAIN)
    flat.load_state_dict({k: v for k, v in unet.state_dict().items() if not k.startswith("class_embedding.")})
    noisy, steps, text, _ = inputs(4, 1)
    torch.testing.assert_close(predict(unet, noisy, steps, text, None), flat(noisy, steps, text).sample)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "sees"), [("3d", True), ("2d", False), ("temporal", True)])
def test_views_see_each_other_in_some_kinds_of_attention(kind: AttentionKind, sees: bool) -> None:
    unet = set_attention(random_unet(UNET), kind)
    for module in unet.modules():
        if isinstance(module, TemporalAttention):
            nn.init.normal_(module.to_out.weight)
    noisy, steps, text, cameras = inputs(2, 2)
    before = predict(unet, noisy, steps, text, cameras)
    noisy[1] += 1
    after = predict(unet, noisy, steps, text, cameras)
    assert not torch.equal(before[1], after[1])
    assert (not torch.allclose(before[0], after[0], atol=1e-6)) == sees
    torch.testing.assert_close(before[2:], after[2:])  # the other object sees nothing of it


@torch.no_grad()
def test_new_layers_over_the_views_change_nothing_at_first(tmp_path: Path) -> None:
    folder = stored(tmp_path / "unet", random_unet(UNET), UNET)
    per_view, temporal = made(folder, "2d"), made(folder, "temporal")
    call = inputs(2, 2)
    assert torch.equal(predict(per_view, *call), predict(temporal, *call))


def test_every_kind_of_attention_may_stand_in_a_prior() -> None:
    assert tuple(SELF_ATTENTION) == ATTENTION_KINDS


def test_a_prior_with_unknown_attention_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_prior(tmp_path / "prior")
    edit_json(folder / "prior.json", attention="5d")
    with pytest.raises(PriorError, match=r"'attention' is '5d', not \"3d\" or \"2d\" or \"temporal\""):
        load_prior(str(folder))


def close(found: Tensor, expected: Tensor) -> None:
    """Within bf16's three digits of the largest value."""
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(6, 5, 3, padding=1),
        lambda: nn.Conv2d(6, 5, 3, padding=1, stride=2),
        lambda: nn.Conv2d(6, 5, 1),
        lambda: nn.GroupNorm(3, 6),
    ],
    ids=["conv3x3", "stride 2", "conv1x1", "group norm"],
)
def test_a_fast_layer_agrees_with_plain_torch_in_values_and_gradients(layer: Any) -> None:
    torch.manual_seed(0)
    plain = layer()
    fast = nn.Sequential(layer())
    fast[0].load_state_dict(plain.state_dict())
    accelerate_products(fast)
    image = torch.randn(2, 6, 8, 8)
    results = []
    for network in (plain, fast):
        x = image.clone().requires_grad_()
        y = network(x)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        (y.float() * weight).sum().backward()
        assert x.grad is not None
        results.append((y.detach(), x.grad, *(p.grad for p in network.parameters())))
    for found, expected in zip(results[1], results[0], strict=True):
        close(found, expected)


def test_a_fast_linear_layer_agrees_with_plain_torch_without_a_bias_too() -> None:
    torch.manual_seed(0)
    plain, layer = nn.Linear(6, 5, bias=False), nn.Linear(6, 5, bias=False)
    layer.load_state_dict(plain.state_dict())
    fast = nn.Sequential(layer)
    accelerate_products(fast)
    x = torch.randn(3, 7, 6)
    close(fast(x).detach(), plain(x).detach())
    plain(x).square().sum().backward()
    fast(x).float().square().sum().backward()
    assert plain.weight.grad is not None
    assert layer.weight.grad is not None
    close(layer.weight.grad, plain.weight.grad)


@pytest.mark.parametrize(("kind", "views"), [("3d", 2), ("3d", 3), ("2d", 2), ("3d", None)])
def test_a_fast_network_agrees_with_the_plain_one_in_both_modes(kind: AttentionKind, views: int | None) -> None:
    plain = set_attention(random_unet(UNET), kind)
    fast = accelerate(set_attention(random_unet(UNET), kind), joint=kind == "3d")
    noisy, steps, text, cameras = inputs(2, views or 1)
    outputs = []
    for unet in (plain, fast):
        output = predict(unet, noisy, steps, text, None if views is None else cameras)
        output.float().square().mean().backward()
        outputs.append(output.detach())
    error = (outputs[1].float() - outputs[0]).norm() / outputs[0].norm()
    assert error < 0.05
    for (name, one), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        if views is None and name.startswith("class_embedding."):
            assert one.grad is None
            assert other.grad is None
            continue
        assert one.grad is not None
        assert other.grad is not None
        assert (other.grad - one.grad).norm() <= 0.15 * one.grad.norm() + 1e-4, name


def test_a_batch_that_is_no_multiple_of_the_views_is_refused() -> None:
    unet = set_attention(random_unet(UNET), "3d")
    noisy, steps, text, cameras = inputs(3, 1)
    for network in (unet, accelerate(unet)):
        with pytest.raises(ValueError, match="3 images is not a multiple of 2 views"):
            call_unet(network, noisy, steps, text, cameras.flatten(0, 1), 2)
    with pytest.raises(ValueError, match="3 images is not a multiple of 2 views"):
        CrossAttention(per_object=True)(nn.Identity(), torch.zeros(3, 4, 8), torch.zeros(3, 6, 8), num_views=2)
