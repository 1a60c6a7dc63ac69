"""The protocol between the training loop and what is trained."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from dream3d.training.events import StepEvent

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Loss:
    """What one batch costs."""

    mode: str
    """A word for the batch's kind, such as "3d" or "image"."""
    images: int
    """In the batch."""
    terms: Mapping[str, Tensor]
    """Scalars; their sum is minimised. A regulariser is one more term."""
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    """Detached scalars that are reported with the step."""

    @property
    def total(self) -> Tensor:
        """The sum of the terms."""
        return reduce(operator.add, self.terms.values())


@dataclass(frozen=True)
class Trained:
    """The parameters that a task trains; everything else is frozen, is not averaged and is in no checkpoint."""

    part: str
    """Prefix of the parameters' names in a checkpoint."""
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    """Over these parameters. The loop sets the learning rate of every group."""
    clipped: Sequence[nn.Parameter]
    """Those whose gradient is clipped."""
    clip: float
    """Largest norm of that gradient."""
    average: Mapping[str, Tensor] = field(default_factory=dict)
    """The moving average of each parameter, by the same names; empty for none. The loop updates these tensors in
    place. They may be a second network's parameters or plain clones."""
    decay: float = 0.0
    """Of the moving average in a step; smaller at first."""

    def update_average(self, step: int) -> None:
        """Move the average towards the parameters after ``step`` steps."""
        if self.average:
            decay = min(self.decay, (1 + step) / (10 + step))
            values = [parameter.detach() for parameter in self.parameters.values()]
            torch._foreach_lerp_(list(self.average.values()), values, 1 - decay)


class Task(ABC, Generic[Batch]):
    """What a run learns, from which batches, by which loss, and what it writes.

    :class:`dream3d.training.loop.Trainer` does the rest: devices, precision and processes, the optimiser's step, the
    moving average, checkpoints and exact resume, signals. How a task is added:

    1. A file in ``training/tasks/`` with a frozen recipe that checks its numbers when it is built
       (:class:`dream3d.bounds.Settings`), and a subclass of this class whose constructor reads all data,
       so that what does not fit is refused before the first step.
    2. It builds its networks and chooses what trains (:class:`Trained`): a whole UNet, adapters, or LoRA layers alone.
       The rest it freezes itself (``requires_grad_(False)``). A network that runs in several processes or in mixed
       precision is called as ``accelerator.prepare`` gives it back.
    3. ``draw`` and ``loss``. Batches may be of several kinds: ``loss`` decides by the batch. For exact resume, all
       randomness comes from the recipe's seed and the step, or from generators that ``random_state`` gives back.
    4. ``log`` and ``finish`` write what the task leaves behind; ``write`` is for what is due on the way.
    5. A function that makes the trainer, and a command that passes it to :func:`dream3d.cli.train.run_trainer`.
    """

    advice: ClassVar[str]
    """What to change if the loss is not finite."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings that checkpoints from before they existed followed."""
    free: ClassVar[tuple[str, ...]] = ()
    """Settings that do not change the weights, and so may differ when a run is resumed."""
    steps: int
    """Of the whole run. :meth:`write` may set it to the step that is done, which ends the run there; the task must then
    do so too when it is resumed from that step's checkpoint."""
    checkpoint_every: int
    """Steps between checkpoints; 0 for one at the end."""
    trained: Trained
    result: Path
    """The folder that :meth:`finish` writes."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Plain data that checkpoints keep: a run is resumed with the same settings only."""

    @abstractmethod
    def rate(self, step: int) -> float:
        """The learning rate after ``step`` steps."""

    @abstractmethod
    def draw(self, step: int) -> Batch:
        """The batch after ``step`` steps; it is called once for each step, in order."""

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """The loss of a batch, with gradients for what trains."""

    @abstractmethod
    def log(self, event: StepEvent) -> None:
        """Note a step on the disk, in the main process, before its checkpoint is written."""

    @abstractmethod
    def rewind(self, step: int) -> None:
        """Forget what was logged after ``step`` steps: these steps will be done again, or for the first time."""

    def write(self, step: int, seconds: float) -> None:
        """Write what is due after a step that is not the last, in the main process and before the step's checkpoint.

        Nothing unless overridden.
        """
        return

    @abstractmethod
    def finish(self, step: int, seconds: float) -> None:
        """Write the result after the last step, in the main process; ``seconds`` were spent on all steps."""

    def random_state(self) -> Mapping[str, Tensor]:
        """State of the generators that :meth:`draw` and :meth:`loss` use; empty if all depends on the step alone."""
        return {}

    def set_random_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`random_state` gave; raises KeyError for a part that is missing."""
        return
