"""Settings of ``task = "retrieval"`` and ``"joint"``: an image adapter, for a frozen prior or together with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from dream3d.bounds import Between, Settings, Share

Modes = Literal["both", "3d", "2d"]


@dataclass(frozen=True)
class RetrievalRecipe(Settings):
    """What the adapter learns from, and its sizes if the start has none (docs/mv-rag.md has MV-RAG's)."""

    modes: Modes = "both"
    """``both``: 3D and 2D steps in turn, as many of each; the others are for comparison."""
    pictures: Annotated[int, Between(1, 16)] = 4
    """Of each object, or of each image in 2D mode."""
    text_weight: Share = 0.5
    """lambda, the factor on the attention to text (that to pictures has 1); the paper says "small". What both weights
    add up to when it is used is 1 more: 1.5, as in MV-RAG's code."""
    dropout: Share = 0.1
    """Share of objects and images that have neither pictures nor caption, which guidance needs."""
    text_dropout: Share = 0.0
    """Share of targets with pictures whose caption is left out, beside ``batch.caption_dropout``: the pictures
    alone must do then, as for a thing whose name says nothing to the network."""
    text_alone: Share = 0.5
    """Of the task ``joint``: share of steps without pictures, in which the network learns as a prior does."""
    other_instance: Share = 0.3
    """Share of pictures that show another object of the same name, where there is one."""
    augment: Share = 1.0
    """Strength of what is done to renders, see :mod:`dream3d.training.augment`; 0 leaves the ground alone to chance."""
    dim: Annotated[int, Between(8, 4096)] = 384
    depth: Annotated[int, Between(1, 16)] = 2
    heads: Annotated[int, Between(1, 64)] = 6
    head_dim: Annotated[int, Between(4, 256)] = 64
    queries: Annotated[int, Between(1, 64)] = 16
    """Tokens of a picture."""
    compact: bool = False
    """Whether the weights are written in int8."""
