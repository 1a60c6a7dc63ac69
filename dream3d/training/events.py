"""What a training run reports: after each step, and at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class StepEvent:
    """What is reported after every step."""

    step: int
    """Steps done, this one included."""
    steps: int
    """Of the whole run."""
    mode: str
    """Of the batch: "3d", "image", or what else the task has."""
    loss: float
    rate: float
    """Learning rate."""
    norm: float
    """Of the gradient, before it is clipped."""
    seconds: float
    """That the step took."""
    images: int
    """In the batches of all processes."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Terms of the loss, if there are several, and what else the task measures."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    result: Path
    """The folder that the task writes."""
    step: int
    stopped_by: int | None = None
    """Number of the signal that ended it before its last step; its checkpoint is written then."""


Observer = Callable[[StepEvent], None]
