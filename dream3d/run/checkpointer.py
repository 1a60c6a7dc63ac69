"""A run's state on the disk: when it is written, and how it comes back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from dream3d.errors import CheckpointError, NewerCheckpointError
from dream3d.recipe.generation import Recipe
from dream3d.run import checkpoints
from dream3d.version import __version__

VERSION = 1
"""Of a run's checkpoints; a newer one is refused."""
FOLDER = "checkpoints"


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

    folder: Path
    interval_seconds: float
    """Seconds between checkpoints; 0 writes none, except when the run is stopped."""
    spent_seconds: float = 0.0
    """In earlier sessions of the run."""
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
        facts = {"seconds": self.seconds, "circumstances": circumstances(state.device)}
        try:
            checkpoints.write(self.folder, step, VERSION, facts, state.state_dict())
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            return f"no checkpoint at step {step}: {reason} ({self.folder}); going on without, make room for the next"
        return None

    def restore(self, state: RunState) -> tuple[int, list[str]]:
        """Bring back the newest state that can be read: the steps done (0 if there is none), and notices for the user.

        Raises NewerCheckpointError for one of a newer version, CheckpointError if it belongs to another run.
        """
        notices = []
        for path in reversed(checkpoints.all_in(self.folder)):
            try:
                facts, tensors = checkpoints.read(path, VERSION)
            except NewerCheckpointError:
                raise
            except CheckpointError as error:
                notices.append(str(error).replace("; remove it to go on from", "; going on from"))
                continue
            step: int = facts["step"]
            if not 0 <= step <= state.recipe.steps:
                raise CheckpointError(f"{path} is of step {step}, the run has {state.recipe.steps}; remove it")
            state.load_state_dict(step, tensors)
            self.spent_seconds = float(facts.get("seconds", 0.0))
            notices += _differences(facts.get("circumstances", {}), circumstances(state.device))
            return step, notices
        return 0, notices


def _differences(old: Mapping[str, Any], new: Mapping[str, str]) -> list[str]:
    changed = [f"{name} was {old.get(name)} and is {value}" for name, value in new.items() if old.get(name) != value]
    return [f"the result may differ from that of an unbroken run: {', '.join(changed)}"] if changed else []
