"""AdamW with its state in 32 or in 8 bits."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

import torch
from torch import nn

from dream3d.errors import UsageError, first_line
from dream3d.personalise.recipe import Bits

SMALLEST = 4096
"""Weights of a tensor below which its moments keep 32 bits: norms and biases are few, and count."""


def has_8_bits() -> bool:
    """Whether bitsandbytes is installed."""
    return importlib.util.find_spec("bitsandbytes") is not None


def check_bits(bits: Bits) -> None:
    """Raises UsageError, which names the extra, if 8 bits are asked for without bitsandbytes."""
    if bits == 8 and not has_8_bits():
        raise UsageError(
            "--optimizer-bits 8 needs bitsandbytes; pip install 'dream3d[dreambooth]', or use --optimizer-bits 32"
        )


def make_adamw(
    parameters: Iterable[nn.Parameter], rate: float, weight_decay: float, bits: Bits = 32
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019); 8 bits are moments quantised in blocks of 256 (Dettmers et al. 2022).

    Tensors of fewer than :data:`SMALLEST` weights keep moments of 32 bits. Raises as :func:`check_bits`.
    """
    if bits == 32:
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
    check_bits(bits)
    try:
        from bitsandbytes.optim import AdamW8bit
    except (ImportError, OSError, RuntimeError) as error:  # a library that was built for another machine
        raise UsageError(f"bitsandbytes does not load ({first_line(error)}); use --optimizer-bits 32") from error
    return AdamW8bit(parameters, lr=rate, weight_decay=weight_decay, min_8bit_size=SMALLEST)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """What an optimiser keeps about its parameters, after a step; tensors that several share count once."""
    tensors = (value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value))
    return sum({value.data_ptr(): value.numel() * value.element_size() for value in tensors}.values())
