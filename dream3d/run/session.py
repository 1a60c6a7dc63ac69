"""What happens around the steps of a run: progress reports, metrics, checkpoints, and being told to stop."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from dream3d import watch
from dream3d.errors import NotFiniteError
from dream3d.images import contact_sheet, enlarged, write_png
from dream3d.run.checkpointer import Checkpointer, RunState
from dream3d.run.folder import RunFolder
from dream3d.run.progress import Measured, Observer, Preview, Progress, StepReport, read, silent
from dream3d.run.signals import Signals, listening
from dream3d.watch import Figures

TARGETS = "targets.png"
"""In the run folder, one row per round: images that the prior gave, which the field was then fitted to."""
TARGET_SIDE = 128
"""Least side of each, pixels."""
METRICS_EVERY = 20
"""Rows of metrics.csv are written in batches of this many, so that a step does not wait for the disk, or for a GPU."""
SKIPPED_AT_MOST = 20
"""Updates without finite numbers in a row, after which a run ends."""


class WatchedState(RunState, Protocol):
    """A state that can be looked at."""

    @property
    def troubles(self) -> tuple[int, int]:
        """Updates skipped so far, and renders whose marching step was doubled."""
        ...

    def figures(self) -> Figures:
        """What is seen of the field."""
        ...


class Session:
    """One process at work on a run. Without a folder and a checkpointer it only reports progress."""

    def __init__(
        self, observer: Observer = silent, run: RunFolder | None = None, checkpointer: Checkpointer | None = None
    ) -> None:
        self.observer, self._run, self._checkpointer = observer, run, checkpointer
        self._signals = Signals()
        self._reports: dict[int, StepReport] = {}
        self._rows: list[dict[str, Any]] = []
        self._latest: Measured | None = None
        self._troubles = (0, 0)
        self._looks = watch.looks_from(run.facts.get("watch"), run.path / "run.json") if run else []

    def seed(self, asked: int) -> int:
        """The seed of the present attempt; the one ``asked`` for until the run begins again."""
        return watch.seed_of(asked, watch.count_of("restart", self._looks))

    @contextmanager
    def steps_of(self, state: WatchedState, preview: Preview) -> Iterator[Iterator[int]]:
        """The steps that are still to be done, after the newest checkpoint if there is one.

        ``preview`` renders the field as it is. While the context is open, :meth:`after` ends each step.
        """
        done, notices = 0, list[str]()
        self._reports, self._rows, self._latest = {}, [], None
        if self._checkpointer:
            self._checkpointer.attempt = watch.count_of("restart", self._looks)
            done, notices = self._checkpointer.restore(state)
        attempt = watch.current(self._looks)
        self._looks = [look for look in self._looks if look not in attempt or look.step < done]  # others come again
        self._recipe, self._troubles = state.recipe, state.troubles
        state.recipe = watch.eased(self._recipe, self._looks)
        self.observer(Progress("prepare", 1, 1, message="; ".join(notices) or None))
        if self._run is not None:
            self._run.keep_metrics(done)
        self._state, self._preview = state, preview
        with listening() as self._signals:
            yield self._announced(done)

    def _announced(self, done: int) -> Iterator[int]:
        """The steps from ``done`` on; the first of a round, which takes long, is told before."""
        recipe, rounds = self._state.recipe, self._state.recipe.rounds
        for step in range(done, recipe.steps):
            if step in rounds:
                asked, _ = recipe.target_at(step)
                what = f"denoising {asked.views or 'the'} views in {asked.denoise_steps} steps"
                sentence = f"round {rounds.index(step) + 1} of {len(rounds)}: {what}"
                self.observer(Progress("optimise", step, recipe.steps, message=sentence))
            yield step

    def look(self, step: int, state: WatchedState) -> bool:
        """Whether the field after ``step`` updates is one to go on with; if not, the run begins again.

        What is wrong is told and recorded. It is part of a step that is repeated when a run is resumed there, so that
        the same is seen again.
        """
        if not watch.is_due(self._recipe, step):
            return True
        past = watch.current(self._looks)
        figures = state.figures()
        trouble = watch.judge(figures, past[-1].figures if past else None, self._recipe.watch)
        return self._answer(step, figures, trouble, state)

    def gives_up(self, step: int, state: WatchedState) -> bool:
        """Whether a run whose numbers are not finite ends there; if not, it begins again."""
        nothing = Figures(math.nan, math.nan, math.nan)
        return self._answer(step, nothing, "not finite", state)

    def _answer(self, step: int, figures: Figures, trouble: watch.Trouble | None, state: WatchedState) -> bool:
        recipe, attempt = self._recipe, watch.count_of("restart", self._looks)
        answer = watch.answer_to(trouble, self._looks, recipe.watch, step == recipe.steps)
        look = watch.Look(attempt, step, figures, trouble, answer)
        self._looks.append(look)
        if self._run is not None:
            with contextlib.suppress(OSError):  # the disk is full: it is written with whatever comes next
                self._run.record_watch([one.to_dict() for one in self._looks])
        if look.sentence:
            self.observer(Progress("optimise", step, recipe.steps, message=look.sentence))
        if answer == "restart" and self._checkpointer is not None:
            self._checkpointer.discard()
        state.recipe = watch.eased(recipe, self._looks)
        return answer != "restart"

    def after(self, step: int, report: StepReport) -> None:
        """Record step number ``step``, write what is due; raises KeyboardInterrupt or SystemExit if told to stop.

        Raises Dream3DError if the numbers of many updates in a row were not finite.
        """
        steps, checkpointer = self._state.recipe.steps, self._checkpointer
        is_last = step == steps - 1
        self._reports[step] = report
        self._write_targets(report)
        if report.consistency is not None and self._run is not None:
            with contextlib.suppress(OSError):
                self._run.record_target(step, report.consistency)
        message = None
        if is_last or len(self._reports) >= METRICS_EVERY or self._state.device.type == "cpu":
            message = self._read()
        if is_last or len(self._rows) >= METRICS_EVERY:
            self._write_metrics()
        self.observer(
            Progress(
                "optimise",
                step + 1,
                steps,
                loss=self._latest and self._latest.loss,
                timestep_range=report.timestep_range,
                occupancy=self._latest and self._latest.occupancy,
                message=message,
                targets=report.targets[-1].numpy() if report.targets else None,
                preview=self._preview,
            )
        )
        stopped_by = self._signals.received
        if checkpointer and (stopped_by or checkpointer.is_due() or (is_last and checkpointer.interval_seconds)):
            message = self._read()
            self._write_metrics()
            for sentence in filter(None, (message, checkpointer.save(step + 1, self._state))):
                self.observer(Progress("optimise", step + 1, steps, message=sentence))
        if stopped_by:
            _stop(stopped_by)

    def _read(self) -> str | None:
        """Take over the numbers of the steps since the last time; a sentence if some went wrong."""
        if not self._reports:
            return None
        numbers = read(list(self._reports.values()))
        for (step, report), measured in zip(self._reports.items(), numbers, strict=True):
            self._rows.append(_metrics_row(step, report, measured))
        self._reports, self._latest = {}, measured
        if measured.skipped_in_a_row >= SKIPPED_AT_MOST:
            raise NotFiniteError(
                f"the last {measured.skipped_in_a_row:.0f} updates up to step {step} had a loss or gradients that "
                "are not finite; try --precision bf16 or fp32, or a lower --guidance-scale"
            )
        before, self._troubles = self._troubles, (int(measured.skipped), report.coarsened)
        news = [new - old for old, new in zip(before, self._troubles, strict=True)]
        words = (
            ("update", "skipped, since the loss or a gradient was not finite"),
            ("render", "marched in coarser steps, to keep the sample budget"),
        )
        counts = zip(news, words, strict=True)
        parts = [f"{count} {noun}{'s' * (count > 1)} {what}" for count, (noun, what) in counts if count]
        return f"up to step {step}: {'; '.join(parts)}" if parts else None

    def _write_targets(self, report: StepReport) -> None:
        """Write the sheet of all targets to be looked at, if there is one more."""
        if report.targets and self._run is not None:
            sheet = contact_sheet([enlarged(images.numpy(), TARGET_SIDE) for images in report.targets])
            with contextlib.suppress(OSError):  # a full disk ends no run; the next sheet has all
                write_png(self._run.own(TARGETS), sheet)

    def _write_metrics(self) -> None:
        """Put the rows on the disk; on a full one, the next time."""
        if self._run is None or self._run.append_metrics(self._rows):
            self._rows = []


def _metrics_row(step: int, report: StepReport, measured: Measured) -> dict[str, Any]:
    t_min, t_max = report.timestep_range
    return {
        "step": step,
        "loss": f"{measured.loss:.6g}",
        "timestep": report.timestep,
        "t_min": t_min,
        "t_max": t_max,
        "opacity": f"{measured.opacity:.4f}",
        "occupancy": f"{measured.occupancy:.4f}",
    }


def _stop(number: int) -> NoReturn:
    """What the signal would have done at once."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
