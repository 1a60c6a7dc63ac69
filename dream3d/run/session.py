"""What happens around the steps of a run: progress reports, metrics, checkpoints, and being told to stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from dream3d.run.checkpointer import Checkpointer, RunState
from dream3d.run.folder import RunFolder
from dream3d.run.progress import Observer, Progress, StepReport, silent
from dream3d.run.signals import Signals, listening

METRICS_EVERY = 20
"""Rows of metrics.csv are written in batches of this many, so that a step does not wait for the disk."""


class Session:
    """One process at work on a run. Without a folder and a checkpointer it only reports progress."""

    def __init__(
        self, observer: Observer = silent, run: RunFolder | None = None, checkpointer: Checkpointer | None = None
    ) -> None:
        self.observer, self._run, self._checkpointer = observer, run, checkpointer
        self._signals = Signals()
        self._rows: list[dict[str, Any]] = []

    @contextmanager
    def steps_of(self, state: RunState, preview: Callable[[], NDArray[np.uint8]]) -> Iterator[range]:
        """The steps that are still to be done, after the newest checkpoint if there is one.

        ``preview`` renders the field as it is, (H, W, 3). While the context is open, :meth:`after` ends each step.
        """
        done, notices = self._checkpointer.restore(state) if self._checkpointer else (0, [])
        self.observer(Progress("prepare", 1, 1, message="; ".join(notices) or None))
        if self._run is not None:
            self._run.keep_metrics(done)
        self._state, self._preview = state, preview
        with listening() as self._signals:
            yield range(done, state.recipe.steps)

    def after(self, step: int, report: StepReport) -> None:
        """Record step number ``step``, write what is due; raises KeyboardInterrupt or SystemExit if told to stop."""
        steps, checkpointer = self._state.recipe.steps, self._checkpointer
        is_last = step == steps - 1
        self._rows.append(_metrics_row(step, report))
        if is_last or len(self._rows) >= METRICS_EVERY:
            self._write_metrics()
        self.observer(
            Progress(
                "optimise",
                step + 1,
                steps,
                loss=report.loss,
                timestep_range=report.timestep_range,
                occupancy=report.occupancy,
                preview=self._preview,
            )
        )
        stopped_by = self._signals.received
        if checkpointer and (stopped_by or checkpointer.is_due() or (is_last and checkpointer.interval_seconds)):
            self._write_metrics()
            problem = checkpointer.save(step + 1, self._state)
            if problem:
                self.observer(Progress("optimise", step + 1, steps, message=problem))
        if stopped_by:
            _stop(stopped_by)

    def _write_metrics(self) -> None:
        """Put the rows on the disk; on a full one, the next time."""
        if self._run is None or self._run.append_metrics(self._rows):
            self._rows = []


def _metrics_row(step: int, report: StepReport) -> dict[str, Any]:
    t_min, t_max = report.timestep_range
    return {
        "step": step,
        "loss": f"{report.loss:.6g}",
        "timestep": report.timestep,
        "t_min": t_min,
        "t_max": t_max,
        "opacity": f"{report.opacity:.4f}",
        "occupancy": f"{report.occupancy:.4f}",
    }


def _stop(number: int) -> NoReturn:
    """What the signal would have done at once."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
