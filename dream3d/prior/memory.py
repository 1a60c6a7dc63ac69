"""What a prior may spend: memory against time, decided once, when it is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from dream3d.bounds import Between, Options, check_setting
from dream3d.errors import UsageError

SPLIT_BELOW_GB = 12.0
"""Under this the two halves of classifier-free guidance run one after the other. An estimate, not measured: half the
activations of an SD-size UNet on 2 x 4 views in half precision are some 3 GB, beside 2.6 GB of weights and what the
field's renders take."""
SLICE_BELOW_GB = 16.0
"""Under this the image codec takes one image at a time, again in the backward pass: otherwise that keeps 0.8 GB of the
VAE's activations for each image of 256 pixels (measured in fp32), 3.2 GB for 4 images and 6.4 GB for 8."""


Precision = Literal["auto", "fp16", "bf16", "fp32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class MemoryPlan:
    """How a prior computes; no choice here changes a result by more than rounding."""

    precision: Precision = "auto"
    """UNet precision. ``auto``: fp16 on CUDA, fp32 elsewhere; bf16 has fp32's range and fewer digits."""
    split_guidance: bool = False
    """Run the UNet with the prompt and without it one after the other instead of as one batch."""
    slice_codec: bool = False
    """Encode and decode one image at a time, and encode it again for the backward pass."""
    compile_unet: bool = False
    """Hand the UNet to torch.compile: minutes of compilation for faster steps, where there is a compiler."""


def plan_for(vram_gb: float | None, precision: str = "auto", *, compile_unet: bool = False) -> MemoryPlan:
    """The plan for a card with so many gigabytes (10^9 bytes); None asks for the fastest.

    Raises UsageError for a size that is not positive and for an unknown precision.
    """
    known = next((name for name in PRECISIONS if name == precision), None)
    if known is None:
        raise UsageError(f"unknown precision {precision!r}; use {', '.join(PRECISIONS)}")
    check_setting(vram_gb, Annotated[float | None, Between(0, 10_000, above=True)], "vram", Options.spoken)
    size = math.inf if vram_gb is None else vram_gb
    return MemoryPlan(
        precision=known,
        split_guidance=size < SPLIT_BELOW_GB,
        slice_codec=size < SLICE_BELOW_GB,
        compile_unet=compile_unet,
    )
