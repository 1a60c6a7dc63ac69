"""Weights in eight bits: matrices as int8 with one scale a row, half the size of half precision.

A compact file is a safetensors file in which a tensor ``x`` of int8 stands beside ``x.row_scale`` (its length is the
first dimension of ``x``); the tensor meant is ``x[i] * row_scale[i]``. Only storage is small: networks compute with the
restored numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ROW_SCALE = ".row_scale"
SMALLEST = 4096
"""Tensors of fewer numbers stay as they are: biases and norms matter much and weigh little."""


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors with matrices (two dimensions or more) as int8 and scales, other floats in half precision.

    A row is rounded to 255 steps between minus and plus its largest magnitude: an error is at most 1/254 of that.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            packed[name] = tensor
        elif tensor.dim() < 2 or tensor.numel() < SMALLEST:
            packed[name] = tensor.half()
        else:
            rows = tensor.float().flatten(1)
            scale = (rows.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)  # a row of zeros stays one
            steps = (rows / scale[:, None]).round().clamp(-127, 127)
            packed[name] = steps.to(torch.int8).view(tensor.shape)
            packed[name + ROW_SCALE] = scale
    return packed


def unpack(steps: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor (rows, ...) meant by int8 ``steps`` of that shape and ``scale`` (rows,)."""
    return (steps.float() * scale.view(-1, *[1] * (steps.dim() - 1))).to(dtype)
