"""A run's state on the disk: when it is written, and how it comes back."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from dream3d.errors import CheckpointError, NewerCheckpointError
from dream3d.recipe.generation import Recipe
from dream3d.run import checkpoints
from dream3d.run.folder import RunFolder
from dream3d.version import __version__

VERSION = 1
"""Of a run's checkpoints; a newer one is refused."""
FOLDER = "checkpoints"
FIELD = "field.safetensors"
"""What is kept of a finished run: the state without optimiser, random generators, targets and a learnt copy."""
_FOLDERS = re.compile(rf"{FOLDER}(-\d+)?")
_FILES = re.compile(rf"{_FOLDERS.pattern}/{checkpoints.NAME.pattern}")


def circumstances(device: torch.device) -> dict[str, str]:
    """What the bytes of a result depend on besides the job."""
    return {
        "dream3d": __version__,
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


class RunState(Protocol):
    """What a checkpoint holds: everything that changes from step to step."""

    device: torch.device
    recipe: Recipe

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, besides the job."""
        ...

    def load_state_dict(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Go back to the state after ``step`` steps. Raises CheckpointError if it is the state of something else."""
        ...


@dataclass
class Checkpointer:
    """Writes a run's state to the disk when it is time, and brings it back."""

    run: RunFolder
    interval_seconds: float
    """Seconds between checkpoints; 0 writes none, except when the run is stopped."""
    spent_seconds: float = 0.0
    """In earlier sessions of the run."""
    attempt: int = 0
    """Restarts of the run so far; checkpoints of earlier attempts do not count."""
    _started: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Spent on the run, in all its sessions."""
        return self.spent_seconds + time.monotonic() - self._started

    def is_due(self) -> bool:
        """Whether the interval has passed since the last checkpoint."""
        return 0 < self.interval_seconds <= time.monotonic() - self._last

    def save(self, step: int, state: RunState) -> str | None:
        """Write the state after ``step`` steps; None, or why it could not be written.

        A full disk does not end the run, which needs no checkpoint to come to its end.
        """
        self._last = time.monotonic()
        facts = {"seconds": self.seconds, "attempt": self.attempt, "circumstances": circumstances(state.device)}
        try:
            folder = self.run.own(FOLDER)
            self._write(f"{folder.name}/step-{step:08d}.safetensors", step, facts, state.state_dict())
            self.run.remove(self.run.owned(_FILES)[: -checkpoints.KEPT])
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            return f"no checkpoint at step {step}: {reason} ({self.run.path}); going on without, make room for the next"
        return None

    def _write(self, name: str, step: int, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        path = self.run.own(name)
        path.parent.mkdir(exist_ok=True)
        checkpoints.save(path, step, VERSION, {**facts, "job": self.run.job}, tensors)

    def keep_field(self, state: RunState) -> None:
        """Write :data:`FIELD`, from which the mesh could be made again. Raises OSError."""
        unkept = ("optimizer.", "generator.", "target.", "round.", "updates.", "copy.")
        kept = {name: value for name, value in state.state_dict().items() if not name.startswith(unkept)}
        self._write(FIELD, state.recipe.steps, {}, kept)

    def discard(self, paths: Sequence[Path] | None = None) -> None:
        """Remove the checkpoints that the run made, or some; what else is in their folder stays, and the folder too."""
        with contextlib.suppress(OSError):  # none of them is needed any more
            self.run.remove([*self.run.owned(_FILES), *self.run.owned(_FOLDERS)] if paths is None else paths)

    def restore(self, state: RunState) -> tuple[int, list[str]]:
        """Bring back the newest state that can be used: the steps done (0 if there is none), and notices for the user.

        Raises NewerCheckpointError for one of a newer version, CheckpointError if all are whole and none fits the run.
        """
        notices: list[str] = []
        unfit: CheckpointError | None = None
        room = checkpoints.MAX_HEADER_BYTES + 8 * sum(value.nbytes for value in state.state_dict().values())
        for path in reversed(self.run.owned(_FILES)):
            try:
                facts, tensors = checkpoints.read(path, VERSION, room)
            except NewerCheckpointError:
                raise
            except CheckpointError as error:
                notices.append(str(error).replace("; remove it to go on from", "; going on from"))
                continue
            if facts.get("attempt", 0) != self.attempt:  # the run was killed as it began again
                self.discard([path])
                continue
            try:
                spent, past = _seconds_and_circumstances(facts, self.run.job)
                state.load_state_dict(facts["step"], tensors)
            except CheckpointError as error:
                unfit = unfit or CheckpointError(f"{path}: {error}; start again")
                notices.append(f"{path}: {error}; going on from the one before")
                continue
            self.spent_seconds = spent
            return facts["step"], [*notices, *_differences(past, circumstances(state.device))]
        if unfit:
            raise unfit
        return 0, notices


def _seconds_and_circumstances(facts: Mapping[str, Any], job: str) -> tuple[float, Mapping[str, Any]]:
    """What a checkpoint says besides its state; CheckpointError if it is another job's."""
    if facts.get("job", job) != job:
        raise CheckpointError("it belongs to another job")
    seconds, past = facts.get("seconds", 0.0), facts.get("circumstances", {})
    is_plain = isinstance(seconds, int | float) and isinstance(past, Mapping)
    return (float(seconds), past) if is_plain else (0.0, {})


def _differences(old: Mapping[str, Any], new: Mapping[str, str]) -> list[str]:
    changed = [f"{name} was {old.get(name)} and is {value}" for name, value in new.items() if old.get(name) != value]
    return [f"the result may differ from that of an unbroken run: {', '.join(changed)}"] if changed else []
