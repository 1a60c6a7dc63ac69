"""The training loop: draw a batch, take a step, update the moving average, write a checkpoint, report.

What is learnt is the task's business (:mod:`dream3d.training.task`); devices, precisions and processes are
accelerate's.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from dream3d.errors import TrainingError, UsageError
from dream3d.run.signals import listening
from dream3d.training import state
from dream3d.training.events import Observer, Outcome, StepEvent
from dream3d.training.task import Task

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(device: str = "cpu", precision: str = "fp32") -> Accelerator:
    """The device and the processes of a run; UsageError without accelerate.

    All trainers of a process must have the same precision and device: accelerate keeps them for the process, and
    raises ValueError otherwise.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs {error.name}; pip install 'dream3d[train]'") from error
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        # In image mode the camera network has no gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


AnyTask = TypeVar("AnyTask", bound=Task[Any])


class Trainer(Generic[AnyTask]):
    """A run of a task; :meth:`run` trains to its last step, from the newest checkpoint on if there is one."""

    def __init__(self, task: AnyTask, accelerator: Accelerator, folder: Path) -> None:
        """``folder`` gets ``checkpoints/``. Raises CheckpointError or TrainingError for one that does not fit."""
        self.task, self.accelerator, self.checkpoints = task, accelerator, folder / "checkpoints"
        self.step, self.seconds = 0, 0.0
        self.optimizer = accelerator.prepare(task.trained.optimizer)
        self._resume()

    def run(self, observer: Observer = lambda event: None) -> Outcome:
        """Train; on SIGTERM or SIGINT, finish the step, write a checkpoint and return."""
        with listening() as signals:
            told = self._told(signals.received)
            while self.step < self.task.steps and told is None:
                event = self.train_step()
                if self.accelerator.is_main_process:
                    self._write_what_is_due(event)
                observer(event)
                told = self._told(signals.received)
            if self.accelerator.is_main_process:
                self.save()
                if told is None:
                    self.task.finish(self.step, self.seconds)
        return Outcome(self.task.result, self.step, told)

    def _told(self, received: int | None) -> int | None:
        """The signal to stop by: any that a process of the run has received, so that all stop after the same step."""
        if self.accelerator.num_processes == 1:
            return received
        every = self.accelerator.gather(torch.tensor([received or 0], device=self.accelerator.device))
        return int(every.max()) or None

    def train_step(self) -> StepEvent:
        """One step of the optimiser and of the moving average; raises TrainingError if the loss is not finite."""
        began = time.perf_counter()
        task, trained = self.task, self.task.trained
        rate = task.rate(self.step)
        for group in trained.optimizer.param_groups:
            group["lr"] = rate
        loss = task.loss(task.draw(self.step))
        total = loss.total
        if not math.isfinite(value := total.item()):
            raise TrainingError(
                f"the loss of step {self.step + 1} is {value}; {task.advice}, and train in another folder (--out)"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(total)
        norm = float(self.accelerator.clip_grad_norm_(trained.clipped, trained.clip))
        self.optimizer.step()
        self.step += 1
        trained.update_average(self.step)
        reported = {**(loss.terms if len(loss.terms) > 1 else {}), **loss.figures}
        figures = {name: figure.item() for name, figure in reported.items()}
        seconds = time.perf_counter() - began
        self.seconds += seconds
        images = loss.images * self.accelerator.num_processes
        return StepEvent(self.step, task.steps, loss.mode, value, rate, norm, seconds, images, figures)

    def _write_what_is_due(self, event: StepEvent) -> None:
        self.task.log(event)
        if self.step < self.task.steps:  # the end writes the rest
            self.task.write(self.step, self.seconds)
        # Last: what was written is in it, or is written again.
        if self.task.checkpoint_every and self.step % self.task.checkpoint_every == 0:
            self.save()

    def save(self) -> Path:
        """Write a checkpoint of the step that is done."""
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {}
        tensors = state.tensors_of(self.task.trained, self.task.random_state())
        checkpoint = state.Checkpoint(self.step, self.seconds, self.task.settings(), scaler, tensors)
        return state.save(self.checkpoints, checkpoint)

    def _resume(self) -> None:
        path = state.latest(self.checkpoints)
        if path is not None:
            self._load(path)
        if self.accelerator.is_main_process:
            self.task.rewind(self.step)

    def _load(self, path: Path) -> None:
        found = state.load(path, self.task.settings(), self.task.defaults, self.task.free)
        try:
            self.task.set_random_state(state.restore(self.task.trained, found.tensors))
        except (KeyError, ValueError, RuntimeError) as error:
            raise TrainingError(f"{path} does not fit the network; the start has changed since") from error
        if found.scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(dict(found.scaler))
        self.step, self.seconds = found.step, found.seconds
