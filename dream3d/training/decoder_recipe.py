"""Settings of ``task = "decoder"``, which trains a small decoder for a frozen prior with a linear codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from dream3d.bounds import Between, Settings, Share

Width = Annotated[int, Between(1, 1024)]


@dataclass(frozen=True)
class DecoderRecipe(Settings):
    """The network, and the latents that it learns to decode."""

    block_out_channels: tuple[Width, ...] = (128, 192)
    """Channels by level, the finest first; each level but the coarsest doubles the side."""
    pixel_shuffle: Annotated[int, Between(1, 64)] = 4
    """Pixels along the side of the block that a place of the finest level becomes. All levels together must enlarge as
    much as the start's codec does."""
    layers_per_block: Annotated[int, Between(1, 4)] = 1
    norm_num_groups: Width = 8
    predicted: Share = 0.7
    """Share of the objects whose latents are the prior's own prediction; the others' are clean but for ``noise``."""
    strongest: Annotated[float, Between(0, 1, above=True)] = 0.6
    """Largest noise level that the prior predicts from, as a share of the schedule; levels below are as likely."""
    noise: Annotated[float, Between(0, 10)] = 0.1
    """Largest standard deviation of noise on latents that are not predicted; their own variance is about 1."""
    edges: Annotated[float, Between(0, 100)] = 1.0
    """Weight of the error of differences between neighbouring pixels, beside that of the pixels."""
