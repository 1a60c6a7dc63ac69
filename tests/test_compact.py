from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from dream3d.errors import PriorError
from dream3d.prior.compact import ROW_SCALE, SMALLEST, pack, unpack
from dream3d.prior.folder import check_tensors, read_tensors

ROWS = SMALLEST // 64


def test_a_row_is_restored_exactly_where_its_numbers_are_whole_steps() -> None:
    weight = torch.zeros(ROWS, 64)
    weight[0, :3] = torch.tensor([127.0, -64.0, 1.0])
    weight[1, :3] = torch.tensor([127.0, -64.0, 1.0]) / 4
    packed = pack({"w": weight})
    assert packed["w"].dtype == torch.int8
    assert packed["w" + ROW_SCALE][:2].tolist() == [1.0, 0.25]
    assert torch.equal(unpack(packed["w"], packed["w" + ROW_SCALE], torch.float32), weight)


@given(seed=st.integers(0, 2**32 - 1), magnitude=st.floats(1e-3, 1e2))
def test_an_error_is_at_most_half_a_step_of_its_row(seed: int, magnitude: float) -> None:
    weight = torch.randn(ROWS, 8, 3, 3, generator=torch.Generator().manual_seed(seed)) * magnitude
    packed = pack({"w": weight})
    error = (unpack(packed["w"], packed["w" + ROW_SCALE], torch.float32) - weight).abs().flatten(1).amax(1)
    step = weight.abs().flatten(1).amax(1) / 127
    assert bool((error <= step * 0.501).all())


def test_small_and_whole_tensors_are_not_made_smaller() -> None:
    tensors = {"bias": torch.randn(SMALLEST), "norm": torch.randn(8, 8), "ids": torch.arange(SMALLEST)[None]}
    packed = pack(tensors)
    assert {name: tensor.dtype for name, tensor in packed.items()} == {
        "bias": torch.float16,
        "norm": torch.float16,
        "ids": torch.int64,
    }


def test_a_compact_file_is_read_like_any_other(tmp_path: Path) -> None:
    path, weight = tmp_path / "model.safetensors", torch.randn(ROWS, 64)
    save_file(pack({"w": weight, "b": torch.ones(3)}), path)
    read = read_tensors(path, {"w": weight.shape, "b": torch.Size([3])}, torch.float32)
    assert read.keys() == {"w", "b"}
    torch.testing.assert_close(read["w"], weight, atol=0.05, rtol=0)
    with pytest.raises(PriorError, match=r"'w' has shape \(64, 64\), the configuration needs \(64, 63\)"):
        check_tensors(path, {"w": torch.Size([ROWS, 63]), "b": torch.Size([3])})


@pytest.mark.parametrize("scale", [None, torch.ones(ROWS - 1), torch.ones(ROWS, 1)])
def test_int8_without_fitting_scales_is_refused(tmp_path: Path, scale: torch.Tensor | None) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"w": torch.zeros(ROWS, 64, dtype=torch.int8)}
    save_file(tensors if scale is None else {**tensors, "w" + ROW_SCALE: scale}, path)
    with pytest.raises(PriorError, match="int8 without one scale a row"):
        check_tensors(path, {"w": torch.Size([ROWS, 64])})
