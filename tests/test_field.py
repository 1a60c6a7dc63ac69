"""The radiance field: blob bias by hand, normals, ranges, determinism."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dream3d.field.radiance import RadianceField, blob_bias
from dream3d.kernels.hash_grid import TorchHashGrid
from dream3d.recipe.scene import FieldRecipe, Linear

DENSITY = json.loads((Path(__file__).parent / "data" / "mvdream_fixtures.json").read_text())["density"]
SMALL = FieldRecipe(levels=3, log2_entries=10, base_resolution=4, per_level_scale=1.5, hidden_width=8)


@pytest.fixture
def field() -> RadianceField:
    return RadianceField(SMALL, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("item", DENSITY["bias_at_radius"], ids=lambda item: str(item["r"]))
def test_blob_fixture(item: dict[str, Any]) -> None:
    bias = blob_bias(torch.tensor([[0.0, item["r"], 0.0]]), scale=10.0, radius=0.5)
    assert float(bias) == pytest.approx(item["bias"], abs=1e-5)
    assert float(torch.nn.functional.softplus(bias)) == pytest.approx(item["softplus_bias"], rel=1e-4)


def test_a_new_field_is_the_blob(field: RadianceField) -> None:
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    density = field.density(points).detach()
    torch.testing.assert_close(density, torch.tensor([10.0, 0.6931, 4.54e-05]), atol=2e-3, rtol=1e-3)


def test_sharpness_scales_the_logit_and_the_gain_only_the_heads_part() -> None:
    """softplus(sharpness * (gain * raw + blob)): 0 where the logit is 0, and steeper around it."""
    fields = {
        (gain, sharpness): RadianceField(
            replace(SMALL, density_gain=gain, sharpness=Linear(sharpness, sharpness, 0)),
            torch.Generator().manual_seed(0),
        )
        for gain in (1.0, 3.0)
        for sharpness in (1.0, 2.0)
    }
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for field in fields.values():  # away from zero, or there is nothing to gain
        torch.nn.init.normal_(field.density_head.output, generator=torch.Generator().manual_seed(2))
        torch.nn.init.normal_(field.density_head.hidden, generator=torch.Generator().manual_seed(3))
        for table in field.encoding.parameters():
            torch.nn.init.normal_(table, generator=torch.Generator().manual_seed(4))
    logits = {key: torch.log(torch.expm1(field.density(points).detach().double())) for key, field in fields.items()}
    plain, blob = logits[1.0, 1.0], blob_bias(points, SMALL.blob_scale, SMALL.blob_radius)
    seen = logits[3.0, 2.0].isfinite() & plain.isfinite()
    assert int(seen.sum()) > 10
    torch.testing.assert_close(logits[1.0, 2.0][seen], 2 * plain[seen], atol=2e-3, rtol=1e-2)
    torch.testing.assert_close(logits[3.0, 1.0][seen], (3 * (plain - blob) + blob)[seen], atol=2e-3, rtol=1e-2)


def test_forward_agrees_with_the_single_queries(field: RadianceField) -> None:
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    density, color = field(points)
    torch.testing.assert_close(density, field.density(points))
    torch.testing.assert_close(color, field.color(points))
    assert bool((density >= 0).all())
    assert bool(((color >= 0) & (color <= 1)).all())


def test_normals_of_the_blob_point_outwards(field: RadianceField) -> None:
    points = torch.tensor([[0.4, 0.0, 0.0], [0.0, -0.3, 0.0], [0.0, 0.0, 0.5]])
    expected = torch.nn.functional.normalize(points, dim=-1)
    torch.testing.assert_close(field.normals(points), expected, atol=2e-2, rtol=0)


def test_normals_can_carry_gradients_to_the_table(field: RadianceField) -> None:
    points = torch.rand(8, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    assert not field.normals(points).requires_grad
    field.normals(points, differentiable=True).sum().backward()
    assert isinstance(field.encoding, TorchHashGrid)
    gradient = field.encoding.table.grad
    assert gradient is not None
    assert float(gradient.abs().sum()) > 0


def test_same_generator_same_field() -> None:
    first, second = (RadianceField(SMALL, torch.Generator().manual_seed(5)) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
