"""What the optimisation loop asks of a prior: anything with these members can steer a field.

The diffusion priors implement it, and so does the oracle that the tests use to prove the loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.prior.conditioning import Conditioning


@dataclass(frozen=True)
class Likeness:
    """What a prior's image encoder says of images of one object."""

    similarity: float
    """To the prompt: mean cosine over the images, -1 to 1. Compare it within one prompt only."""
    rank: int
    """Place of the prompt, from 1, among the names of the prior that it does not contain; 1 from a prior without."""


class MultiViewPrior(Protocol):
    """A frozen judge of sets of views."""

    @property
    def views(self) -> int:
        """Views of one object that it was trained to judge together."""
        ...

    @property
    def image_size(self) -> int:
        """Side in pixels of the square images that :meth:`encode_images` takes."""
        ...

    @property
    def background(self) -> tuple[float, float, float]:
        """Background colour of its training images, sRGB in [0, 1]."""
        ...

    @property
    def alphas_cumprod(self) -> Tensor:
        """(T,) float64 on the CPU: signal variance at each timestep of the noise schedule."""
        ...

    def encode_prompt(self, prompt: str, negative_prompt: str) -> Conditioning:
        """Text to token states, once per run."""
        ...

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> latents (B, C, h, w); differentiable."""
        ...

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> images (B, 3, S, S) in [0, 1]."""
        ...

    def predict_x0(
        self, x_t: Tensor, timestep: int, cameras: Cameras | None, conditioning: Conditioning, views: int
    ) -> tuple[Tensor, Tensor]:
        """Clean latents as predicted with the prompt and without it; both (B, C, h, w), no gradients.

        ``x_t`` (B, C, h, w) holds groups of ``views`` consecutive images that are judged together, one camera each;
        without cameras (image mode, one view) each image is judged by itself.
        """
        ...

    def likeness(self, prompt: str, images: Tensor) -> Likeness | None:
        """How well images (N, 3, S, S) in [0, 1] of one object fit a prompt; None without an image encoder."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its weights and configuration: a run goes on only with those that it began with."""
        ...

    def describe(self) -> dict[str, str]:
        """Name, version, licence and attribution, for the asset's provenance."""
        ...
