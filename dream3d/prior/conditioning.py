"""What a prior's network is told about the object: text, and later pictures of it; with and without guidance."""

from __future__ import annotations

from dataclasses import dataclass

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

    @classmethod
    def from_text(cls, conditional: Tensor, unconditional: Tensor) -> Conditioning:
        """Of token states (1, tokens, width) alone."""
        return cls(Condition(conditional), Condition(unconditional))

    @property
    def has_images(self) -> bool:
        """Whether either half holds image tokens."""
        return self.conditional.image_tokens is not None or self.unconditional.image_tokens is not None
