"""What a prior is told of an object by text and pictures together: tokens, and how much each of the two counts.

The more the prior's own views resemble the pictures, the better it knows the object, and the more the text counts
(MV-RAG, Dayani et al. 2025, "prior-guided attention").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol

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
OWN_ENCODER = "the image adapter's encoder"
"""What measures alpha, unless there is another encoder."""


class SimilarityEncoder(Protocol):
    """Pictures to vectors, for alpha: the adapter's image encoder, or DINOv2."""

    @property
    def size(self) -> int:
        """Side in pixels of the square pictures that it reads."""
        ...

    def embed(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> (N, dim) of length 1."""
        ...


@dataclass(frozen=True)
class Fusion(Settings):
    """How much text and pictures count."""

    alpha: Annotated[float, Between(0, 1)]
    """Weight of the text: how well the prior knows the object by itself."""
    weight_sum: Annotated[float, Between(0, 10)]
    """lambda': of the adapter."""
    measured: bool
    """Whether alpha was measured, or given."""
    encoder: str = ""
    """By what it was measured; empty for one that was given."""

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
        other = f" by {self.encoder}" if self.encoder not in ("", OWN_ENCODER) else ""
        how = f"measured{other}" if self.measured else "given"
        return (
            f"alpha {self.alpha:.3f} ({how}): the text counts {self.text_weight:.2f}, "
            f"the pictures {self.image_weight:.2f}"
        )

    @property
    def record(self) -> dict[str, Any]:
        """Plain data, for provenance."""
        facts = {"alpha": self.alpha, "weight_sum": self.weight_sum, "measured": self.measured}
        return {**facts, "encoder": self.encoder} if self.encoder else facts


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
    encoder: SimilarityEncoder | None = None,
) -> float:
    """:func:`coefficient` of views that the prior draws by ``text`` alone, in :data:`ALPHA_STEPS` steps, decoded.

    ``text`` has the prompt as the prior samples it, with its suffix. The views are those of ``cameras`` (the prior's
    own by default), sampled as ``recipe`` says but for the steps, from ``seed``. Similarity is the ``encoder``'s, by
    default the adapter's image encoder's; pictures are seen as a whole by both, where MV-RAG cuts their middle out for
    DINOv2. Raises PriorError for a prior without adapter.
    """
    adapter = prior.image_adapter
    usual = recipe or sampling_for(prior.recommended_preset)
    short = replace(usual, steps=min(usual.steps, ALPHA_STEPS))
    drawn = sample_views(prior, text, cameras or orbit(prior.views), short, seed)
    judge: SimilarityEncoder = encoder or adapter.encoder
    shown = squares(references, judge.size, adapter.module.config.padding)
    return coefficient(judge.embed(drawn), judge.embed(shown))


def fuse(prior: DiffusionPrior, alpha: float, encoder: str = "") -> Fusion:
    """The weights for an alpha that ``encoder`` measured, or that was given; UsageError for one outside 0..1."""
    return Fusion(alpha, prior.image_adapter.module.config.weight_sum, bool(encoder), encoder)


@torch.no_grad()
def with_references(
    prior: DiffusionPrior, text: Conditioning, references: Sequence[Reference], fusion: Fusion
) -> Conditioning:
    """What the prior is told: the text, and the pictures' tokens with their weights."""
    adapter = prior.image_adapter
    shown = squares(references, adapter.encoder.size, adapter.module.config.padding)
    tokens, blank = adapter.tokens(shown), adapter.blank_tokens(len(shown))
    return text.with_images(tokens, blank, fusion.text_weight, fusion.image_weight)
