"""What a prior's network is told about the object: text, and pictures of it; with and without guidance."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """One half of classifier-free guidance."""

    text: Tensor
    """(1, tokens, width) token states."""
    image_tokens: Tensor | None = None
    """(1, tokens, width) of retrieved or given images (MV-RAG); None for a network that reads text alone."""


@dataclass(frozen=True)
class Conditioning:
    """Both halves: with the prompt, and with what it is guided away from (the negative or the empty prompt)."""

    conditional: Condition
    unconditional: Condition
    text_weight: float = 1.0
    """Factor on the cross-attention to text where there are image tokens: MV-RAG's alpha."""
    image_weight: float = 1.0
    """Factor on the cross-attention to image tokens: MV-RAG's lambda' - alpha."""

    def __post_init__(self) -> None:
        """Raises ValueError for pictures in one half alone, or of other shapes: both halves share a batch."""
        tokens = [half.image_tokens for half in (self.conditional, self.unconditional)]
        shapes = {None if one is None else one.shape for one in tokens}
        if len(shapes) > 1:
            raise ValueError(f"both halves need image tokens of one shape, or none; got {shapes}")

    @classmethod
    def from_text(cls, conditional: Tensor, unconditional: Tensor) -> Conditioning:
        """Of token states (1, tokens, width) alone."""
        return cls(Condition(conditional), Condition(unconditional))

    def with_images(self, tokens: Tensor, blank: Tensor, text_weight: float, image_weight: float) -> Conditioning:
        """The same text with pictures' tokens (1, M, W); guidance leads to them from ``blank`` ones of their shape.

        One joint guidance: the unconditional half has neither prompt nor pictures (MV-RAG).
        """
        return Conditioning(
            replace(self.conditional, image_tokens=tokens),
            replace(self.unconditional, image_tokens=blank),
            text_weight,
            image_weight,
        )

    @property
    def has_images(self) -> bool:
        """Whether it holds image tokens; both halves do, or none."""
        return self.conditional.image_tokens is not None
