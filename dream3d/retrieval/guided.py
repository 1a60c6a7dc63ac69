"""What a prior is told of an object by text and pictures together: tokens, and how much each of the two counts.

The more the prior's own views resemble the pictures, the better it knows the object, and the more the text counts
(MV-RAG, Dayani et al. 2025, "prior-guided attention").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from dream3d.bounds import Between, Settings
from dream3d.cameras import Cameras, orbit
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.sampling import SamplingRecipe, sample_views, sampling_for
from dream3d.retrieval.references import Reference, squares

ALPHA_STEPS = 10
"""Denoising steps of the views that alpha is measured on (MV-RAG, section 3.5): coarse views are enough."""


@dataclass(frozen=True)
class Fusion(Settings):
    """How much text and pictures count."""

    alpha: Annotated[float, Between(0, 1)]
    """Weight of the text: how well the prior knows the object by itself."""
    weight_sum: Annotated[float, Between(0, 10)]
    """lambda': of the adapter."""
    measured: bool
    """Whether alpha was measured, or given."""

    @property
    def text_weight(self) -> float:
        """Factor on the cross-attention to text."""
        return self.alpha

    @property
    def image_weight(self) -> float:
        """Factor on the cross-attention to pictures; not below 0."""
        return max(self.weight_sum - self.alpha, 0.0)

    @property
    def explanation(self) -> str:
        """One line for people."""
        how = "measured" if self.measured else "given"
        return (
            f"alpha {self.alpha:.3f} ({how}): the text counts {self.text_weight:.2f}, "
            f"the pictures {self.image_weight:.2f}"
        )

    @property
    def record(self) -> dict[str, Any]:
        """Plain data, for provenance."""
        return {"alpha": self.alpha, "weight_sum": self.weight_sum, "measured": self.measured}


def coefficient(views: Tensor, pictures: Tensor) -> float:
    """alpha from unit vectors of the prior's views (V, dim) and of the pictures (K, dim), in [0, 1].

    max over views of the mean over pictures of the cosine, not below 0 (MV-RAG, section 3.5).
    """
    mean = (views @ pictures.t()).mean(1)
    return float(mean.max().clamp(0, 1))


def measure_alpha(
    prior: DiffusionPrior,
    text: Conditioning,
    references: Sequence[Reference],
    seed: int,
    cameras: Cameras | None = None,
    recipe: SamplingRecipe | None = None,
) -> float:
    """:func:`coefficient` of views that the prior draws by ``text`` alone, in :data:`ALPHA_STEPS` steps, decoded.

    ``text`` has the prompt as the prior samples it, with its suffix. The views are those of ``cameras`` (the prior's
    own by default), sampled as ``recipe`` says but for the steps, from ``seed``. Similarity is the adapter's image
    encoder's. Raises PriorError for a prior without adapter.
    """
    adapter = prior.image_adapter
    usual = recipe or sampling_for(prior.recommended_preset)
    short = replace(usual, steps=min(usual.steps, ALPHA_STEPS))
    drawn = sample_views(prior, text, cameras or orbit(prior.views), short, seed)
    shown = squares(references, adapter.encoder.size, adapter.module.config.padding)
    return coefficient(adapter.encoder.embed(drawn), adapter.encoder.embed(shown))


def fuse(prior: DiffusionPrior, alpha: float, measured: bool) -> Fusion:
    """The weights for an alpha by the prior's adapter; UsageError for one outside 0..1."""
    return Fusion(alpha, prior.image_adapter.module.config.weight_sum, measured)


@torch.no_grad()
def with_references(
    prior: DiffusionPrior, text: Conditioning, references: Sequence[Reference], fusion: Fusion
) -> Conditioning:
    """What the prior is told: the text, and the pictures' tokens with their weights."""
    adapter = prior.image_adapter
    shown = squares(references, adapter.encoder.size, adapter.module.config.padding)
    tokens, blank = adapter.tokens(shown), adapter.blank_tokens(len(shown))
    return text.with_images(tokens, blank, fusion.text_weight, fusion.image_weight)
